"""Hydra configuration groups of the worldwarp command."""
