"""Video to video: the frames of a clip as guide; and the field of view that a depth estimator finds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.depth import DepthMap, PlaneDepth
from scenes.io.video import write_video
from scenes.photos.clip import ClipReader
from tests.helpers import write_photo
from worldwarp import World, explore
from worldwarp.config import ConfigError

SIZE = (48, 64)
SETTINGS = {"size": SIZE, "chunk": 2, "detail": 1, "depth": "plane", "generator": "passthrough", "viewer": "none"}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Seven frames of colors that move to the right and fade."""
    rows = torch.linspace(0.1, 0.9, SIZE[0])[:, None].expand(SIZE)
    frames = [torch.stack([rows, rows.roll(3 * k, 1).flip(0), torch.full(SIZE, 0.1 * k)]) for k in range(7)]
    write_video(tmp_path / "clip.mp4", frames, fps=16.0)
    return tmp_path / "clip.mp4"


def test_every_frame_of_the_clip_is_made_again_from_its_level(clip: Path) -> None:
    steps = list(explore(video=clip, video_level=0.25, **SETTINGS))
    with ClipReader(clip, SIZE, 16.0) as reader:
        shown = reader.take(7)
    made = torch.cat([step.chunk.frames.rgb for step in steps])
    assert [len(step.chunk.frames) for step in steps] == [2, 2, 2]
    assert all(bool((step.sigma == 0.25).all()) for step in steps)
    torch.testing.assert_close(made, shown[1:], atol=1.0 / 255.0, rtol=0.0)
    camera = steps[-1].chunk.frames.camera
    assert torch.equal(camera.world_from_camera, torch.eye(4).repeat(2, 1, 1))  # path=same: it stands still
    assert all(bool((step.chunk.frames.depth > 0.0).all()) for step in steps)


def test_an_interrupted_video_goes_on_to_the_same_bits(clip: Path, tmp_path: Path) -> None:
    whole = list(explore(video=clip, out=tmp_path / "whole", **SETTINGS))
    next(explore(video=clip, out=tmp_path / "parts", **SETTINGS))
    list(explore(resume=tmp_path / "parts", viewer="none"))
    frames = World.load(tmp_path / "parts").frames()
    assert len(frames) == 7
    assert torch.equal(frames.rgb[-2:], whole[-1].chunk.frames.rgb)
    assert torch.equal(frames.depth, World.load(tmp_path / "whole").frames().depth)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"path": "orbit"}, r"path: with video=, want same \(the camera stands still\) or a camera file, got 'orbit'"),
        ({"frames": 20}, "video: want .* more frames, got .*; lower frames="),
        ({"video_level": 1.5}, "video_level: want a number from 0 to 1, got 1.5"),
    ],
)
def test_what_does_not_fit_the_clip_is_refused(clip: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(explore(video=clip, **SETTINGS, **more))


def test_a_missing_clip_and_a_prompt_without_a_reader_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="video: no file"):
        explore(video=tmp_path / "none.mp4", **SETTINGS)
    photo = write_photo(tmp_path / "photo.png")
    with pytest.raises(ConfigError, match="prompt: this generator takes no text"):
        explore(image=photo, prompt="a garden", **SETTINGS)
    with pytest.raises(ConfigError, match="path=same: it is for video="):
        explore(image=photo, path="same", **SETTINGS)


class FocalDepth(PlaneDepth):
    """A plane, and a focal length of half the width where none is given: a field of view of 90 degrees."""

    given: Tensor | None = None

    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:
        self.given = focal_px
        found = None if focal_px is not None else torch.full((len(rgb),), 0.5 * rgb.shape[-1])
        return replace(super().estimate(rgb, focal_px), focal_px=found)


@pytest.mark.parametrize(("fov_deg", "shown_deg"), [(None, 90.0), (40.0, 40.0)])
def test_the_estimators_focal_length_is_used_where_none_is_known(
    tmp_path: Path, fov_deg: float | None, shown_deg: float
) -> None:
    photo, estimator = write_photo(tmp_path / "photo.png"), FocalDepth()
    settings = {**SETTINGS, "depth": estimator, "fov_deg": fov_deg, "frames": 3}
    (step,) = explore(image=photo, path="left:distance=0.2", **settings)
    assert step.chunk.frames.camera.fov_deg[0, 0].item() == pytest.approx(shown_deg, abs=1e-3)
    assert (estimator.given is None) == (fov_deg is None)
    if fov_deg is not None:
        assert estimator.given is not None
        assert estimator.given[0, 0].item() == pytest.approx(0.5 * SIZE[1] / math.tan(math.radians(20.0)), rel=1e-4)
