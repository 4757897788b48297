"""A world on disk."""
