"""One rasterizer contract, three backends, the same image.

The semantics are those of gsplat's classic mode: footprints grow by `eps2d` (0.3 px²), alpha is capped at 0.999,
contributions below 1/255 are dropped, a pixel is finished when its transmittance would fall below 1e-4, equal depths
keep storage order.
"""

from __future__ import annotations

import torch

from cache3d.rasterizer.types import Backend, Raster, Splats
from geometry.camera import Camera


def rasterize(splats: Splats, camera: Camera, backend: Backend = "auto", *, eps2d: float = 0.3) -> Raster:
    """Composite Gaussians into the images of a batch of cameras.

    Gradients reach means, quats, scales, opacities, values and ``camera.world_from_camera``; not focal lengths,
    principal points, or the choice of the Gaussians that a pixel shows. The reference differentiates intrinsics too.

    Args:
        splats: the Gaussians; one with a non-finite mean, quaternion, scale or opacity shows nowhere.
        camera: a batch ``[t]``.
        backend: `auto` is gsplat where the Gaussians are on a CUDA device, the CPU kernels elsewhere; `reference` is
            dense, slow and keeps the dtype of its input.
        eps2d: variance in px² added to every footprint, so that none falls between pixels.

    Raises:
        ValueError: if the camera has no batch axis of one, or values are not finite.
        RuntimeError: if `gsplat` is asked for and cannot run here.

    Example:
        >>> rasterize(splats, camera).values.shape
        torch.Size([1, 3, 192, 320])
    """
    if len(camera.batch_shape) != 1:
        raise ValueError(f"camera: want a batch [t], got batch shape {list(camera.batch_shape)}; index or stack it")
    # A sum is not finite if a term is not, and needs no temporary mask.
    if not torch.isfinite(splats.values.sum(dtype=torch.float64)):
        raise ValueError("values: want finite numbers, got NaN or infinity; drop those primitives first")
    if backend == "auto":
        backend = "gsplat" if splats.means.is_cuda else "cpu"
    # Imported here: each backend brings its own heavy library.
    if backend == "reference":
        from cache3d.rasterizer.reference import rasterize_reference

        return rasterize_reference(splats, camera, eps2d)
    if backend == "gsplat":
        from cache3d.rasterizer.gsplat import rasterize_gsplat

        return rasterize_gsplat(splats, camera, eps2d)
    from cache3d.rasterizer.cpu import rasterize_cpu

    return rasterize_cpu(splats, camera, eps2d)
