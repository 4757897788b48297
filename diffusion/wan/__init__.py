"""Published latent video diffusion models of the Wan architecture: lines, weights, and what runs them."""
