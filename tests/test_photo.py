"""Photographs of every kind that users have, and those that are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from scenes.photo import photo_outline, read_photo

SIZE = (48, 80)


def four_corners(height: int = 96, width: int = 160) -> np.ndarray:
    """Red, green / blue, white quarters ``[h w 3]``."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = 255
    return pixels


def corners(rgb: torch.Tensor) -> list[list[float]]:
    return [rgb[:, y, x].tolist() for y in (2, -3) for x in (2, -3)]


EXPECTED = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]


def test_plain_photo(tmp_path: Path) -> None:
    Image.fromarray(four_corners()).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png", SIZE)
    assert photo.rgb.shape == (3, *SIZE)
    assert corners(photo.rgb) == EXPECTED
    assert photo.crop_box == (0.0, 0.0, 160.0, 96.0)
    assert photo.original_size == (96, 160)
    assert photo.enlarged == 1.0


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    stored = Image.fromarray(four_corners())
    # What a camera would have stored so that this orientation tag turns it upright.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # values of Image.Transpose
    stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png", SIZE)
    assert photo.original_size == (96, 160)
    assert corners(photo.rgb) == EXPECTED


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    alpha = np.full((96, 160, 1), 255, np.uint8)
    alpha[:48, :80] = 0
    alpha[48:, :80] = 128
    Image.fromarray(np.concatenate([four_corners(), alpha], 2)).save(tmp_path / "a.png")
    found = corners(read_photo(tmp_path / "a.png", SIZE).rgb)
    assert found[0] == [1.0, 1.0, 1.0]
    assert found[1] == [0.0, 1.0, 0.0]
    assert found[2] == pytest.approx([127 / 255, 127 / 255, 1.0], abs=2 / 255)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(four_corners()).quantize(8, dither=Image.Dither.NONE)
    image.save(tmp_path / "a.png")
    assert corners(read_photo(tmp_path / "a.png", SIZE).rgb) == EXPECTED
    red = image.getpixel((1, 1))
    image.save(tmp_path / "b.png", transparency=red)
    assert corners(read_photo(tmp_path / "b.png", SIZE).rgb)[0] == [1.0, 1.0, 1.0]


def test_16_bit_and_grey(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 160).astype(np.uint16)[None].repeat(96, 0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp / 257.0).round().astype(np.uint8)).save(tmp_path / "grey.png")
    deep, grey = (read_photo(tmp_path / f"{name}.png", (96, 160)).rgb for name in ("deep", "grey"))
    assert torch.equal(deep, grey)
    assert torch.equal(deep[0], deep[1])
    assert (deep[0, 0] - torch.linspace(0, 1, 160)).abs().max() < 1 / 255
    # Grey with alpha.
    la = Image.merge("LA", [Image.new("L", (160, 96), 0), Image.new("L", (160, 96), 0)])
    la.save(tmp_path / "la.png")
    assert read_photo(tmp_path / "la.png", SIZE).rgb.min() == 1.0


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (160, 96), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert read_photo(tmp_path / "a.jpg", SIZE).rgb.mean((1, 2)).tolist() == pytest.approx([1, 0, 0], abs=0.02)


def test_crop_is_centred_and_reported(tmp_path: Path) -> None:
    Image.fromarray(four_corners(200, 160)).save(tmp_path / "tall.png")
    photo = read_photo(tmp_path / "tall.png", SIZE)
    assert photo.crop_box == (0.0, 52.0, 160.0, 148.0)
    assert corners(photo.rgb) == EXPECTED
    Image.fromarray(four_corners(96, 300)).save(tmp_path / "wide.png")
    assert read_photo(tmp_path / "wide.png", SIZE).crop_box == pytest.approx((70.0, 0.0, 230.0, 96.0))


def test_resampling_antialiases(tmp_path: Path) -> None:
    checks = (np.indices((480, 800)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "a.png")
    rgb = read_photo(tmp_path / "a.png", SIZE).rgb
    assert (rgb - 0.5).abs().max() < 0.02  # without it, a pixel would be black or white


def test_sharper_than_the_frame_where_the_photo_is(tmp_path: Path) -> None:
    Image.fromarray(four_corners(96, 160)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png", SIZE, max_scale=1.5).rgb.shape == (3, 72, 120)
    double = read_photo(tmp_path / "a.png", SIZE, max_scale=4.0)  # no sharper than it is
    assert double.rgb.shape == (3, 96, 160)
    assert double.enlarged == 1.0


def test_enlarging_is_said(tmp_path: Path) -> None:
    Image.fromarray(four_corners(24, 40)).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png", SIZE, max_scale=3.0)
    assert photo.rgb.shape == (3, *SIZE)
    assert photo.enlarged == pytest.approx(2.0)


def test_colours_lie_on_the_8_bit_grid(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    rgb = read_photo(tmp_path / "a.png", SIZE).rgb
    assert torch.equal((rgb * 255).round() / 255, rgb)


def test_missing_and_non_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        read_photo(tmp_path / "none.jpg", SIZE)
    with pytest.raises(ValueError, match="no file"):
        read_photo(tmp_path, SIZE)
    for name, content in {
        "empty.jpg": b"",
        "text.jpg": b"not a picture at all",
        "cut.jpg": b"\xff\xd8\xff\xe0",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="not an image"):
            read_photo(tmp_path / name, SIZE)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_truncated_photos_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"truncated|not an image"):
        read_photo(path, SIZE)


def test_tiny_and_huge_photos_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="at least 16 pixels on each side, got 1x1"):
        read_photo(tmp_path / "one.png", SIZE)
    for size in ((20_000, 32), (10_500, 10_500), (20_000, 20_000)):
        Image.new("1", size).save(tmp_path / "huge.png")
        with pytest.raises(ValueError, match="want at most 16384 pixels on a side and 100 megapixels"):
            read_photo(tmp_path / "huge.png", SIZE)


def test_shrinking_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_scale"):
        read_photo(tmp_path / "a.png", SIZE, max_scale=0.5)


def test_photos_of_telephones(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 26
    Image.fromarray(four_corners()).save(tmp_path / "a.heic", exif=exif, quality=95)
    photo = read_photo(tmp_path / "a.heic", SIZE)
    assert photo.original_size == (96, 160)
    for got, expected in zip(corners(photo.rgb), EXPECTED, strict=True):
        assert got == pytest.approx(expected, abs=0.06)
    assert photo_outline(tmp_path / "a.heic") == ((96, 160), 26.0)


def test_a_telephones_photo_without_the_package_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"pip install 'worldwarp\[heic\]'"):
        read_photo(tmp_path / "a.HEIC", SIZE)
