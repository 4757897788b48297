"""Depth from files: every format with its values, sky and unknown pixels, and files that do not belong to the photo."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from geometry.depth import FileDepth
from tests.helpers import random_rgb
from worldwarp.config import compose_config
from worldwarp.prepare import prepare

SIZE = (32, 48)
RAMP = np.linspace(1.0, 4.0, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)  # meters


def save_array(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


def write_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    openexr = pytest.importorskip("OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, channels).write(str(path))


def write_depth(path: Path, kind: str, millimeters: np.ndarray) -> None:
    counts = millimeters.round().astype(np.uint16)
    if kind in ("gray.png", "counts.tif"):
        Image.fromarray(counts).save(path)
    elif kind in ("rgb.png", "rgb.tif"):
        cv2.imwrite(str(path), np.repeat(counts[..., None], 3, 2))
    elif kind in ("float.tif", "lzw.tif"):
        Image.fromarray(millimeters).save(path, compression="tiff_lzw" if kind == "lzw.tif" else None)
    elif kind == "big-endian.tif":
        Image.fromarray(counts.astype(">u2")).save(path)
    elif kind == "a.pfm":
        path.write_bytes(b"Pf\n48 32\n-1.0\n" + millimeters[::-1].astype("<f4").tobytes())  # bottom row first
    elif kind == "one.npz":
        np.savez(path, millimeters)
    elif kind == "named.npz":
        np.savez_compressed(path, focal=np.array(500.0), depth=millimeters)
    elif kind.endswith("exr"):
        write_exr(path, EXR_CHANNELS[kind](millimeters))
    else:
        np.save(path, NPY_SHAPES[kind](millimeters))


EXR_CHANNELS = {
    "z.exr": lambda mm: {"Z": mm, "R": mm * 0, "G": mm * 0, "B": mm * 0},
    "half.exr": lambda mm: {"depth": mm.astype(np.float16)},
    "layer.exr": lambda mm: {"ViewLayer.Depth.Z": mm, "ViewLayer.Mist.Z": mm * 0, "ViewLayer.Normal.Z": mm * 0},
    "v.exr": lambda mm: {"Depth.V": mm, "Image.R": mm * 0, "Image.G": mm * 0},
    "gray.exr": lambda mm: {"R": mm, "G": mm, "B": mm},
}
NPY_SHAPES = {
    "plain.npy": lambda mm: mm,
    "counts.npy": lambda mm: mm.round().astype(np.int64),
    "leading.npy": lambda mm: mm[None],
    "trailing.npy": lambda mm: mm[..., None],
    "batch.npy": lambda mm: mm[None, None].astype(np.float64),
}
KINDS = [
    "gray.png", "rgb.png", "counts.tif", "big-endian.tif", "rgb.tif", "float.tif", "lzw.tif", "a.pfm", "one.npz",
    "named.npz", *EXR_CHANNELS, *NPY_SHAPES,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_with_their_unit(kind: str, tmp_path: Path) -> None:
    meters = RAMP.copy()
    meters[0, 0] = 0.0
    write_depth(tmp_path / kind, kind, meters * 1000)
    made = FileDepth(tmp_path / kind, unit_m=0.001).estimate(random_rgb(SIZE))
    assert made.metric
    assert not made.valid[0, 0, 0, 0]
    assert not made.sky.any()
    error = 2e-3 if kind == "half.exr" else 6e-4
    assert torch.allclose(made.depth[made.valid], torch.from_numpy(meters)[None, None][made.valid], atol=error)


def test_depth_format_is_recognized_by_contents(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "depth.exr")
    made = FileDepth(tmp_path / "depth.exr").estimate(random_rgb(SIZE))
    assert torch.equal(made.depth[0, 0], torch.from_numpy(RAMP))
    assert not made.metric


def test_counts_of_kitti_are_256_in_a_meter(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 256).round().astype(np.uint16)).save(tmp_path / "d.png")
    made = FileDepth(tmp_path / "d.png", unit_m=0.00390625).estimate(random_rgb(SIZE))
    assert torch.allclose(made.depth[0, 0], torch.from_numpy(RAMP), atol=0.002)


@pytest.mark.parametrize(
    ("kind", "far"),
    [
        (np.float32, np.inf),
        (np.float32, 1e10),
        (np.float32, np.finfo(np.float32).max),
        (np.float64, 1e300),
        (np.float16, 65504),
        (np.float32, 65504),
        (np.float32, 65535),
        (np.uint16, 65535),
        (np.int16, 32767),
        (np.int64, 65535),
        (np.int32, 2**31 - 1),
    ],
)
def test_no_surface_values_are_sky(kind: type, far: float, tmp_path: Path) -> None:
    values = np.full(SIZE, 3, kind)
    values[:8] = far
    made = FileDepth(save_array(tmp_path / "d.npy", values), 1.0).estimate(random_rgb(SIZE))
    assert made.sky[..., :8, :].all()
    assert made.valid.all()
    assert not made.sky[..., 8:, :].any()
    assert (made.depth[..., 8:, :] == 3.0).all()
    assert torch.isfinite(made.depth).all()


@pytest.mark.parametrize(
    ("kind", "far"),
    [(np.float32, 1000.0), (np.float32, 2e6), (np.float32, 65000.0), (np.uint16, 65504), (np.uint8, 255)],
)
def test_large_depth_is_not_sky(kind: type, far: float, tmp_path: Path) -> None:
    values = np.full(SIZE, 3, kind)
    values[:8] = far
    made = FileDepth(save_array(tmp_path / "d.npy", values), 1.0).estimate(random_rgb(SIZE))
    assert not made.sky.any()
    assert (made.depth[..., :8, :] == far).all()


@pytest.mark.parametrize("unknown", [0.0, -1.0, np.nan, -np.inf])
def test_zero_negative_and_nan_are_unknown(unknown: float, tmp_path: Path) -> None:
    values = np.full(SIZE, 3.0, np.float32)
    values[:8] = unknown
    made = FileDepth(save_array(tmp_path / "d.npy", values)).estimate(random_rgb(SIZE))
    assert not made.valid[..., :8, :].any()
    assert made.valid[..., 8:, :].all()
    assert not made.sky.any()


@pytest.mark.parametrize("unit_m", [None, 2.0])
def test_disparity_is_inverse_depth_and_zero_is_sky(unit_m: float | None, tmp_path: Path) -> None:
    values = np.full(SIZE, 4.0, np.float32)
    values[8:16] = 0.5
    values[:8] = 0.0
    values[16] = -1.0
    made = FileDepth(save_array(tmp_path / "d.npy", values), unit_m, disparity=True).estimate(random_rgb(SIZE))
    unit = unit_m or 1.0
    assert made.metric == (unit_m is not None)
    assert made.depth[0, 0, 20, 0].item() == pytest.approx(0.25 * unit)
    assert made.depth[0, 0, 12, 0].item() == pytest.approx(2.0 * unit)
    assert made.sky[..., :8, :].all()
    assert not made.sky[..., 8:, :].any()
    assert not made.valid[..., 16, :].any()
    assert made.depth[0, 0, 0, 0] > 20.0 * unit


def test_disparity_as_a_png_needs_no_unit_and_its_largest_count_is_near(tmp_path: Path) -> None:
    counts = np.full(SIZE, 65535, np.uint16)
    counts[:16] = 13107
    Image.fromarray(counts).save(tmp_path / "d.png")
    made = FileDepth(tmp_path / "d.png", disparity=True).estimate(random_rgb(SIZE))
    assert not made.sky.any()
    assert (made.depth[0, 0, 0, 0] / made.depth[0, 0, 20, 0]).item() == pytest.approx(5.0)


def colored() -> np.ndarray:
    return cv2.applyColorMap(np.linspace(0, 255, SIZE[0] * SIZE[1]).astype(np.uint8).reshape(SIZE), cv2.COLORMAP_JET)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(SIZE), "all zeros"),
        (-RAMP, "negative ones only"),
        (np.full(SIZE, np.nan), "NaN or infinite ones only"),
        (colored().astype(np.float32), "a colored picture in d.npy; save the values"),
        (np.ones((2, *SIZE)), r"one channel \[h w\], got \[2, 32, 48\]"),
        (np.ones((4, 6)), "about the photo's size 48x32, got 6x4"),
        (np.ones(7), r"one channel \[h w\], got \[7\]"),
        (np.full(SIZE, "far"), "want numbers, got values of type <U3"),
        (np.ones(SIZE, complex), "want numbers, got values of type complex128"),
    ],
)
def test_bad_depth_files_are_refused(values: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        FileDepth(save_array(tmp_path / "d.npy", values)).estimate(random_rgb(SIZE))


@pytest.mark.parametrize("palette", [False, True])
def test_pictures_of_depth_in_colors_are_refused(palette: bool, tmp_path: Path) -> None:
    image = Image.fromarray(colored())
    (image.quantize(64) if palette else image).save(tmp_path / "d.png")
    with pytest.raises(ValueError, match=r"got a colored picture in d\.png"):
        FileDepth(tmp_path / "d.png", 0.001).estimate(random_rgb(SIZE))


def test_errors_name_the_content_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", near=RAMP, far=RAMP)
    with pytest.raises(ValueError, match="want one array or one called depth, got near, far"):
        FileDepth(tmp_path / "d.npz").estimate(random_rgb(SIZE))
    write_exr(tmp_path / "d.exr", {"Normal.X": RAMP, "Normal.Y": RAMP})
    with pytest.raises(ValueError, match=r"want a channel Z or depth, got Normal\.X, Normal\.Y"):
        FileDepth(tmp_path / "d.exr").estimate(random_rgb(SIZE))
    write_exr(tmp_path / "e.exr", {"left.depth": RAMP, "right.depth": RAMP})
    with pytest.raises(ValueError, match=r"want one channel called depth, got left\.depth, right\.depth"):
        FileDepth(tmp_path / "e.exr").estimate(random_rgb(SIZE))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("d.npy", "d.txt"):
        (tmp_path / name).write_bytes(b"not an array")
        with pytest.raises(ValueError, match=f"want PNG, TIFF, PFM, EXR, NPY or NPZ, got '{name}'"):
            FileDepth(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(ValueError, match="is no NPY file that can be read"):
        FileDepth(tmp_path / "objects.npy").estimate(random_rgb(SIZE))
    with pytest.raises(ValueError, match="no file"):
        FileDepth(tmp_path / "gone.npy")
    with pytest.raises(ValueError, match="is a folder"):
        FileDepth(tmp_path)
    with pytest.raises(ValueError, match="is a web address"):
        FileDepth("https://example.com/d.png")
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "d.png")
    with pytest.raises(ValueError, match=r"depth\.unit_m: a PNG holds counts"):
        FileDepth(tmp_path / "d.png")

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("geometry.input_files.os.stat", denied)
    with pytest.raises(ValueError, match=r"depth\.path: .*no permission to read it"):
        FileDepth(tmp_path / "d.png", 0.001)


@pytest.mark.parametrize("kind", ["gray.png", "rgb.png", "float.tif", "plain.npy", "one.npz", "z.exr", "a.pfm"])
def test_files_cut_short_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    noise = 1000.0 + 3000.0 * np.random.default_rng(0).random(SIZE, dtype=np.float32)
    write_depth(path, kind, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="file that can be read"):
        FileDepth(path, 0.001).estimate(random_rgb(SIZE))


@pytest.mark.parametrize("size", [(32, 48), (16, 24), (64, 96), (24, 37), (70, 105), (350, 518)])
def test_depth_of_the_photos_shape_is_taken_at_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    values = np.ones(size, np.float32) * np.linspace(1, 2, size[1], dtype=np.float32)
    made = FileDepth(save_array(tmp_path / "d.npy", values)).estimate(random_rgb(SIZE))
    assert (made.depth[0, 0, 0] - torch.linspace(1, 2, 48)).abs().max() < 1.5 / min(size[1], 48)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((48, 32), "got 32x48 in d.npy, which lies on its side; rotate it by 90 degrees"),
        ((64, 64), "the shape of the upright photo, 48x32, got 64x64 in d.npy; resize it to the photo's size"),
        ((36, 48), "got 48x36"),
        ((32, 60), "got 60x32"),
    ],
)
def test_depth_of_another_shape_is_refused(size: tuple[int, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        FileDepth(save_array(tmp_path / "d.npy", np.ones(size))).estimate(random_rgb(SIZE))


def test_depth_is_compared_with_the_whole_photo_and_cropped_like_it(tmp_path: Path) -> None:
    depth = FileDepth(
        save_array(tmp_path / "d.npy", np.ones((100, 1)) * np.arange(1.0, 301.0))
    )  # of a photo 3 times as wide
    made = depth.of_photo((200, 600), turned=False).estimate(random_rgb((32, 32)))
    assert made.depth[0, 0, 0].tolist() == pytest.approx((100.5 + (np.arange(32) + 0.5) * 100 / 32).tolist(), abs=1.0)
    with pytest.raises(ValueError, match="shape of the upright photo, 32x32, got 300x100"):
        depth.estimate(random_rgb((32, 32)))
    with pytest.raises(ValueError, match="fits the photo before its EXIF rotation; rotate the depth likewise"):
        depth.of_photo((600, 200), turned=True).estimate(random_rgb((48, 16)))


def test_exploration_compares_depth_with_its_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (60, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)  # upright: 60 wide, 120 high
    chosen = [f"image={tmp_path / 'a.jpg'}", "size=[48,48]", "path=left", "frames=2", "generator=passthrough"]
    upright = save_array(tmp_path / "up.npy", np.linspace(2.0, 4.0, 120)[:, None].repeat(60, 1))
    walk = prepare(compose_config("explore", [*chosen, "depth=file", f"depth.path={upright}", "depth.unit_m=1.0"]))
    rows = walk.photo.depth[0, 0, :, 24]
    assert rows[[0, -1]].tolist() == pytest.approx([2.5, 3.5], abs=0.03)  # the middle half of the photo
    unrotated = save_array(tmp_path / "raw.npy", np.full((60, 120), 2.0))
    with pytest.raises(ValueError, match="fits the photo before its EXIF rotation"):
        prepare(compose_config("explore", [*chosen, "depth=file", f"depth.path={unrotated}"]))
    inverse = save_array(tmp_path / "inverse.npy", 1.0 / np.load(upright))
    options = ["depth=file", f"depth.path={inverse}", "depth.disparity=true"]
    rows = prepare(compose_config("explore", [*chosen, *options])).photo.depth[0, 0, :, 24]
    assert math.log(rows[-1] / rows[0]) == pytest.approx(math.log(3.5 / 2.5), abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["depth=file", "depth.path=gone.npy"], r"^depth\.path: no file 'gone\.npy'; check the name$"),
        (["depth=file"], r"^depth\.path: .*add depth\.path="),
        (["depth=file", "depth.path=gone.npy", "depth.unit_m=-1.0"], r"^depth\.unit_m: want .* got -1\.0"),
        (["depth=transformers"], r"^depth\.checkpoint: .*add depth\.checkpoint="),
    ],
)
def test_wrong_depth_settings_give_one_sentence(options: list[str], message: str, tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), (9, 99, 200)).save(tmp_path / "a.png")
    chosen = [f"image={tmp_path / 'a.png'}", "size=[48,64]", "path=left", "frames=2", "generator=passthrough"]
    with pytest.raises(ValueError, match=message):
        prepare(compose_config("explore", [*chosen, *options]))
