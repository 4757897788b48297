"""Benchmarks: `python -m benchmarks.NAME` runs one and ends with a JSON line."""
