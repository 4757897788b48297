"""Look at the recording of a finished, or still running, walk."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

import rerun as rr

from viz import viewer

_MAGIC = b"RRF"


def open_recording(
    path: Path, mode: Literal["native", "web"] = "native", port: int | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Open a recording in a window or serve it to a browser, on this machine only.

    Args:
        path: a ``.rrd`` file, or a world's folder with ``recording*.rrd`` in it (a resumed world has several).
        mode: ``native`` for a window, which outlives this program; ``web`` for a page, which the caller ends.
        port: of the window (default: any free one) or of the page (default 9090; its data comes from ``port + 1``).

    Returns:
        The program that shows it, and a line that tells where to look.

    Raises:
        ValueError: no recording there, one that is not a recording or of a newer Rerun, or a port in use.
    """
    files = [str(file) for file in _recordings(path)]
    program = viewer.viewer_executable()
    if mode == "native":
        window_port = viewer.free_port() if port is None else port
        viewer.check_port_free(window_port, "the viewer's window")
        return viewer.start_native(program, window_port, files), "the Rerun window"
    page_port = viewer.WEB_PORT if port is None else port
    viewer.check_port_free(page_port, "the viewer's web page")
    viewer.check_port_free(page_port + 1, "the data of the viewer's web page")
    address = viewer.web_address(page_port, viewer.stream_url(page_port + 1))
    return viewer.serve_files(program, page_port, files), address


def _recordings(path: Path) -> list[Path]:
    files = sorted(path.glob("recording*.rrd")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ValueError(f"recording: want an .rrd file or a world's folder, got {path}, which holds none")
    for file in files:
        _check_recording(file)
    return files


def _check_recording(file: Path) -> None:
    with file.open("rb") as stream:
        head = stream.read(8)
    if not head.startswith(_MAGIC) or len(head) < 8:
        raise ValueError(f"recording: want a Rerun recording, got {file}, which is none or cut off at its start")
    written, ours = tuple(head[4:6]), tuple(int(part) for part in rr.__version__.split(".")[:2])
    if written > ours:
        raise ValueError(
            f"recording: want one of Rerun {rr.__version__} or older, got {file} of {head[4]}.{head[5]}; "
            f"open it with `pip install rerun-sdk=={head[4]}.{head[5]}.*`"
        )
