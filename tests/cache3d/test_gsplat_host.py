"""The CPU kernels against gsplat's own, compiled for the host from the installed wheel."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from benchmarks.speed.rasterizer import make_scene
from cache3d.rasterizer import cpu as rasterizer_cpu
from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Splats
from geometry.camera import Camera
from geometry.se3 import exp
from tests.helpers import random_splats
from tests.oracles.gsplat_host import GsplatHost, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def side_camera() -> Camera:
    """A camera that is turned and moved."""
    return Camera.from_fov(60.0, (70, 90), exp(torch.tensor([[0.3, -0.1, 0.2, 0.05, 0.2, -0.1]])))


@pytest.mark.parametrize("eps2d", [0.3, 0.1])
def test_images_agree(eps2d: float) -> None:
    splats, camera = random_splats(1500, seed=2), side_camera()
    theirs = GsplatHost(splats, camera[0], eps2d=eps2d).draw()
    ours = rasterize(splats, camera, "cpu", eps2d=eps2d)
    assert ours.alpha.mean() > 0.3
    assert np.abs(theirs.image[..., :3] - ours.values[0].permute(1, 2, 0).numpy()).max() < 1e-5
    assert np.abs(theirs.alpha - ours.alpha[0, 0].numpy()).max() < 1e-5


def test_gradients_agree() -> None:
    splats, camera = random_splats(800, seed=4), side_camera()
    leaves = Splats(*(getattr(splats, f.name).requires_grad_() for f in fields(Splats)))
    posed = replace(camera, world_from_camera=camera.world_from_camera.clone().requires_grad_())
    raster = rasterize(leaves, posed, "cpu")
    rng = torch.Generator().manual_seed(7)
    v_values, v_alpha = torch.randn(raster.values.shape, generator=rng), torch.randn(raster.alpha.shape, generator=rng)
    v_depth = torch.randn(raster.alpha.shape, generator=rng)
    ((raster.values * v_values).sum() + (raster.alpha * v_alpha).sum()).backward(retain_graph=True)
    (raster.depth * raster.alpha * v_depth).sum().backward()
    grads = {f.name: getattr(leaves, f.name).grad for f in fields(Splats)} | {"pose": posed.world_from_camera.grad}

    host = GsplatHost(splats, camera[0])
    v_image = torch.cat([v_values, v_depth], dim=1)[0].permute(1, 2, 0).contiguous().numpy()
    expected = host.pull_back(host.draw(), v_image, v_alpha[0, 0].numpy())
    expected["pose"] = torch.autograd.grad(posed.camera_from_world, posed.world_from_camera, expected["pose"][None])[0]
    for name, theirs in expected.items():
        ours = grads[name]
        assert ours is not None
        error = (ours - theirs).norm() / theirs.norm()
        assert error < 5e-5, f"{name}: {error:.1e}"


def test_a_large_scene_agrees_statistically() -> None:
    splats, camera = make_scene((256, 448))
    theirs = GsplatHost(splats, camera[0]).draw()
    ours = rasterize(splats, camera, "cpu").values[0].permute(1, 2, 0).numpy()
    difference = np.abs(theirs.image[..., :3] - ours)
    assert difference.mean() < 5e-6
    assert np.quantile(difference, 0.999) < 5e-5


def test_tile_lists_agree() -> None:
    """gsplat rounds extents up to whole pixels; we list only tiles with a pixel center inside the extent.

    What only gsplat lists can therefore draw nothing; the rest has to be the same, in the same order.
    """
    splats, camera = random_splats(1500, seed=2), side_camera()
    theirs = GsplatHost(splats, camera[0]).draw()
    row = rasterizer_cpu.camera_row(camera.camera_from_world[0], camera.focal_px[0], camera.center_px[0])
    parts = [t.numpy() for t in vars(splats).values()]
    flat, box = rasterizer_cpu.project(parts, row, camera.size, 0.3)
    starts, ids, _, _ = rasterizer_cpu.tile_lists(*rasterizer_cpu.depth_order(flat, box), theirs.offsets.shape)
    visible = set(np.flatnonzero(theirs.radii[:, 0] > 0))
    assert set(np.flatnonzero(box >= 0)) <= visible
    bounds = np.append(theirs.offsets.reshape(-1), len(theirs.ids))
    drawing = 0
    for tile in range(len(starts) - 1):
        y0, x0 = (16 * k for k in divmod(tile, theirs.offsets.shape[1]))
        listed = [
            i for i in theirs.ids[bounds[tile] : bounds[tile + 1]]
            if draws_in(theirs.means2d[i], theirs.conics[i], splats.opacities[i].item(), (y0, x0), camera.size)
        ]  # fmt: skip
        assert list(ids[starts[tile] : starts[tile + 1]]) == listed
        drawing += len(listed)
    assert drawing == len(ids) > 1000


def draws_in(mean: np.ndarray, conic: np.ndarray, opacity: float, corner: tuple[int, int], size: tuple[int, int]):
    """Whether a pixel center of the tile lies in the box around the ellipse where alpha falls to 1/255."""
    a, b, c = conic.astype(np.float64)
    deviations = np.sqrt(np.array([c, a]) / (a * c - b * b))
    extent = min(3.33, np.sqrt(2 * np.log(opacity * 255)) + 1e-3) * deviations
    inside = []
    for k in range(2):
        centers = np.arange(corner[1 - k], min(corner[1 - k] + 16, size[1 - k])) + 0.5
        inside.append((np.abs(centers - mean[k]) <= extent[k]).any())
    return all(inside)
