"""gsplat on a CUDA device, behind the contract of `rasterize`."""

from __future__ import annotations

import torch

from cache3d.rasterizer.types import Raster, Splats
from geometry.camera import Camera


def rasterize_gsplat(splats: Splats, camera: Camera, eps2d: float = 0.3) -> Raster:
    """See `rasterize`.

    Raises:
        RuntimeError: without a CUDA device or without gsplat, saying what to do.
    """
    if not torch.cuda.is_available():
        # gsplat would try to build its extension and fail obscurely.
        raise RuntimeError("gsplat: want a CUDA device, found none; use the rasterizer `cpu` (or `auto`)")
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise RuntimeError("gsplat: not installed; `pip install worldwarp[cuda]`") from error
    height, width = camera.size
    device = splats.means.device
    if len(splats) == 0:
        empty = torch.zeros(len(camera), 1, height, width, device=device)
        return Raster(empty.expand(-1, splats.values.shape[1], -1, -1), empty, empty)
    # gsplat does not drop non-finite Gaussians.
    given = (splats.means, splats.quats, splats.scales, splats.opacities[:, None])
    usable = torch.stack([torch.isfinite(part).all(dim=-1) for part in given]).all(dim=0)
    composited, alpha, _ = rasterization(
        means=splats.means[usable],
        quats=splats.quats[usable],
        scales=splats.scales[usable],
        opacities=splats.opacities[usable],
        colors=splats.values[usable],
        viewmats=camera.camera_from_world.to(device),
        Ks=camera.intrinsics.to(device),
        width=width,
        height=height,
        # As in the CPU kernels (`projection_kernels.NEAR`, `FAR`).
        near_plane=0.01,
        far_plane=1e10,
        eps2d=eps2d,
        rasterize_mode="classic",
        render_mode="RGB+ED",
        packed=False,
    )
    images = composited.permute(0, 3, 1, 2)
    return Raster(images[:, :-1], images[:, -1:], alpha.permute(0, 3, 1, 2))
