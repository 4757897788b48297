"""Viz: records sessions and trainings with Rerun, live or to a file."""
