"""Viz: everything the explorer does, live in Rerun."""
