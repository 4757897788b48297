"""Frames rendered from the world: only views with holes are completed, at the generator's size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from cache3d.rendering.policy import RenderingPolicy
from diffusion.condition import Condition
from diffusion.generator import Cadence, Made, Memory
from diffusion.inpainting.config import InpaintConfig
from diffusion.noise_map import NoiseConfig
from diffusion.passthrough import PassthroughGenerator
from geometry.camera import Camera
from tests.helpers import cameras_at, pillar_before_wall, same_bits, world_content
from worldwarp import explore
from worldwarp.completion import add_margin, coarse_to_fine
from worldwarp.loop import explore as walk
from worldwarp.loop import start
from worldwarp.state import Components, ExploreState, LiftedPhoto, Step
from worldwarp.working_size import working_scale

SIZE = (96, 160)


class Counting(PassthroughGenerator):
    """Counts the views that it is asked for, and remembers their size."""

    cadence = Cadence(frames=4, pixels=48 * 80)

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def make(self, condition: Condition, sigma: Tensor, memory: Memory, rng: torch.Generator) -> Made:
        self.sizes += len(condition.guide) * [condition.guide.camera.size]
        return super().make(condition, sigma, memory, rng)


def begun(scale: int, cache: GaussianCache | PointCache | None = None) -> tuple[ExploreState, Components, Counting]:
    photo, _ = pillar_before_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE))
    generator = Counting()
    components = Components(generator, NoiseConfig(), InpaintConfig(), scale=scale, samples=None if scale == 1 else 1)
    cache = cache or GaussianCache(refine_steps=0, rendering=RenderingPolicy())
    state = start(LiftedPhoto(photo, photo, photo.rgb[0]), cache, components, torch.Generator().manual_seed(0))
    generator.sizes.clear()
    return state, components, generator


def walked(state: ExploreState, components: Components, *chunks: Camera) -> list[Step]:
    return list(walk(state, list(chunks), components))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 12])
def test_coarse_to_fine_visits_every_frame_once_from_the_last(count: int) -> None:
    order = coarse_to_fine(count)
    assert order[0] == count - 1
    assert sorted(order) == list(range(count))
    assert coarse_to_fine(8) == [7, 3, 1, 5, 0, 2, 4, 6]


def test_a_view_without_holes_is_rendered_and_changes_nothing() -> None:
    state, components, generator = begun(scale=2)
    still = cameras_at((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), size=SIZE)
    before = state.view.cache.snapshot()
    (step,) = walked(state, components, still)
    assert generator.sizes == []
    assert (step.integration.added, step.integration.total) == (0, len(before))
    assert same_bits(state.view.cache.snapshot(), before)
    assert len(step.integration.change.index) == len(step.integration.change.removed) == 0
    assert (step.sigma == 0.0).all()
    assert (step.chunk.frames.rgb[0] - state.reference.rgb[0]).abs().median() < 0.02  # the photo itself


@pytest.mark.parametrize("scale", [1, 2])
def test_frames_have_the_shown_size_and_the_generator_its_own(scale: int) -> None:
    state, components, generator = begun(scale)
    path = cameras_at(*((0.08 * k, 0.0, 0.0) for k in range(1, 5)), size=SIZE)
    (step,) = walked(state, components, path)
    small = (SIZE[0] // scale, SIZE[1] // scale)
    assert step.chunk.frames.camera.size == SIZE
    assert step.guide.camera.size == small
    assert {size[0] % small[0] == 0 or size[0] > small[0] for size in generator.sizes} == {True}
    assert 0 < len(generator.sizes) < len(path) + 2  # the last view shows most of what the others need
    assert step.integration.added > 0
    assert step.chunk.frames.depth.min() > 0.0


def test_what_the_world_shows_is_kept_and_holes_are_closed() -> None:
    state, components, _ = begun(scale=2)
    camera = cameras_at((0.3, 0.0, 0.0), size=SIZE)
    before = state.view.render(camera)
    assert before.hole.float().mean() > 0.01
    (step,) = walked(state, components, camera)
    sure = before.coverage[0, 0] == 1.0
    frame = step.chunk.frames
    assert (frame.rgb[0][:, sure] - before.rgb[0][:, sure]).abs().median() < 1e-6 + 1 / 510
    after = state.view.render(camera)
    assert after.hole.float().mean() < 0.2 * before.hole.float().mean()


def test_the_margin_is_made_once_and_only_where_it_is_seen() -> None:
    state, components, generator = begun(scale=2)
    wide = (48 + 32, 80 + 64)  # the photo's view and its margin, at the generator's size
    walked(state, components, cameras_at((0.0, 0.0, 0.1), (0.0, 0.0, 0.2), size=SIZE))
    assert wide not in generator.sizes
    back = [cameras_at((0.0, 0.0, -z), (0.0, 0.0, -z - 0.1), size=SIZE) for z in (0.1, 0.3)]
    walked(state, components, *back)
    assert generator.sizes.count(wide) == 1


def test_cuts_are_completed_view_by_view() -> None:
    state, components, generator = begun(scale=2)
    cuts = cameras_at((-0.5, 0.0, 0.0), (0.5, 0.0, 0.0), size=SIZE)
    (step,) = walked(state, components, cuts)
    assert len(generator.sizes) >= 2
    assert (step.sigma.amax((1, 2, 3)) > 0.0).all()
    for guide in (state.view.render(cuts[k : k + 1]) for k in range(2)):
        assert guide.hole.float().mean() < 0.02


@pytest.mark.parametrize(
    ("path", "has_holes"), [(((0.0, 0.0, 0.1), (0.3, 0.0, 0.2)), True), (((0.0, 0.0, 0.2), (0.0, 0.0, 0.6)), False)]
)
def test_a_chunk_has_the_same_bits_with_any_number_of_threads(
    path: tuple[tuple[float, float, float], ...], has_holes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views are rendered together, one on each thread; the second path only moves, so that they share their sky."""
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # noqa: B023 (used before the next round)
        state, components, generator = begun(1)
        steps = walked(state, components, cameras_at(*path, size=SIZE), cameras_at(*path[::-1], size=SIZE))
        results.append(([step.chunk for step in steps], state.view.cache.snapshot()))
        assert bool(generator.sizes) == has_holes
    assert all(same_bits(results[0], other) for other in results[1:])


def test_points_are_completed_too() -> None:
    state, components, generator = begun(2, PointCache())
    (step,) = walked(state, components, cameras_at((0.3, 0.0, 0.0), size=SIZE))
    assert generator.sizes
    assert step.integration.added > 0


def test_a_finer_session_resumes_to_the_same_bits(photo: Path, tmp_path: Path) -> None:
    settings = {"image": photo, "path": "left:distance=0.5", "frames": 9, "size": SIZE, "viewer": "none"}
    whole = list(explore(**settings, generator=Counting(), depth="plane", out=tmp_path / "whole"))
    assert {step.guide.camera.size for step in whole} == {(48, 80)}
    next(explore(**settings, generator=Counting(), depth="plane", out=tmp_path / "parts"))
    list(explore(resume=tmp_path / "parts", generator=Counting(), viewer="none"))
    assert same_bits(world_content(tmp_path / "whole"), world_content(tmp_path / "parts"))


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((192, 320), 1),
        ((256, 448), 1),
        ((480, 832), 2),
        ((480, 720), 2),
        ((720, 1280), 4),
        ((1088, 1920), 4),
        ((32, 32), 1),
    ],
)
def test_working_scale_divides_the_frame(size: tuple[int, int], scale: int) -> None:
    assert working_scale(size, PassthroughGenerator()) == scale


def test_a_generator_of_video_works_at_frame_size() -> None:
    generator = Counting()
    generator.capabilities = type(generator.capabilities)()
    assert working_scale((480, 832), generator) == 1


class Darkening(PassthroughGenerator):
    """Makes all that it is asked for darker, up to the border of the known."""

    def make(self, condition: Condition, sigma: Tensor, memory: Memory, rng: torch.Generator) -> Made:
        made = super().make(condition, sigma, memory, rng)
        return Made(0.5 * made.rgb, made.depth, made.sky)


def test_a_generator_draws_no_line_along_the_frame_of_the_photo() -> None:
    margin = 24
    wide = cameras_at((0.0, 0.0, 0.0), size=SIZE)
    wide = replace(wide, center_px=wide.center_px + margin, size=(SIZE[0] + 2 * margin, SIZE[1] + 2 * margin))
    rows = []
    for generator in (PassthroughGenerator(), Darkening()):
        state, components, _ = begun(scale=1)
        add_margin(state, replace(components, generator=generator, prior=InpaintConfig(fill="smooth")))
        middle = slice(SIZE[0] // 2 + margin - 8, SIZE[0] // 2 + margin + 8)
        rows.append(state.view.render(wide).rgb[0, :, middle].mean((0, 1)))
    darker = rows[1] / rows[0]
    assert darker[margin:-margin].min() > 0.97  # the photo
    assert darker[margin - 2 : margin].min() > 0.8
    assert darker[4:12].max() < 0.6
