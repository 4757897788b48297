"""Video clips: frames by time, crop, rotation, and files that cannot be read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from scenes.io.png import to_bytes
from scenes.io.video import write_video
from scenes.photos.clip import ClipReader, clip_outline
from scenes.photos.photo import read_photo

SIZE = (64, 96)
ANGLES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # a, b, c, d of the matrix in a track header


def gray(level: int) -> torch.Tensor:
    return torch.full((3, *SIZE), level / 255.0)


def steps(path: Path, count: int, fps: float) -> Path:
    """A clip whose frame ``k`` is gray of level ``20 + 8 k``."""
    write_video(path, (gray(20 + 8 * k) for k in range(count)), fps)
    return path


def levels(frames: torch.Tensor) -> list[int]:
    """Indices of the frames of `steps`."""
    return [round((frame.mean().item() * 255.0 - 20.0) / 8.0) for frame in frames]


def turned(path: Path, degrees: int) -> Path:
    """Write a clockwise rotation into the track header of an MP4 file, as a telephone does."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (value * 65536 for value in ANGLES[degrees])
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("stored", "fps", "expected"),
    [
        (10.0, None, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (10.0, 5.0, [0, 2, 4, 6, 8]),
        (10.0, 20.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]),
        (24.0, 16.0, [0, 1, 3, 4, 6, 7, 9]),
        (29.97, 29.97, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_frames_are_those_that_a_player_shows(
    stored: float, fps: float | None, expected: list[int], tmp_path: Path
) -> None:
    with ClipReader(steps(tmp_path / "a.mp4", 10, stored), SIZE, fps) as clip:
        taken = clip.take(99)
        assert levels(taken) == expected
        assert clip.take(4).shape == (0, 3, *SIZE)
        assert clip.outline.fps == pytest.approx(stored, rel=1e-3)


def test_chunks_are_consecutive_and_skipped_frames_are_missing(tmp_path: Path) -> None:
    path = steps(tmp_path / "a.mp4", 14, 10.0)
    with ClipReader(path, SIZE, least=6) as clip:
        chunks = [clip.take(1), clip.take(4), clip.take(4), clip.take(12)]
        assert [levels(chunk) for chunk in chunks] == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12, 13]]
    with ClipReader(path, SIZE) as clip:
        assert clip.skip(9) == 9
        assert torch.equal(clip.take(5), chunks[-1])
        assert clip.skip(3) == 0


def test_frames_are_decoded_as_they_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = ClipReader._decoded

    def counted(self: ClipReader) -> Iterator[av.VideoFrame]:
        for frame in original(self):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(ClipReader, "_decoded", counted)
    with ClipReader(steps(tmp_path / "a.mp4", 20, 10.0), SIZE) as clip:
        clip.take(5)
        assert len(decoded) == 6  # one more shows how long the last is seen


def test_rates_that_vary_are_followed_by_their_times(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for k, ms in enumerate((0, 100, 200, 600, 700)):
            frame = av.VideoFrame.from_ndarray(to_bytes(gray(20 + 8 * k)).permute(1, 2, 0).numpy().copy(), "rgb24")
            frame.pts, frame.time_base = ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with ClipReader(tmp_path / "a.mkv", SIZE, 10.0) as clip:
        assert levels(clip.take(8)) == [0, 1, 2, 2, 2, 2, 3, 4]


@pytest.mark.parametrize("size", [(48, 64), (32, 96), (96, 32)])
def test_the_crop_is_that_of_a_photo(size: tuple[int, int], tmp_path: Path) -> None:
    rows, columns = torch.arange(128.0)[:, None], torch.arange(192.0)[None]
    picture = torch.stack([rows.expand(128, 192) / 128, columns.expand(128, 192) / 192, torch.full((128, 192), 0.5)])
    write_video(tmp_path / "a.mp4", picture.expand(3, -1, -1, -1), 10.0)
    Image.fromarray(to_bytes(picture).permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png", size).rgb
    with ClipReader(tmp_path / "a.mp4", size) as clip:
        frames = clip.take(3)
    assert frames.shape == (3, 3, *size)
    assert (frames - photo).abs().max() < 0.03
    assert torch.equal(to_bytes(frames) / 255.0, frames)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_clips_of_a_turned_telephone_are_upright(degrees: int, tmp_path: Path) -> None:
    picture = torch.zeros(3, *SIZE)
    picture[:, :16, :24] = 1.0
    write_video(tmp_path / "a.mp4", picture.expand(4, -1, -1, -1), 10.0)
    path = turned(tmp_path / "a.mp4", degrees)
    reader = cv2.VideoCapture(str(path))  # turns it upright on its own
    _, upright = reader.read()
    reader.release()
    outline = clip_outline(path)
    assert outline.size == upright.shape[:2] == (SIZE if degrees == 180 else SIZE[::-1])
    with ClipReader(path, outline.size) as clip:
        made = clip.take(1)[0].permute(1, 2, 0).numpy()
    assert np.abs(made - upright[..., ::-1] / 255.0).mean() < 0.01


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 72, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        pixels = np.zeros((64, 72, 3), np.uint8)
        pixels[:, 36:] = 255
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    assert clip_outline(tmp_path / "a.mp4").size == (64, 96)
    with ClipReader(tmp_path / "a.mp4", (64, 64)) as clip:  # the middle 48 of 72 columns
        frame = clip.take(1)[0]
    assert (frame[..., :30] < 0.1).all()
    assert (frame[..., 34:] > 0.9).all()


def test_outline_of_a_clip(tmp_path: Path) -> None:
    outline = clip_outline(steps(tmp_path / "a.mp4", 15, 10.0))
    assert outline.size == SIZE
    assert outline.seconds == pytest.approx(1.5)
    assert outline.remarks == ()


def test_high_dynamic_range_is_remarked(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.codec_context.color_trc = 18
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    (remark,) = clip_outline(tmp_path / "a.mp4").remarks
    assert "HLG" in remark


def test_clips_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "whole.mp4"), "w") as container:  # its index is at the end, as cameras write it
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_bytes(b"no video here " * 99)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    for name, message in {
        "none.mp4": "no file",
        "empty.mp4": "is empty",
        "head.mp4": "is damaged or was cut off .* copy it again",
        "text.mp4": "is not a video that can be read",
        "sound.mp4": "want a video stream .* got audio only",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            ClipReader(tmp_path / name, SIZE)
        assert str(error.value).startswith("video: ")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="fps: want a positive number"):
        ClipReader(tmp_path / "whole.mp4", SIZE, 0.0)


def test_a_short_clip_is_refused(tmp_path: Path) -> None:
    path = steps(tmp_path / "a.mp4", 10, 10.0)
    with pytest.raises(ValueError, match=r"want at least 13 frames at 10 fps, got 10 in .* use a longer clip"):
        ClipReader(path, SIZE, least=13)
    with ClipReader(path, SIZE, 16.0, least=13) as clip:
        assert len(clip.take(99)) == 16


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_damage_in_the_middle_is_told_when_it_is_reached(damage: str, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    write_video(tmp_path / "a.mp4", (torch.rand(3, *SIZE, generator=rng) for _ in range(60)), 10.0)
    content = (tmp_path / "a.mp4").read_bytes()
    half = len(content) // 2
    bad = content[:half] if damage == "cut off" else content[:half] + b"\xff" * 3000 + content[half + 3000 :]
    (tmp_path / "b.mp4").write_bytes(bad)
    with ClipReader(tmp_path / "b.mp4", SIZE) as clip:
        assert len(clip.take(12)) == 12
        with pytest.raises(ValueError, match=r"video: .*b\.mp4' is damaged after \d+ frames .* copy it again") as error:
            clip.take(99)
    assert "\n" not in str(error.value)
