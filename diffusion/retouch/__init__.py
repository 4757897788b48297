"""The packaged generator: a small network that corrects the inpainted prior."""
