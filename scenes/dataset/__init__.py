"""Training clips: planning, rendering, storage and packing."""
