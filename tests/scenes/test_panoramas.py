"""Clips of panoramas: turning sees what is there, stepping aside leaves holes that looking back can fill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from geometry.depth.estimator import DepthMap
from geometry.frame import Frame
from geometry.project import unproject
from scenes.dataset.clips import list_clips, read_clip, write_clip
from scenes.dataset.plans import plan_panorama_clips, plan_town_clips
from scenes.dataset.render import render_data
from scenes.dataset.shards import decode_depth, encode_depth
from scenes.synthetic.panoramas import NAMES, Panorama, film_panorama, load_panorama
from worldwarp.training.record_guides import record_guides
from worldwarp.training.samples import SampleConfig, recorded_sample

SIZE = (36, 60)
EYE_M, WALL_M = 1.5, 6.0


def _room(width: int = 512) -> Panorama:
    """A round room with a floor, a nearer pillar ahead and a sky; colors tell directions."""
    height = width // 2
    latitude = ((np.arange(height) + 0.5) / height - 0.5) * math.pi
    longitude = ((np.arange(width) + 0.5) / width - 0.5) * 2 * math.pi
    down, turn = np.meshgrid(latitude, longitude, indexing="ij")
    reach = np.where(np.abs(turn) < 0.25, 2.0, WALL_M)
    floor = np.where(down > 0, EYE_M / np.maximum(np.sin(down), 1e-6), np.inf)
    inverse = 1.0 / np.minimum(reach / np.cos(down), floor)
    inverse[down < -0.9] = 0.0
    rgb = np.stack([0.5 + 0.4 * np.sin(turn), 0.5 + 0.4 * np.cos(turn), 0.5 + 0.3 * np.sin(5 * down + 9 * turn)], -1)
    return Panorama(rgb.astype(np.float32), inverse.astype(np.float32))


@dataclass
class Known:
    """An estimator that sees the room's floor and wall where a level camera would, each view at a scale of its own."""

    def estimate(self, rgb: torch.Tensor, focal_px: torch.Tensor | None) -> DepthMap:
        assert focal_px is not None
        count, _, height, width = rgb.shape
        slope = (torch.arange(height) + 0.5 - 0.5 * height) / focal_px[0, 1]
        side = (torch.arange(width) + 0.5 - 0.5 * width) / focal_px[0, 0]
        wall = WALL_M / (1 + side.square()).sqrt()  # depth of what is 6 m away on the horizon
        floor = torch.where(slope > 0, EYE_M / slope.clamp_min(1e-6), torch.inf)
        depth = torch.minimum(wall[None, :].expand(height, -1), floor[:, None])
        scale = torch.linspace(0.5, 2.0, count).reshape(-1, 1, 1, 1)
        sky = (slope < -0.8)[:, None].expand(height, width)
        whole = torch.ones(count, 1, height, width, dtype=torch.bool)
        return DepthMap(depth * scale, whole, sky & whole, metric=False)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_pan_reprojects_to_the_same_points(seed: int) -> None:
    clip = film_panorama(_room(), move="pan", frames=3, seed=seed, size=SIZE)
    assert (clip["inverse_depth"] >= 0).all()
    turn = clip["world_from_camera"]
    np.testing.assert_allclose(turn[0], np.eye(4), atol=1e-6)
    np.testing.assert_allclose(turn[:, :3, 3], 0.0, atol=1e-6)
    again = film_panorama(_room(), move="pan", frames=3, seed=seed, size=SIZE)
    assert all(np.array_equal(clip[name], again[name]) for name in clip)
    # The direction of the last frame's middle, looked up in the first, has its color and distance.
    ahead = turn[2, :3, 2]
    column = ahead[0] / ahead[2] * clip["focal_px"][0, 0] + clip["center_px"][0, 0]
    row = ahead[1] / ahead[2] * clip["focal_px"][0, 1] + clip["center_px"][0, 1]
    if not (2 < column < SIZE[1] - 2 and 2 < row < SIZE[0] - 2):
        return
    there, here = clip["rgb"][0, :, int(row), int(column)], clip["rgb"][2, :, SIZE[0] // 2, SIZE[1] // 2]
    np.testing.assert_allclose(there.astype(float), here.astype(float), atol=30.0)


def _read(folder: Path, clip: dict[str, np.ndarray]) -> Frame:
    """A clip as training reads it."""
    write_clip(folder / "clip_0.safetensors", clip, {})
    return read_clip(folder / "clip_0.safetensors")


def test_the_floor_is_flat(tmp_path: Path) -> None:
    """Depth along the axis, not distance: what lies low in the picture is one plane, ``EYE_M`` below the eye."""
    frame = _read(tmp_path, film_panorama(_room(1024), move="pan", frames=1, seed=5, size=(72, 120)))
    points = unproject(frame.depth, frame.camera)[0, :, -6:].flatten(1).T
    normal = torch.linalg.lstsq(points, torch.ones(len(points), 1)).solution[:, 0]
    assert abs(1.0 / normal.norm() - EYE_M) < 0.05
    assert ((points @ normal) - 1.0).abs().max() < 0.05


def test_stepping_aside_leaves_holes(tmp_path: Path) -> None:
    clip = film_panorama(_room(), move="left", frames=4, seed=1, size=SIZE)
    unknown = clip["inverse_depth"] < 0
    assert not unknown[0].any()
    assert 0.01 < unknown[3].mean() < 0.6
    assert unknown[1].mean() < unknown[3].mean()
    assert np.linalg.norm(clip["world_from_camera"][3, :3, 3]) > 0.1
    frame = _read(tmp_path, clip)
    assert torch.equal(~frame.valid, torch.from_numpy(unknown))
    assert not (frame.sky & ~frame.valid).any()


def test_distances_have_one_scale(tmp_path: Path) -> None:
    rgb = (_room(256).rgb * 255).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "room_1k.png")
    found = load_panorama(tmp_path / "room_1k.png", Known())
    ring = found.inverse_distance[40:63]  # above the horizon: the wall, as far everywhere
    assert ring.min() > 0
    assert (ring.max(axis=1) / ring.min(axis=1)).max() < 1.02  # 4 before
    assert (found.inverse_distance[:30] == 0).mean() > 0.9
    Image.fromarray(rgb[:, :100]).save(tmp_path / "narrow.png")
    with pytest.raises(ValueError, match="twice as wide"):
        load_panorama(tmp_path / "narrow.png", Known())


def test_panorama_clips_are_used_only_through_guides(tmp_path: Path) -> None:
    plans = plan_panorama_clips(40, 0)
    assert plans == plan_panorama_clips(80, 0)[:40]
    assert {p.split for p in plans} == {"estimated"}
    assert {p.scene for p in plans} == set(NAMES)
    assert 0.5 <= np.mean([p.move == "pan" for p in plans]) < 0.7
    assert not {p.index for p in plans} & {p.index for p in plan_town_clips(400, 0)}
    render_data(tmp_path, 2, stages=lambda *_: _room(), plan="panoramas", size=SIZE)
    assert list_clips(tmp_path, "train") == []
    clips = list_clips(tmp_path, "estimated")
    assert len(clips) == 2
    record_guides(clips, tmp_path / "guides")
    pan, aside = (load_file(tmp_path / "guides" / path.name) for path in clips)
    assert set(pan["target"]) - {0}
    assert set(aside["target"]) == {0}
    assert 0 not in aside["source"]
    sample = recorded_sample(
        read_clip(clips[1]),
        tmp_path / "guides" / clips[1].name,
        SampleConfig((32, 48), False, 1, 3),
        np.random.default_rng(0),
    )
    assert torch.isfinite(sample.truth).all()
    assert sample.truth.shape == (4, 4, 32, 48)


@given(st.floats(1e-5, 100.0))
def test_depth_code_keeps_unknown_depth(inverse: float) -> None:
    sent = np.array([[inverse, 0.0, -1.0]], np.float16)
    came = decode_depth(encode_depth(sent))
    assert came[0, 1] == 0.0
    assert came[0, 2] == -1.0
    assert abs(came[0, 0] / sent[0, 0] - 1.0) < 2e-3
