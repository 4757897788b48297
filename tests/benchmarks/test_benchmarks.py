"""What the rollout benchmarks measure with, on worlds small enough to know the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from benchmarks.data.walks import CHUNKS, FRAMES, delta1, determined, interval, psnr, to_and_fro, walk
from benchmarks.quality.ablations import BlindGenerator, NoCache, seam
from benchmarks.quality.camera_accuracy import errors, estimate_path
from benchmarks.quality.degraded_guides import SPOILED, spoiled_guide, spoiled_photo
from benchmarks.quality.depth_maps import aloe, figures
from benchmarks.quality.generator_rollout import per_chunk
from benchmarks.reliability.calibration import Asked, curve, verdict
from benchmarks.speed.rasterizer import make_scene, stages_ms
from cache3d.cache import WorldCache
from diffusion.condition import Condition
from diffusion.flow import add_noise
from diffusion.kv_memory import MemoryPolicy
from diffusion.passthrough import PassthroughGenerator
from diffusion.retouch.generator import RetouchGenerator
from diffusion.retouch.network import DenoiserNetwork
from diffusion.rgbd_state import encode
from geometry.frame import Frame
from geometry.project import unproject
from tests.helpers import TOY_NETWORK, cameras_at, chunk_of, guide_of, prior_of

SIZE = (96, 160)


def _wall(places: list[float], size: tuple[int, int] = SIZE) -> Frame:
    """A textured wall at depth 2, seen from cameras that stand side by side."""
    camera = cameras_at(*((place, 0.0, 0.0) for place in places), size=size)
    depth = torch.full((len(places), 1, *size), 2.0)
    texture = np.random.default_rng(0).random((3, 256, 256)).astype(np.float32)
    texture = ndimage.gaussian_filter(texture, (0, 1.2, 1.2), mode="wrap")
    texture = (texture - texture.min()) / (texture.max() - texture.min())
    points = 60.0 * unproject(depth, camera)[:, :2].numpy()
    rows = [[ndimage.map_coordinates(c, p[::-1], order=1, mode="grid-wrap") for c in texture] for p in points]
    true = torch.ones_like(depth, dtype=torch.bool)
    return Frame(torch.from_numpy(np.array(rows, dtype=np.float32)), depth, true, ~true, camera)


def test_the_truth_decides_what_the_first_frame_shows() -> None:
    clip = _wall([0.0, 1.0])
    seen = determined(clip)
    assert seen[0].all()
    share = clip.camera.focal_px[0, 0] * 0.5 / SIZE[1]  # of the frame that a step of 1 at depth 2 brings in
    assert float((~seen[1]).float().mean()) == pytest.approx(float(share), abs=0.02)
    assert not seen[1, 0, :, -5:].any()


def test_figures_of_a_perfect_and_of_a_wrong_frame() -> None:
    clip = _wall([0.0])
    wrong = Frame(clip.rgb + 0.1, 1.5 * clip.depth, clip.valid, clip.sky, clip.camera)
    assert psnr(wrong, clip, clip.valid) == pytest.approx(20.0, abs=1e-3)
    assert delta1(clip, clip, clip.valid) == 1.0
    assert delta1(wrong, clip, clip.valid) == 0.0
    mean, reach = interval(torch.tensor([1.0, 2.0, 3.0, float("nan")]))
    assert mean == pytest.approx(2.0)
    assert reach == pytest.approx(4.303 / 3**0.5, abs=1e-3)


def test_a_step_along_the_border_is_a_seam() -> None:
    ramp = torch.linspace(0.0, 1.0, 21).expand(1, 3, 4, 21)
    hole = torch.arange(21).expand(1, 1, 4, 21) > 10
    assert seam(ramp, ramp, hole) == pytest.approx(1.0, abs=1e-5)
    assert seam(ramp + 0.1 * hole, ramp, hole) == pytest.approx(3.0, abs=1e-4)


def test_a_walk_without_a_cache_is_copied_from_the_photo() -> None:
    assert isinstance(NoCache(), WorldCache)
    clip = _wall([0.0, 0.1, 0.2], (32, 48))
    walked = walk(clip, clip.camera[1:], PassthroughGenerator(), NoCache())
    assert walked.frames.rgb.shape == (2, 3, 32, 48)
    assert (walked.frames.depth > 0).all()
    assert walked.frames.rgb.std() > 0.02  # texture, not fog


def test_only_a_blind_generator_changes_what_is_surely_seen() -> None:
    torch.manual_seed(0)
    network = DenoiserNetwork(TOY_NETWORK)
    clip = _wall([0.0], (32, 48))
    one, sigma = torch.ones_like(clip.depth), torch.full_like(clip.depth, 0.5)
    guide = guide_of(clip.camera, clip.depth, clip.rgb)
    condition = Condition(guide, prior_of(clip.rgb, clip.depth, 0.0 * one))
    known = encode(clip.rgb, clip.depth, 2.0)
    for kind, changes in ((RetouchGenerator, False), (BlindGenerator, True)):
        generator = kind.of(network, MemoryPolicy())
        memory = generator.start(chunk_of(clip))
        made = generator.denoise(add_noise(known, torch.randn_like(known), sigma), sigma, condition, memory)
        assert torch.allclose(made, known, atol=1e-3) != changes


def test_poses_come_back_from_pictures_and_depth() -> None:
    clip = _wall([0.0, 0.05, 0.1, 0.15, 0.2, 0.25])
    poses, lost = estimate_path(clip)
    turn, shift = errors(poses, clip.camera)
    assert lost == 0
    assert turn.max() < 0.01
    assert shift.max() < 0.05
    blank = Frame(torch.zeros_like(clip.rgb), clip.depth, clip.valid, clip.sky, clip.camera)
    poses, lost = estimate_path(blank)
    assert lost == 5
    assert (poses == poses[0]).all()


def test_errors_of_known_poses() -> None:
    camera = _wall([0.0, 1.0, 2.0], (8, 8)).camera
    poses = camera.world_from_camera.double().numpy().copy()
    poses[2, 2, 3] += 1.0
    poses[1, :3, :3] = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    turn, shift = errors(poses, camera)
    assert turn.tolist() == pytest.approx([0.0, np.pi / 2, 0.0])
    assert shift.tolist() == pytest.approx([0.0, 0.0, 0.5])


def test_to_and_fro_turns_at_the_ends() -> None:
    path = to_and_fro(201)
    assert path[:2] == [0, 1]
    assert path[39:42] == [39, 40, 39]
    assert path[79:82] == [1, 0, 1]
    assert path[200] == 40


def test_a_rollout_is_compared_with_the_last_time_at_the_same_cameras() -> None:
    clip = _wall([0.01 * i for i in range(41)], (8, 12))
    path = to_and_fro(3 * CHUNKS * FRAMES + 1)[1:]
    truth = clip[path]
    made = truth[list(range(len(path)))]
    made.rgb[2 * CHUNKS * FRAMES :] += 0.1  # the third lap is too bright
    figures = per_chunk(made, truth)
    assert [len(figures[name]) for name in ("brightness", "again")] == [3 * CHUNKS, CHUNKS]
    assert figures["brightness"][: 2 * CHUNKS] == pytest.approx([1.0] * 2 * CHUNKS)
    assert figures["again"] == pytest.approx([20.0] * CHUNKS, abs=1e-3)
    assert figures["contrast"] == pytest.approx([1.0] * 3 * CHUNKS)


@pytest.mark.parametrize("how", SPOILED)
def test_spoiled_guides_are_worse_or_the_same_and_less_trusted(how: str) -> None:
    clip = _wall([0.0, 0.1])
    photo = spoiled_photo(clip[[0]], how)
    guide = guide_of(photo.camera, photo.depth, photo.rgb)
    spoiled = spoiled_guide(guide, how, np.random.default_rng(0))
    changed = not torch.equal(spoiled.rgb, clip.rgb[:1])
    assert changed == (how in ("doubtful", "blocky", "exposure"))
    assert (spoiled.confidence.mean() < 1.0) == (how != "as it is")
    assert spoiled.rgb.min() >= 0.0
    assert spoiled.rgb.max() <= 1.0


def test_a_fall_of_the_reliability_curve_counts_beyond_the_scatter_between_views() -> None:
    view = np.repeat(np.arange(10), 200)
    confidence = np.tile(np.repeat([0.15, 0.25], 100), 10)
    low, high = confidence == 0.15, confidence == 0.25
    steady = Asked(confidence, np.where(low, np.arange(2000) % 2 == 0, np.arange(2000) % 4 == 0), view)
    assert [(p.share, p.interval, p.count) for p in curve(steady)] == [(0.5, 0.0, 1000), (0.25, 0.0, 1000)]
    assert verdict(steady)["sure_fall"] == verdict(steady)["largest_fall"] == 0.25
    by_view = Asked(confidence, np.where(high, view % 4 == 0, view % 2 == 0), view)
    assert verdict(by_view)["largest_fall"] > 0.1
    assert verdict(by_view)["sure_fall"] == 0.0


def test_the_stages_of_the_rasterizer_are_timed() -> None:
    splats, camera = make_scene((40, 56))
    row = stages_ms(splats, camera, 1)
    assert row["entries"] >= 40 * 56
    assert all(value > 0.0 for value in row.values())


def test_depth_is_compared_up_to_its_scale_and_edges_by_their_place() -> None:
    truth = torch.where(torch.arange(40) < 20, 1.0, 2.0).expand(1, 1, 30, 40).clone()
    ground = torch.ones_like(truth, dtype=torch.bool)
    same = figures(3.0 * truth, truth, ground)
    assert same == pytest.approx({"absrel": 0.0, "delta1": 1.0, "edge_px": 0.0}, abs=1e-6)
    late = figures(truth.roll(4, -1), truth, ground)
    assert late["edge_px"] == 4.0
    assert late["delta1"] == pytest.approx(32 / 40)


def test_the_aloe_is_read_in_small(tmp_path: Path) -> None:
    disparity = np.zeros((600, 700), np.uint8)
    disparity[:, 350:] = 90
    Image.fromarray(disparity).save(tmp_path / "aloeGT.png")
    Image.fromarray(np.stack([disparity] * 3, -1)).save(tmp_path / "aloeL.jpg")
    rgb, values, known = aloe(tmp_path)
    assert rgb.shape == (1, 3, 288, 336)
    assert torch.equal(known[0, 0].any(0), torch.arange(336) >= 168)
    assert values[known].unique().tolist() == [90.0]
