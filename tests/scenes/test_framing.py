"""Frames of the photo's own shape, through the lens that took it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from scenes.photos.framing import PIXELS, STEP, natural_size, photo_fov_deg, sized
from scenes.photos.photo import photo_outline
from worldwarp import Camera, explore
from worldwarp.config import compose_config
from worldwarp.prepare import prepare

QUICK = ["path=left", "frames=3", "detail=1", "depth=plane", "generator=passthrough", "viewer=none"]
QUICK += ["prior=smooth", "cache.refine_steps=0"]
sides = st.integers(16, 6000)


def save_photo(path: Path, size: tuple[int, int], *, film_mm: int = 0, orientation: int = 1) -> Path:
    """A photo stored with ``size = (H, W)``."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = film_mm
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@settings(deadline=None)
@given(sides, sides)
def test_frames_show_nearly_all_of_a_photo_at_about_the_usual_cost(height: int, width: int) -> None:
    size = natural_size((height, width))
    assert size[0] % STEP == size[1] % STEP == 0
    if 0.2 < width / height < 5.0:
        assert abs(math.log(size[1] / size[0] * height / width)) < 0.05
        assert 0.8 < size[0] * size[1] / PIXELS < 1.25
        assert natural_size((width, height))[0] * natural_size((width, height))[1] == pytest.approx(PIXELS, rel=0.25)


def test_usual_photos() -> None:
    assert natural_size((2000, 3000)) == (192, 288)
    assert natural_size((3000, 2000)) == (288, 192)
    assert natural_size((96, 160)) == (192, 320)
    assert natural_size((2000, 3000), 704 * 1280, 32) == (768, 1152)
    assert sized((2000, 3000), 720, 32) == (480, 704)


@settings(deadline=None)
@given(sides, sides, st.floats(10.0, 300.0))
def test_field_of_view_follows_the_crop(height: int, width: int, film_mm: float) -> None:
    whole = photo_fov_deg((height, width), (height, width), film_mm)
    focal_px = 0.5 * width / math.tan(math.radians(0.5 * whole))
    assert focal_px == pytest.approx(math.hypot(height, width) * film_mm / math.hypot(36.0, 24.0))
    tall = photo_fov_deg((height, width), (2 * height, width), film_mm)  # cut at the sides
    assert math.tan(math.radians(0.5 * tall)) == pytest.approx(0.5 * math.tan(math.radians(0.5 * whole)))


def test_default_field_of_view_is_60_degrees_along_the_longer_side() -> None:
    assert photo_fov_deg((200, 300), (192, 288), None) == pytest.approx(60.0)
    upright = photo_fov_deg((300, 200), (288, 192), None)
    assert 288 / 192 * math.tan(math.radians(upright / 2)) == pytest.approx(math.tan(math.radians(30.0)))


def test_focal_length_is_read_from_exif(tmp_path: Path) -> None:
    assert photo_outline(save_photo(tmp_path / "a.jpg", (40, 60), film_mm=50)) == ((40, 60), 50.0)
    assert photo_outline(save_photo(tmp_path / "b.png", (40, 60))) == ((40, 60), None)
    assert photo_outline(save_photo(tmp_path / "c.jpg", (40, 60), film_mm=28, orientation=6)) == ((60, 40), 28.0)
    with pytest.raises(ValueError, match="no file"):
        photo_outline(tmp_path / "none.jpg")


def test_exploration_takes_aspect_and_lens_of_its_photo(tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg", (200, 300), film_mm=36, orientation=8)
    walk = prepare(compose_config("explore", [f"image={photo}", *QUICK]))
    assert walk.photo.camera.size == (288, 192)
    diagonal = math.hypot(36.0, 24.0)
    assert walk.cameras.fov_deg[0].tolist() == pytest.approx(
        [2 * math.degrees(math.atan(0.5 * side / math.hypot(2, 3) * diagonal / 36)) for side in (2, 3)], rel=1e-4
    )
    asked = prepare(compose_config("explore", [f"image={photo}", "size=[48,80]", "fov_deg=40", *QUICK]))
    assert asked.photo.camera.size == (48, 80)
    assert asked.cameras.fov_deg[0, 0].item() == pytest.approx(40.0, rel=1e-4)
    assert list(asked.config.size) == [48, 80]


def test_frame_size_follows_given_cameras(tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg", (200, 300))
    poses = Camera.from_fov(60.0, (48, 80)).world_from_camera[None].repeat(3, 1, 1)
    cameras = Camera.from_fov(60.0, (48, 80), poses)
    step = next(explore(image=photo, path=cameras, depth="plane", generator="passthrough"))
    assert step.chunk.frames.camera.size == (48, 80)


def test_plan_reports_the_share_of_the_photo(tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg", (200, 300))
    walk = prepare(compose_config("explore", [f"image={photo}", "size=[64,96]", *QUICK]))
    assert walk.plan().lines()[0] == "photo    300x200, whole"
    cut = prepare(compose_config("explore", [f"image={photo}", "size=[80,48]", *QUICK]))
    assert "its middle 120x200 (leave out size to see all)" in cut.plan().lines()[0]
    small = save_photo(tmp_path / "b.png", (20, 30))
    lines = prepare(compose_config("explore", [f"image={small}", "size=[64,96]", *QUICK])).plan().lines()
    assert "3.2 times smaller than the frames" in lines[1]
