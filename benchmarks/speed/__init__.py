"""Speed of the rasterizer and of whole walks."""
