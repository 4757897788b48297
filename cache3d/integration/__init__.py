"""Frame to primitives: which pixels enter the cache, which primitives are retired, how stored ones are optimized."""
