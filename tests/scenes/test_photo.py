"""Photographs of every kind that users have, and those that are refused."""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, features

from scenes.photos.framing import natural_size
from scenes.photos.photo import photo_outline, read_photo

SIZE = (48, 80)
HEIC_START = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


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


def test_16_bit_and_gray(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 160).astype(np.uint16)[None].repeat(96, 0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp / 257.0).round().astype(np.uint8)).save(tmp_path / "gray.png")
    deep, gray = (read_photo(tmp_path / f"{name}.png", (96, 160)).rgb for name in ("deep", "gray"))
    assert torch.equal(deep, gray)
    assert torch.equal(deep[0], deep[1])
    assert (deep[0, 0] - torch.linspace(0, 1, 160)).abs().max() < 1 / 255
    # Gray with alpha.
    la = Image.merge("LA", [Image.new("L", (160, 96), 0), Image.new("L", (160, 96), 0)])
    la.save(tmp_path / "la.png")
    assert read_photo(tmp_path / "la.png", SIZE).rgb.min() == 1.0


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (160, 96), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert read_photo(tmp_path / "a.jpg", SIZE).rgb.mean((1, 2)).tolist() == pytest.approx([1, 0, 0], abs=0.02)


def test_crop_is_centered_and_reported(tmp_path: Path) -> None:
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


def test_max_scale_uses_the_resolution_of_the_photo(tmp_path: Path) -> None:
    Image.fromarray(four_corners(96, 160)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png", SIZE, max_scale=1.5).rgb.shape == (3, 72, 120)
    double = read_photo(tmp_path / "a.png", SIZE, max_scale=4.0)  # no sharper than it is
    assert double.rgb.shape == (3, 96, 160)
    assert double.enlarged == 1.0


def test_upsampling_is_reported(tmp_path: Path) -> None:
    Image.fromarray(four_corners(24, 40)).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png", SIZE, max_scale=3.0)
    assert photo.rgb.shape == (3, *SIZE)
    assert photo.enlarged == pytest.approx(2.0)


def test_colors_are_on_the_8_bit_grid(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    rgb = read_photo(tmp_path / "a.png", SIZE).rgb
    assert torch.equal((rgb * 255).round() / 255, rgb)


def test_missing_and_non_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        read_photo(tmp_path / "none.jpg", SIZE)
    for name, content in {
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
    for size in ((20_000, 3200), (10_500, 10_500), (20_000, 20_000)):
        Image.new("1", size).save(tmp_path / "huge.png")
        with pytest.raises(ValueError, match="want at most 16384 pixels on a side and 100 megapixels"):
            read_photo(tmp_path / "huge.png", SIZE)


def test_shrinking_scale_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="max_scale"):
        read_photo(tmp_path / "a.png", SIZE, max_scale=0.5)


def test_heic_photos_are_read(tmp_path: Path) -> None:
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


def test_heic_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.HEIC").write_bytes(HEIC_START)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"pip install 'worldwarp\[heic\]'"):
        read_photo(tmp_path / "a.HEIC", SIZE)


ORIENTATION = ExifTags.Base.Orientation
UNDO = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose: what a camera held so would have stored


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "lzw.tif", "jpeg.tif", "heic", "avif"])
def test_outline_and_pixels_are_upright_for_every_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    lossless = {"png": {}, "tif": {}, "lzw.tif": {"compression": "tiff_lzw"}}
    options: dict = {"jpeg.tif": {"compression": "jpeg", "quality": 95}, **lossless}.get(kind, {"quality": 95})
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    stored = Image.fromarray(four_corners())
    if UNDO[orientation] is not None:
        stored = stored.transpose(Image.Transpose(UNDO[orientation]))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{kind}"
    stored.save(path, exif=exif.tobytes(), **options)
    assert photo_outline(path)[0] == (96, 160)
    photo = read_photo(path, SIZE)
    assert photo.original_size == (96, 160)
    for got, expected in zip(corners(photo.rgb), EXPECTED, strict=True):
        assert got == pytest.approx(expected, abs=0.06)
    if kind != "heic":  # where the package turns the photo while it opens it
        assert photo.turned == (orientation >= 5)


def test_orientation_in_xmp_counts_and_broken_exif_does_not(tmp_path: Path) -> None:
    stored = Image.fromarray(four_corners()).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "a.jpg", quality=95, xmp=b'<x:xmpmeta tiff:Orientation="6"></x:xmpmeta>')
    assert photo_outline(tmp_path / "a.jpg")[0] == read_photo(tmp_path / "a.jpg", SIZE).original_size == (96, 160)
    Image.fromarray(four_corners()).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage")
    assert photo_outline(tmp_path / "b.jpg")[0] == read_photo(tmp_path / "b.jpg", SIZE).original_size == (96, 160)


def matrix_profile(to_xyz: np.ndarray, gamma: float, space: bytes = b"RGB ") -> bytes:
    """A minimal ICC v2 profile: linear light to XYZ (D50) ``[3 3]``, and one exponent; for gray, the exponent alone."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(fixed(v) for v in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"t\0" + bytes(78)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249]))}
    if space == b"RGB ":
        for index, name in enumerate("rgb"):
            tags[name.encode() + b"XYZ"] = xyz(to_xyz[:, index])
            tags[name.encode() + b"TRC"] = curve
    else:
        tags[b"kTRC"] = curve
    table, data, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(value))
        data += value
    header = struct.pack(">I4sI4s4s4s", offset + len(data), b"test", 0x02400000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + xyz(np.array([0.9642, 1.0, 0.8249]))[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


# Columns: red, green and blue of Display P3 and of sRGB in XYZ under D50.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def srgb_counts(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0.0, 1.0)
    return 255.0 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "rgba.png", "palette.png", "gray.png", "heic"])
def test_icc_profiles_are_applied(tmp_path: Path, kind: str) -> None:
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    color = (150, 150, 150) if kind == "gray.png" else (180, 90, 60)
    expected = srgb_counts(np.linalg.inv(SRGB) @ P3 @ (np.array(color) / 255.0) ** 1.8)
    image = Image.new("RGB", (80, 48), color)
    converted = {
        "rgba.png": lambda: image.convert("RGBA"),
        "palette.png": lambda: image.quantize(4),
        "gray.png": lambda: image.convert("L"),
    }.get(kind, lambda: image)()
    options: dict = {"lossless": True} if kind == "webp" else {"quality": 98}
    converted.save(tmp_path / f"a.{kind}", icc_profile=matrix_profile(P3, 1.8), **options)
    photo = read_photo(tmp_path / f"a.{kind}", SIZE)
    assert photo.rgb.mean((1, 2)).numpy() * 255 == pytest.approx(expected, abs=2.0)
    assert np.abs(expected - color).max() > 4.0  # leaving the profile out would show
    assert photo.remarks == ()


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=profile)
    rgb = read_photo(tmp_path / "a.png", SIZE).rgb.permute(1, 2, 0).numpy() * 255
    assert np.abs(rgb - noise).max() <= 1.0


def test_gray_profiles_at_8_and_16_bits(tmp_path: Path) -> None:
    expected = srgb_counts(np.array((128 / 255.0) ** 1.0))  # linear light
    profile = matrix_profile(P3, 1.0, b"GRAY")
    Image.new("L", (80, 48), 128).save(tmp_path / "a.png", icc_profile=profile)
    Image.fromarray(np.full(SIZE, 128 * 257, np.uint16)).save(tmp_path / "b.png", icc_profile=profile)
    for name in "ab":
        rgb = read_photo(tmp_path / f"{name}.png", SIZE).rgb * 255
        assert rgb.mean((1, 2)).tolist() == pytest.approx([float(expected)] * 3, abs=2.0)


def test_lab_pixels_have_colors_without_any_profile(tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (80, 48), (200, 40, 90)), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )  # fmt: skip
    assert lab is not None
    lab.save(tmp_path / "a.tif")
    photo = read_photo(tmp_path / "a.tif", SIZE)
    assert photo.rgb.mean((1, 2)).numpy() * 255 == pytest.approx([200, 40, 90], abs=4.0)


@pytest.mark.parametrize(
    ("mode", "profile", "remark"),
    [
        ("RGB", b"not a profile at all" * 20, "profile is broken"),
        ("RGB", matrix_profile(P3, 2.2)[:200], "profile is broken"),
        ("RGB", matrix_profile(P3, 2.2, b"GRAY"), "is for GRAY and its pixels are RGB"),
        ("CMYK", matrix_profile(P3, 2.2), "is for RGB and its pixels are CMYK"),
        ("CMYK", None, "CMYK colors without a profile"),
    ],
)
def test_unusable_profiles_are_ignored_with_a_remark(
    tmp_path: Path, mode: str, profile: bytes | None, remark: str
) -> None:
    color = (180, 90, 60) if mode == "RGB" else (75, 165, 195, 0)
    Image.new(mode, (80, 48), color).save(tmp_path / "a.jpg", quality=98, icc_profile=profile)
    photo = read_photo(tmp_path / "a.jpg", SIZE)
    assert photo.rgb.mean((1, 2)).numpy() * 255 == pytest.approx([180, 90, 60], abs=2.0)
    (said,) = photo.remarks
    assert remark in said


def test_file_kind_is_recognized_by_contents(tmp_path: Path) -> None:
    Image.fromarray(four_corners()).save(tmp_path / "b.heic", format="JPEG", quality=95)
    assert read_photo(tmp_path / "b.heic", SIZE).original_size == (96, 160)
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.fromarray(four_corners()).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "a.heic").rename(tmp_path / "a.jpg")
    heif_formats = [name for name in Image.OPEN if name == "HEIF"]
    for name in heif_formats:  # as in a process that has read no HEIC yet
        Image.ID.remove(name)
        del Image.OPEN[name]
    assert photo_outline(tmp_path / "a.jpg")[0] == (96, 160)
    for got, expected in zip(corners(read_photo(tmp_path / "a.jpg", SIZE).rgb), EXPECTED, strict=True):
        assert got == pytest.approx(expected, abs=0.06)


def test_heic_named_jpg_is_reported_as_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(HEIC_START)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"is HEIC, which needs a package: pip install 'worldwarp\[heic\]'"):
        photo_outline(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif", "mpo"])
def test_first_of_several_frames_is_used_with_a_remark(tmp_path: Path, kind: str) -> None:
    first, second = Image.fromarray(four_corners()), Image.new("RGB", (160, 96), (9, 9, 9))
    options: dict = {"lossless": True} if kind == "webp" else {"quality": 98}
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[second], **options)
    photo = read_photo(tmp_path / f"a.{kind}", SIZE)
    for got, expected in zip(corners(photo.rgb), EXPECTED, strict=True):
        assert got == pytest.approx(expected, abs=0.06)
    said = () if kind == "mpo" else ("it holds 2 frames or pages: the first is used",)  # its second is for a preview
    assert photo.remarks == said


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bit_colors_keep_their_values(tmp_path: Path, kind: str) -> None:
    ramp = np.linspace(0, 65535, 80).astype(np.uint16)[None].repeat(48, 0)
    pixels = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 30_000)], -1)
    cv2.imwrite(str(tmp_path / f"a.{kind}"), pixels[..., ::-1])
    rgb = read_photo(tmp_path / f"a.{kind}", SIZE).rgb.permute(1, 2, 0).numpy()
    assert np.abs(rgb - pixels / 65535.0).max() <= 1.0 / 255.0


def test_bilevel_pixels_are_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(four_corners()[..., 1] > 100).save(tmp_path / "a.tif")
    rgb = read_photo(tmp_path / "a.tif", SIZE).rgb
    assert corners(rgb) == [[0.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3]


def test_pixels_without_a_known_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((48, 80), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="its pixels are floats whose white is unknown; tone-map it"):
        read_photo(tmp_path / "float.tif", SIZE)
    Image.fromarray(np.full((48, 80), 1_000_000, np.int32)).save(tmp_path / "counts.tif")
    with pytest.raises(ValueError, match="32-bit counts whose white is unknown"):
        read_photo(tmp_path / "counts.tif", SIZE)
    cv2.imwrite(str(tmp_path / "colors.tif"), np.ones((48, 80, 3), np.float32))
    with pytest.raises(ValueError, match="is a TIFF that cannot be read"):
        read_photo(tmp_path / "colors.tif", SIZE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"%PDF-1.7 ", "is a PDF, a page and not a photo"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0", "is PostScript"),
        ("a.svg", b"<?xml version='1.0'?>\n<svg width='9'/>", "is SVG, a drawing"),
        ("a.jpg", b"\n<!DOCTYPE html><html></html>", "is a web page"),
        ("a.exr", b"v/1\x01\x02\0\0\0", "is OpenEXR, a high dynamic range picture"),
        ("a.hdr", b"#?RADIANCE\n", "is Radiance HDR"),
        ("a.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "is a video; save one of its frames"),
        ("a.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "is a video"),
        ("a.jpg", b"\x1aE\xdf\xa3 webm", "is a video"),
        ("a.avi", b"RIFF\x99\0\0\0AVI LIST", "is a video"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "is a camera's raw file; develop it"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201", "is a camera's raw file"),
        ("a.orf", b"IIRO\x08\0\0\0", "is a camera's raw file"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0", "is a camera's raw file"),
        ("a.jxl", b"\xff\x0a\xfa", "is JPEG XL"),
        ("a.jpg", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("a.jpg", b"", r"is empty \(0 bytes\)"),
    ],
)
def test_other_kinds_of_file_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (photo_outline, lambda path: read_photo(path, SIZE)):
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_raw_files_that_look_like_tiff_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(four_corners())
    image.save(tmp_path / "a.nef", format="TIFF")
    image.save(tmp_path / "b.tif", tiffinfo={50706: b"\1\4\0\0"})  # a DNG under another name
    for name in ("a.nef", "b.tif"):
        with pytest.raises(ValueError, match="is a camera's raw file"):
            read_photo(tmp_path / name, SIZE)


def test_paths_that_are_not_files_are_refused_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("https://example.com/a.jpg", Path("https://example.com/a.jpg"), "file:///a.jpg"):
        with pytest.raises(ValueError, match="is a web address; download it first"):
            photo_outline(address)
    with pytest.raises(ValueError, match="is a folder; give one file in it"):
        photo_outline(tmp_path)
    for name in ("none.jpg", "none/a.jpg"):
        with pytest.raises(ValueError, match="no file"):
            photo_outline(tmp_path / name)
    if hasattr(socket, "AF_UNIX"):
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("pipe")
            with pytest.raises(ValueError, match="is not a regular file"):
                photo_outline("pipe")


def test_unreadable_file_reports_missing_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(four_corners()).save(tmp_path / "a.jpg")

    def denied(path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("geometry.input_files.os.stat", denied)  # an administrator's tests could read any file
    with pytest.raises(ValueError, match="no permission to read it"):
        photo_outline(tmp_path / "a.jpg")


@pytest.mark.parametrize("size", [(16_000, 16), (17, 5000), (1290, 160)])
def test_strips_are_refused_by_their_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    for read in (photo_outline, lambda path: read_photo(path, SIZE)):
        with pytest.raises(ValueError, match=f"at most 8:1, got a strip of {size[0]}x{size[1]}"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(640, 160), (1280, 160), (160, 640)])
def test_panoramas_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (255, 0, 0)).save(tmp_path / "a.png")
    outline, _ = photo_outline(tmp_path / "a.png")
    assert outline == size[::-1]
    frames = natural_size(outline)
    left, top, right, bottom = read_photo(tmp_path / "a.png", frames).crop_box
    assert (right - left) * (bottom - top) > 0.95 * size[0] * size[1]
