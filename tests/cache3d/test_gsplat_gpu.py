"""gsplat on a real device against the CPU kernels."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Splats
from geometry.camera import Camera
from tests.helpers import cameras_at, random_splats

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def draw(splats: Splats, camera: Camera, device: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    leaves = [getattr(splats, f.name).to(device).requires_grad_() for f in fields(Splats)]
    raster = rasterize(Splats(*leaves), camera.to(device))
    images = [raster.values, raster.depth, raster.alpha]
    rng = torch.Generator().manual_seed(7)
    weights = [torch.randn(image.shape, generator=rng).to(device) for image in images]
    covered = raster.alpha.detach() > 0.1
    torch.stack([(i * w * covered).sum() for i, w in zip(images, weights, strict=True)]).sum().backward()
    return [i.detach().cpu() for i in images], [leaf.grad.cpu() for leaf in leaves if leaf.grad is not None]


def test_gsplat_agrees_with_the_cpu_kernels() -> None:
    splats, camera = random_splats(1500), cameras_at((0.0, 0.0, 0.0), (0.3, -0.1, 0.2), size=(70, 90))
    cpu, cpu_grads = draw(splats, camera, "cpu")
    gpu, gpu_grads = draw(splats, camera, "cuda")
    for ours, theirs in zip(cpu, gpu, strict=True):
        difference = (ours - theirs).abs()
        assert difference.mean() < 5e-6
        assert (difference > 1e-4).float().mean() < 1e-3
    for ours, theirs in zip(cpu_grads, gpu_grads, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 5e-3
