"""The files of a world: manifest, chunks, log of cache changes, cameras."""
