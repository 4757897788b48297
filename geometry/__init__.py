"""Geometry: the types that travel between rooms, cameras and paths, projection and depth."""
