"""A session on a simulated GPU: tensors are moved between devices where needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cache3d.gaussian_cache import GaussianCache
from diffusion.inpainting.config import InpaintConfig
from diffusion.noise_map import NoiseConfig
from diffusion.retouch.generator import RetouchGenerator
from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.primitives import Change
from scenes.store.delta_log import read_change, write_change
from tests.oracles.pretend_gpu import PretendGpu, is_marked
from worldwarp.loop import explore, start
from worldwarp.state import Components, ExploreState, LiftedPhoto

SIZE = (16, 24)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The simulated GPU is known to the thread that made it, so all views are rendered on that one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def started(device: str) -> tuple[ExploreState, Components, GaussianCache]:
    """A wall with a nearer half, rendered by the dense reference rasterizer; cache and network are on ``device``."""
    rng = torch.Generator().manual_seed(0)
    rgb = (torch.rand(1, 3, *SIZE, generator=rng) * 255.0).round() / 255.0
    depth = torch.where(torch.arange(SIZE[1]) < 12, 2.0, 4.0).expand(1, 1, *SIZE).clone()
    sky = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    sky[..., :4, 16:] = True
    photo = Frame(rgb, torch.where(sky, 1000.0, depth), depth > 0, sky, aside(torch.zeros(1)))
    cache = GaussianCache(device=device, rasterizer="reference", refine_steps=1)
    components = Components(RetouchGenerator(device=device), NoiseConfig(), InpaintConfig())
    state = start(LiftedPhoto(photo, photo, rgb[0]), cache, components, torch.Generator().manual_seed(0))
    return state, components, cache


def aside(steps: Tensor) -> Camera:
    """Cameras so many steps to the right of the photo's."""
    poses = torch.eye(4).repeat(len(steps), 1, 1)
    poses[:, 0, 3] = 0.05 * steps
    return Camera.from_fov(60.0, SIZE, poses)


def explored(device: str) -> tuple[list[Frame], GaussianCache]:
    """Two chunks of two frames."""
    state, components, cache = started(device)
    path = aside(torch.arange(1.0, 5.0))
    return [step.chunk.frames for step in explore(state, [path[:2], path[2:]], components)], cache


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # from autocast
def test_a_session_with_its_cache_on_another_device_gives_the_same_frames(tmp_path: Path) -> None:
    frames, cache = explored("cpu")
    with PretendGpu():
        moved, world = explored("cuda")
        rows = world.snapshot()
        assert is_marked(rows.means)
        write_change(tmp_path / "change", Change.from_nothing(rows))
        assert not is_marked(moved[0].rgb)
    stored = read_change(tmp_path / "change").rows
    assert torch.equal(stored.chunk, rows.chunk)
    # The network runs in bfloat16 on the CPU and in float32 on the simulated GPU.
    for here, there in zip(frames, moved, strict=True):
        assert (here.rgb - there.rgb).abs().max() < 0.02
        torch.testing.assert_close(here.depth, there.depth, rtol=0.02, atol=0.0)
    assert len(cache) == len(world)


def test_a_view_without_holes_leaves_the_gpu_once() -> None:
    with PretendGpu() as gpu:
        state, components, _ = started("cuda")
        gpu.left.clear()
        list(explore(state, [aside(torch.zeros(4))], components))
    pictures = Counter(shape for shape in gpu.left if shape[-2:] == SIZE)
    # Of each of the four views colors, and depth, coverage, confidence and sky, which are stored.
    assert pictures == {(1, 3, *SIZE): 4, (1, 1, *SIZE): 16}
    others = sum(torch.Size(shape).numel() for shape in gpu.left if shape[-2:] != SIZE)
    assert others <= 4 * 2 * 20  # the numbers of each view's camera, by which its drawing is found again


def test_a_generated_chunk_on_another_device_gives_the_same_colors() -> None:
    rng = torch.Generator().manual_seed(0)
    depth = torch.where(torch.arange(SIZE[1]) < 12, 1.0, 4.0).expand(1, 1, *SIZE).clone()
    known = depth > 0
    frame = Frame(
        torch.rand(1, 3, *SIZE, generator=rng), depth, known, ~known, Camera.from_fov(60.0, SIZE, torch.eye(4)[None])
    )
    made = []
    with PretendGpu():
        parts = (frame.rgb, frame.depth, frame.valid, frame.sky)
        there = Frame(*(part.to("cuda") for part in parts), camera=frame.camera.to("cuda"))
        for device, frames in (("cpu", frame), ("cuda", there)):
            cache = GaussianCache(device=device, rasterizer="reference", refine_steps=0)
            cache.integrate(Chunk(frames, 1, False, 0.5 * torch.ones_like(frames.depth)))
            made.append(cache.snapshot().colors.cpu())
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=0.0)


def test_mixing_devices_raises_as_on_a_gpu() -> None:
    with PretendGpu():
        there, here = torch.zeros(3, device="cuda"), torch.ones(3)
        assert there.is_cuda
        assert (there + 1.0).device.type == "cuda"
        assert there.cpu().device.type == "cpu"
        assert here.to(there).is_cuda
        with pytest.raises(RuntimeError, match="same device"):
            there.add(here)
        with pytest.raises(RuntimeError, match="same device"):
            here[there.long()]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert there[here.long() - 1].sum() == 0.0
        assert (there + here[0]).is_cuda
