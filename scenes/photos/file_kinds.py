"""Recognize the kind of a photo file by its first bytes; file names are not reliable."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import features

VIDEO = "a video; save one of its frames as an image"
RAW = "a camera's raw file; develop it and save it as JPEG or TIFF"
HDR = "a high dynamic range picture without a fixed white; tone-map it and save it as PNG"
PRINT = "a page and not a photo; save it as PNG"
JPEG_XL = "JPEG XL, which cannot be read; save it as JPEG or PNG"

STARTS = (
    (b"%PDF", f"a PDF, {PRINT}"),
    (b"%!PS", f"PostScript, {PRINT}"),
    (b"\xc5\xd0\xd3\xc6", f"PostScript, {PRINT}"),
    (b"v/1\x01", f"OpenEXR, {HDR}"),
    (b"#?RADIANCE", f"Radiance HDR, {HDR}"),
    (b"#?RGBE", f"Radiance HDR, {HDR}"),
    (b"\x1aE\xdf\xa3", VIDEO),  # Matroska, WebM
    (b"\x00\x00\x01\xba", VIDEO),  # MPEG
    (b"\x00\x00\x01\xb3", VIDEO),
    (b"FLV\x01", VIDEO),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"IIRO", RAW),  # Olympus
    (b"IIRS", RAW),
    (b"MMOR", RAW),
    (b"IIU\x00", RAW),  # Panasonic
    (b"FOVb", RAW),  # Sigma
    (b"\xff\x0a", JPEG_XL),
    (b"\x00\x00\x00\x0cJXL ", JPEG_XL),
    (b"version https://git-lfs", "a Git LFS pointer and not the photo itself; fetch it with `git lfs pull`"),
)
# Raw files in TIFF containers: Pillow would decode only their thumbnail.
RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
AVIF_BRANDS = frozenset((b"avif", b"avis"))
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def prepare_for(path: Path, head: bytes) -> None:
    """Register the Pillow plugin that a file needs, or raise an error that names a kind that cannot be read.

    Args:
        path: the file; only its suffix is used, to distinguish raw files from TIFF where the contents do not.
        head: its first bytes.

    Raises:
        ValueError: the file is not a photo or cannot be read; one sentence that names its kind and the remedy.
    """
    kind = _unreadable_kind(path, head)
    if kind is not None:
        raise ValueError(f"image: {str(path)!r} is {kind}")


def _unreadable_kind(path: Path, head: bytes) -> str | None:
    """Name and remedy of a kind that cannot be read; None for files that Pillow may open."""
    for start, kind in STARTS:
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        return _unreadable_container(head)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return VIDEO
    # Canon's CR2 has its letters at byte 8; other raw formats are TIFF by content and differ by suffix alone.
    if head.startswith(TIFF_STARTS) and (path.suffix.lower() in RAW_SUFFIXES or head[8:10] == b"CR"):
        return RAW
    text = re.match(rb"(?:\xef\xbb\xbf)?\s*<(svg|!doctype|html|\?xml)", head, re.IGNORECASE)
    if text is None:
        return None
    if re.search(rb"<svg\b", head, re.IGNORECASE):
        return "SVG, a drawing and not a photo; save it as PNG"
    return "a web page and not a photo; download the picture itself"


def _unreadable_container(head: bytes) -> str | None:
    """As ``_unreadable_kind``, for ISO base media files: HEIC, AVIF, raw and video differ by their brands."""
    # The first box of the file lists the brands; it may be longer than what was read.
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}
    if brands & AVIF_BRANDS:
        if features.check("avif"):
            return None
        return "AVIF, which this Pillow cannot read; update it: pip install -U pillow, or save the photo as JPEG"
    if b"crx " in brands:
        return RAW
    if not brands & HEIC_BRANDS:
        return VIDEO
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return "HEIC, which needs a package: pip install 'worldwarp[heic]', or save it as JPEG"
    register_heif_opener()
    return None
