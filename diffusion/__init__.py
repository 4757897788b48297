"""Diffusion: copying prior, noise map, flow step, causal sampler, generators and their training."""
