"""Where primitives live: spatial blocks in memory and on disk."""
