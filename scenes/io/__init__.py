"""Reading and writing single files: atomically, as PNG, as video."""
