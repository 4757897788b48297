"""Splatting with gsplat's semantics: one contract, three backends (CPU kernels, gsplat on CUDA, dense reference)."""
