"""Latent causal video diffusion with models of the Wan architecture."""
