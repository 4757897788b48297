"""Camera paths from files and to files."""
