"""Training of the packaged networks."""
