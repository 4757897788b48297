"""A world in the file formats of other programs."""
