"""World cache: points or Gaussians that persist over the whole walk, and their rasterizers."""
