"""Reading and writing of camera paths in common file formats."""
