"""Primitives to guide: visibility, footprints, confidence, and incremental rendering."""
