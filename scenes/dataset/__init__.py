"""Training clips: which are rendered, how they are stored and packed."""
