"""The CPU kernels against the dense reference, and what degenerate input does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from cache3d.rasterizer import cpu as rasterizer_cpu
from cache3d.rasterizer.cpu import warm_up
from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Raster, Splats
from geometry.camera import Camera
from geometry.se3 import exp
from tests.helpers import random_splats


def make_camera(size: tuple[int, int] = (37, 51)) -> Camera:
    twists = torch.tensor([[0.0, 0, 0, 0, 0, 0], [0.3, -0.1, 0.2, 0.05, 0.2, -0.1]])
    return Camera.from_fov(60.0, size, exp(twists))


def gradients(splats: Splats, camera: Camera, backend: str, dtype: torch.dtype) -> tuple[Raster, dict[str, Tensor]]:
    leaves = {f.name: getattr(splats, f.name).to(dtype).clone().requires_grad_() for f in fields(Splats)}
    pose = camera.world_from_camera.to(dtype).clone().requires_grad_()
    raster = rasterize(Splats(**leaves), replace(camera.to(dtype), world_from_camera=pose), backend)  # pyright: ignore[reportArgumentType]
    rng = torch.Generator().manual_seed(7)
    loss = torch.zeros((), dtype=dtype)
    for image in (raster.values, raster.depth, raster.alpha):
        weight = torch.randn(image.shape, generator=rng).to(dtype)
        loss = loss + (image * weight * (raster.alpha.detach() > 0.1)).sum()
    loss.backward()
    grads = {name: leaf.grad for name, leaf in leaves.items()} | {"pose": pose.grad}
    return raster, {name: grad for name, grad in grads.items() if grad is not None}


@pytest.mark.parametrize(("count", "eps2d"), [(300, 0.3), (100, 0.1)])
def test_cpu_kernels_agree_with_the_reference(count: int, eps2d: float) -> None:
    splats, camera = random_splats(count), make_camera()
    double = Splats(*(getattr(splats, f.name).double() for f in fields(Splats)))
    fast = rasterize(splats, camera, "cpu", eps2d=eps2d)
    slow = rasterize(double, camera.to(torch.float64), "reference", eps2d=eps2d)
    assert slow.alpha.mean() > 0.05
    torch.testing.assert_close(fast.values.double(), slow.values, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.alpha.double(), slow.alpha, atol=1e-5, rtol=0)
    covered = slow.alpha > 0.05
    torch.testing.assert_close(fast.depth.double()[covered], slow.depth[covered], atol=5e-5, rtol=0)


def test_gradients_agree_with_autograd_through_the_reference() -> None:
    splats, camera = random_splats(100, seed=3), make_camera((25, 34))
    _, fast = gradients(splats, camera, "cpu", torch.float32)
    _, slow = gradients(splats, camera, "reference", torch.float64)
    assert fast.keys() == slow.keys() == {"means", "quats", "scales", "opacities", "values", "pose"}
    for name, expected in slow.items():
        error = (fast[name].double() - expected).norm() / expected.norm()
        assert error < 5e-5, f"{name}: {error:.1e}"  # measured: 1e-6 to 1e-5


def test_bits_do_not_depend_on_runs_or_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small blocks, so that the toy scene is split over threads at all.
    monkeypatch.setattr(rasterizer_cpu, "PROJECT_BLOCK", 64)
    monkeypatch.setattr(rasterizer_cpu, "TILE_BLOCK", 1)
    splats, camera = random_splats(500, seed=1), make_camera()
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            results.append(gradients(splats, camera, "cpu", torch.float32))
    finally:
        torch.set_num_threads(before)
    for raster, grads in results[1:]:
        assert torch.equal(raster.values, results[0][0].values)
        assert torch.equal(raster.depth, results[0][0].depth)
        for name, grad in grads.items():
            assert torch.equal(grad, results[0][1][name]), name


def test_equal_depths_are_composited_in_storage_order() -> None:
    splats = Splats(
        torch.tensor([[0.0, 0, 2], [0.0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2, 3), 0.5),
        torch.tensor([0.9, 0.9]), torch.eye(2),
    )  # fmt: skip
    camera = Camera.from_fov(60.0, (3, 3), torch.eye(4)[None])
    swapped = replace(splats, values=torch.eye(2).flip(0))
    for backend in ("cpu", "reference"):
        first = rasterize(splats, camera, backend).values[0, :, 1, 1]
        assert first[0] > 5 * first[1]
        assert torch.equal(first.flip(0), rasterize(swapped, camera, backend).values[0, :, 1, 1])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_visible_gaussians_give_an_empty_image(backend: str) -> None:
    camera = make_camera((5, 7))
    behind = replace(random_splats(4), means=random_splats(4).means * torch.tensor([1.0, 1, -1]))
    for splats in (random_splats(0), behind):
        raster = rasterize(splats, camera, backend)  # pyright: ignore[reportArgumentType]
        assert raster.values.shape == (2, 3, 5, 7)
        assert not raster.values.any()
        assert not raster.alpha.any()
        assert not raster.depth.any()


def test_an_empty_scene_has_empty_gradients() -> None:
    _, grads = gradients(random_splats(0), make_camera((5, 7)), "cpu", torch.float32)
    assert grads["means"].shape == (0, 3)
    assert not grads["pose"].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 33)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    splats, camera = random_splats(200, seed=5), make_camera(size)
    fast, slow = rasterize(splats, camera, "cpu"), rasterize(splats, camera, "reference")
    torch.testing.assert_close(fast.values, slow.values, atol=5e-5, rtol=0)


@pytest.mark.parametrize("part", ["means", "quats", "scales", "opacities"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_non_finite_gaussian_shows_nowhere(part: str, backend: str) -> None:
    splats, camera = random_splats(30), make_camera()
    broken = getattr(splats, part).clone()
    broken[3] = torch.nan
    kept = torch.arange(30) != 3
    without = Splats(*(getattr(splats, f.name)[kept] for f in fields(Splats)))
    drawn = rasterize(replace(splats, **{part: broken}), camera, backend)  # pyright: ignore[reportArgumentType]
    assert torch.equal(drawn.values, rasterize(without, camera, backend).values)  # pyright: ignore[reportArgumentType]


def test_needles_and_giants_stay_finite() -> None:
    splats = random_splats(20)
    scales = splats.scales.clone()
    scales[:10] = torch.tensor([1e-6, 1e-6, 5.0])
    scales[10:] = 1e3
    raster, grads = gradients(replace(splats, scales=scales), make_camera(), "cpu", torch.float32)
    assert torch.isfinite(raster.values).all()
    assert ((raster.alpha >= 0) & (raster.alpha <= 1)).all()
    assert torch.isfinite(grads["means"]).all()


def test_invalid_input_is_refused() -> None:
    splats = random_splats(3)
    with pytest.raises(ValueError, match=r"camera: want a batch \[t\]"):
        rasterize(splats, make_camera()[0])
    with pytest.raises(ValueError, match="values: want finite"):
        rasterize(replace(splats, values=splats.values * torch.inf), make_camera())
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="want a CUDA device"):
            rasterize(splats, make_camera(), "gsplat")


def test_warming_up_compiles_once() -> None:
    warm_up(gradients=True)
    assert len(rasterizer_cpu.tiles.composite.signatures) == 1
    rasterize(random_splats(2, channels=7), make_camera())
    assert len(rasterizer_cpu.tiles.composite.signatures) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_rasterize() -> None:
    code = (
        "import os, torch\nfrom cache3d.rasterizer import cpu\nfrom cache3d.rasterizer.cpu import warm_up\n"
        "cpu.TILE_BLOCK = 1\ntorch.set_num_threads(2)\nwarm_up()\n"
        "from cache3d.rasterizer.rasterize import Splats, rasterize\nfrom geometry.camera import Camera\n"
        "s = Splats(torch.tensor([[0., 0, 2]]), torch.tensor([[1., 0, 0, 0]]), torch.ones(1, 3), torch.ones(1),"
        " torch.ones(1, 3))\n"
        "c = Camera.from_fov(60.0, (64, 64), torch.eye(4)[None])\n"
        "rasterize(s, c)\npid = os.fork()\n"
        "if pid == 0:\n    rasterize(s, c)\n    os._exit(0)\n"
        "print(os.waitpid(pid, 0)[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "0"
