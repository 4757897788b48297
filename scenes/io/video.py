"""MP4 video (H.264) for browsers and phones."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Float
from torch import Tensor

from scenes.io.atomic_files import disk_errors, replacing
from scenes.io.png import from_bytes, to_bytes

FPS = 16.0  # default frame rate, usual for video diffusion models; the default path of 49 frames lasts 3 s


def write_video(path: str | Path, frames: Iterable[Tensor] | Float[Tensor, "t 3 h w"], fps: float = FPS) -> None:
    """Write frames as H.264 (yuv420p, BT.709, indexed for streaming), atomically.

    Args:
        path: the ``.mp4`` file; replaced if it exists.
        frames: colors in 0..1, ``[3 h w]`` each, all of one size; odd sides are padded by repeating the border.
        fps: frames per second.

    Raises:
        WorldError: no frames, or a file that cannot be written.
    """
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("frames: want at least one, got none")
    with disk_errors(f"cannot write {path}"), replacing(path) as partial:
        options = {"movflags": "+faststart"}
        with av.open(str(partial), "w", format="mp4", options=options) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height = first.shape[2] + first.shape[2] % 2, first.shape[1] + first.shape[1] % 2
            # The one pixel format that all browsers and phones play; it needs even sides.
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "17", "preset": "medium", "threads": "1"}
            context = stream.codec_context
            bt709 = 1  # code of this matrix, transfer function and primaries in H.264
            # Without these tags players guess the matrix by the image size, and colors shift.
            context.colorspace = context.color_primaries = context.color_trc = bt709
            context.color_range = ColorRange.MPEG
            for rgb in _with_first(first, frames):
                container.mux(stream.encode(_yuv(rgb)))
            # Flushes the frames that the encoder holds back.
            container.mux(stream.encode(None))


def read_video(path: str | Path) -> tuple[Float[Tensor, "t 3 h w"], float]:
    """Read a whole video: colors in 0..1, and frames per second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pixels = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        rate = stream.average_rate
    if not pixels or rate is None:
        raise ValueError(f"{path}: no video frames in it")
    return from_bytes(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)), float(rate)


def _with_first(first: Tensor, rest: Iterable[Tensor]) -> Iterable[Tensor]:
    yield first
    for rgb in rest:
        if rgb.shape != first.shape:
            raise ValueError(f"frames: want one size, got {tuple(first.shape)} and {tuple(rgb.shape)}")
        yield rgb


def _yuv(rgb: Float[Tensor, "3 h w"]) -> av.VideoFrame:
    pixels = to_bytes(rgb).permute(1, 2, 0).cpu().numpy()
    pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
