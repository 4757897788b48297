"""Export of a world to the file formats of other programs."""
