"""Read a video clip as frames of a walk: upright, at the frame rate of the walk, cropped and resampled as a photo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Colorspace
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geometry.input_files import read_head
from scenes.io.png import from_bytes
from scenes.photos.framing import center_box

HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # codes of transfer functions of high dynamic range


@dataclass(frozen=True)
class ClipOutline:
    """What a clip's header says.

    Attributes:
        size: ``(H, W)`` of the upright picture in square pixels.
        fps: mean frame rate.
        seconds: length; None if the header does not say.
        remarks: what the user should know: colors that are not shown as they were meant.
    """

    size: tuple[int, int]
    fps: float
    seconds: float | None
    remarks: tuple[str, ...] = ()


class ClipReader:
    """Frames of a video file, decoded as they are taken; frame ``k`` is what a player shows at ``k / fps`` seconds.

    Use it as a context manager, or call `close`.

    Args:
        path: the video file.
        size: ``(H, W)`` of the frames; the clip is cropped about its center to their aspect.
        fps: frames per second of the walk; frames are dropped or repeated. None takes the clip's own rate.
        least: number of frames that the clip must have; so many are held until they are taken.

    Raises:
        ValueError: a file that is missing, damaged, no video or too short, or a rate that is not positive; one
            sentence.

    Example:
        >>> with ClipReader("clip.mp4", (480, 832), fps=16.0) as clip:
        ...     first, chunk = clip.take(1), clip.take(12)
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: float | None = None, least: int = 1) -> None:
        if fps is not None and not fps > 0.0:
            raise ValueError(f"fps: want a positive number of frames per second, got {fps}")
        self.path, self.size = Path(path), size
        self._container = _opened(path)
        try:
            self._stream = _video_stream(self._container, path)
            shown = self._decoded()
            first = next(shown, None)
            if first is None:
                raise ValueError(f"video: {str(path)!r} has no frames; copy it again")
            self.outline = _outline(self._stream, first)
            self.fps = self.outline.fps if fps is None else fps
            self._frames = self._timed(first, shown)
            held = list(islice(self._frames, least))
            if len(held) < least:
                raise ValueError(
                    f"video: want at least {least} frames at {self.fps:g} fps, got {len(held)} in {str(path)!r}; "
                    "use a longer clip, a smaller chunk or a higher fps"
                )
        except BaseException:
            self.close()
            raise
        self._held = iter(held)

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def take(self, count: int) -> Float[Tensor, "t 3 h w"]:
        """The next frames, colors in 0..1 on the 8-bit grid; fewer than ``count`` at the end of the clip.

        Raises:
            ValueError: the file is damaged; one sentence.
        """
        taken = [self._resampled(frame) for frame in self._next(count)]
        return torch.stack(taken) if taken else torch.empty(0, 3, *self.size)

    def skip(self, count: int) -> int:
        """Pass over the next frames without resampling them; returns their number, less than ``count`` at the end."""
        return sum(1 for _ in self._next(count))

    def _next(self, count: int) -> Iterator[av.VideoFrame]:
        for _ in range(count):
            frame = next(self._held, None) or next(self._frames, None)
            if frame is None:
                return
            yield frame

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Source frames in the order of their times."""
        count = 0
        try:
            for frame in self._container.decode(self._stream):
                yield frame
                count += 1
        except FFmpegError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(
                f"video: {str(self.path)!r} is damaged after {count} frames ({reason}); copy it again"
            ) from None

    def _timed(self, first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Frames at ``fps``: the latest one that has begun; rates that vary are followed by their times."""
        period = 1 / Fraction(self.fps).limit_denominator(1001)
        begun, started, last = 0, _seconds(first), Fraction(0)
        shown = first
        for frame in rest:
            last = _seconds(frame) - started
            while begun * period < last:
                yield shown
                begun += 1
            shown = frame
        # The last frame is shown for as long as the one before it was, on average.
        while begun * period < last + 1 / Fraction(self.outline.fps).limit_denominator(1001):
            yield shown
            begun += 1

    def _resampled(self, frame: av.VideoFrame) -> Float[Tensor, "3 h w"]:
        unspecified, hd_height = 2, 720  # code of a matrix that a file does not state; from this height on it is BT.709
        unstated = frame.colorspace == unspecified and frame.height >= hd_height
        pixels = frame.to_ndarray(format="rgb24", src_colorspace=Colorspace.ITU709 if unstated else None)
        upright = np.ascontiguousarray(np.rot90(pixels, _quarter_turns(frame)))
        shown = self.outline.size
        stretch_y, stretch_x = (stored / square for stored, square in zip(upright.shape[:2], shown, strict=True))
        left, top, right, bottom = center_box(shown, self.size)
        box = (left * stretch_x, top * stretch_y, right * stretch_x, bottom * stretch_y)
        resized = Image.fromarray(upright).resize((self.size[1], self.size[0]), Image.Resampling.LANCZOS, box=box)
        return from_bytes(torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous())


def clip_outline(path: str | Path) -> ClipOutline:
    """Size, rate and length of a clip.

    Raises:
        ValueError: a file that is missing, damaged or no video; one sentence.
    """
    with ClipReader(path, (1, 1)) as clip:
        return clip.outline


def _opened(path: str | Path) -> InputContainer:
    head = read_head(path, "video")
    try:
        return av.open(str(path))
    except (FFmpegError, OSError) as error:
        if head[4:8] == b"ftyp":
            raise ValueError(
                f"video: {str(path)!r} is damaged or was cut off ({error.strerror}); copy it again"
            ) from None
        raise ValueError(f"video: {str(path)!r} is not a video that can be read; want MP4, MOV, WebM or MKV") from None


def _video_stream(container: InputContainer, path: str | Path) -> av.VideoStream:
    """The first stream of moving pictures; the cover picture of an audio file is none."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:
            return stream  # decoding on several threads would hide where a file is damaged
    kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
    raise ValueError(f"video: want a video stream in {str(path)!r}, got {' and '.join(kinds)} only")


def _outline(stream: av.VideoStream, first: av.VideoFrame) -> ClipOutline:
    sides = np.array([first.height, first.width])
    aspect = stream.sample_aspect_ratio
    if aspect:  # width over height of a stored pixel; the shorter side is enlarged
        sides = np.array([sides[0] / min(aspect, 1), sides[1] * max(aspect, 1)], dtype=np.float64).round()
    height, width = (int(side) for side in (sides[::-1] if _quarter_turns(first) % 2 else sides))
    rate = stream.average_rate or stream.guessed_rate or Fraction(1)
    length = None if stream.duration is None or stream.time_base is None else stream.duration * stream.time_base
    name = HDR_TRANSFERS.get(stream.codec_context.color_trc or 0)
    remarks = (f"it has the high dynamic range of {name}: colors look pale (save it as SDR)",) if name else ()
    return ClipOutline((height, width), float(rate), None if length is None else float(length), remarks)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counterclockwise quarter turns that bring a frame upright, from the display matrix of the file."""
    return round(frame.rotation / 90) % 4


def _seconds(frame: av.VideoFrame) -> Fraction:
    if frame.pts is None or frame.time_base is None:
        raise ValueError("video: its frames have no times; save it as MP4")
    return frame.pts * frame.time_base
