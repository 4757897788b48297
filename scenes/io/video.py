"""Videos: MP4 (H.264) for browsers and phones, WebM (VP9) and GIF, which may be transparent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from scenes.io.atomic_files import disk_errors, replacing
from scenes.io.png import from_bytes, to_bytes

FPS = 16.0  # default frame rate, usual for video diffusion models; the default path of 49 frames lasts 3 s
TRANSPARENT = 255  # the color of a GIF's palette that is transparent


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
    first, frames = _first_of(frames)
    with disk_errors(f"cannot write {path}"), replacing(path) as partial:
        options = {"movflags": "+faststart"}
        with av.open(str(partial), "w", format="mp4", options=options) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            # The one pixel format that all browsers and phones play; it needs even sides.
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "17", "preset": "medium", "threads": "1"}
            _encode(container, stream, first, frames)


def write_webm(path: str | Path, frames: Iterable[Tensor] | Float[Tensor, "t c h w"], fps: float = FPS) -> None:
    """Write frames as VP9 (BT.709), atomically; with a fourth channel, alpha, as VP9 with an alpha plane.

    Args:
        path: the ``.webm`` file; replaced if it exists.
        frames: colors in 0..1, and alpha, not premultiplied; ``[3 h w]`` or ``[4 h w]`` each, all of one size; odd
            sides are padded by repeating the border.
        fps: frames per second.

    Raises:
        WorldError: no frames, or a file that cannot be written.
    """
    path = Path(path)
    first, frames = _first_of(frames)
    options: dict[str, object] = {
        "crf": "24",
        "b": "0",
        "deadline": "good",
        "cpu-used": "5",
        "row-mt": "1",
        "threads": "4",
    }
    if len(first) == 4:
        options |= {"auto-alt-ref": "0"}  # frames that are only referred to do not go with alpha
    with (
        disk_errors(f"cannot write {path}"),
        replacing(path) as partial,
        av.open(str(partial), "w", format="webm") as container,
    ):
        stream = container.add_stream("libvpx-vp9", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuva420p" if len(first) == 4 else "yuv420p"
        stream.options = options
        _encode(container, stream, first, frames)


def write_gif(path: str | Path, frames: Iterable[Tensor] | Float[Tensor, "t c h w"], fps: float = FPS) -> None:
    """Write frames as a GIF that repeats, atomically: 256 colors per frame, dithered; alpha below 1/2 is transparent.

    Frames last whole hundredths of a second, as the format counts; browsers show those under 2/100 for 10/100, so that
    more than 50 frames per second are thinned.

    Args:
        path: the ``.gif`` file; replaced if it exists.
        frames: as of `write_webm`.
        fps: frames per second.

    Raises:
        WorldError: no frames, or a file that cannot be written.
    """
    path = Path(path)
    first, frames = _first_of(frames)
    fastest = 50.0  # frames per second that browsers show
    step = max(1, math.ceil(fps / fastest))
    pictures = (_paletted(image) for k, image in enumerate(_with_first(first, frames)) if k % step == 0)

    def timed() -> Iterator[Image.Image]:
        for k, picture in enumerate(pictures):
            end, begin = (round(100.0 * step * i / fps) for i in (k + 1, k))
            picture.info["duration"] = 10 * (end - begin)
            yield picture

    images = timed()
    with disk_errors(f"cannot write {path}"), replacing(path) as partial:
        options = {"loop": 0, "optimize": False, "disposal": 2 if len(first) == 4 else 0}
        if len(first) == 4:
            options |= {"transparency": TRANSPARENT}
        start = next(images)
        start.save(partial, format="GIF", save_all=True, append_images=images, **options)


def read_video(path: str | Path) -> tuple[Float[Tensor, "t 3 h w"], float]:
    """Read a whole video: colors in 0..1, and frames per second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pixels = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        rate = stream.average_rate
    if not pixels or rate is None:
        raise ValueError(f"{path}: no video frames in it")
    return from_bytes(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)), float(rate)


def _first_of(frames: Iterable[Tensor]) -> tuple[Tensor, Iterator[Tensor]]:
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise ValueError("frames: want at least one, got none")
    return first, rest


def _encode(container: OutputContainer, stream: VideoStream, first: Tensor, frames: Iterable[Tensor]) -> None:
    """Encode all frames, tagged as BT.709."""
    stream.width, stream.height = first.shape[2] + first.shape[2] % 2, first.shape[1] + first.shape[1] % 2
    context = stream.codec_context
    bt709 = 1  # code of this matrix, transfer function and primaries in H.264 and VP9
    # Without these tags players guess the matrix by the image size, and colors shift.
    context.colorspace = context.color_primaries = context.color_trc = bt709
    context.color_range = ColorRange.MPEG
    for image in _with_first(first, frames):
        container.mux(stream.encode(_yuv(image)))
    # Flushes the frames that the encoder holds back.
    container.mux(stream.encode(None))


def _paletted(image: Float[Tensor, "c h w"]) -> Image.Image:
    """A frame in 256 colors; with alpha, in 255 and `TRANSPARENT`."""
    pixels = to_bytes(image).permute(1, 2, 0).cpu().numpy()
    colors = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    has_alpha = len(image) == 4
    paletted = colors.quantize(TRANSPARENT if has_alpha else 256, dither=Image.Dither.FLOYDSTEINBERG)
    if has_alpha:
        index = np.array(paletted)
        index[pixels[..., 3] < 128] = TRANSPARENT
        palette = paletted.getpalette() or []
        paletted = Image.fromarray(index)
        paletted.putpalette(palette)
    return paletted


def _with_first(first: Tensor, rest: Iterable[Tensor]) -> Iterable[Tensor]:
    yield first
    for rgb in rest:
        if rgb.shape != first.shape:
            raise ValueError(f"frames: want one size, got {tuple(first.shape)} and {tuple(rgb.shape)}")
        yield rgb


def _yuv(image: Float[Tensor, "c h w"]) -> av.VideoFrame:
    pixels = to_bytes(image).permute(1, 2, 0).cpu().numpy()
    pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
    given, wanted = ("rgba", "yuva420p") if pixels.shape[2] == 4 else ("rgb24", "yuv420p")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=given)
    return frame.reformat(format=wanted, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
