"""Scenes: a world on disk, its exports, and textured worlds to learn from."""
