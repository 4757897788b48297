"""Quality of depth, prior, generator and whole walks."""
