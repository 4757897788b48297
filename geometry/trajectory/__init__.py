"""Camera paths from keyframes and from expressions such as `orbit,left`."""
