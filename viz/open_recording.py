"""Opens the recording of a finished or running session in a viewer."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

import rerun as rr

from viz import viewer_process as viewer
from viz.viewer_targets import how_to_look_at_page

_MAGIC = b"RRF2"  # followed by the Rerun version that wrote the file, one byte per part
OLDEST = (0, 23)  # https://rerun.io/docs/howto/logging-and-ingestion/manipulate-rrd-files; tried with 0.41


def open_recording(
    path: Path, mode: Literal["native", "web"] = "native", port: int | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Open a recording in a window or serve it to a browser, on this machine only.

    Args:
        path: a ``.rrd`` file, or a world's folder with ``recording*.rrd`` in it (a resumed world has several).
        mode: ``native`` for a window, which outlives this program; ``web`` for a page, which ends with it.
        port: of the window (default: any free one) or of the page (default 9090, or a free one; its data comes from
            ``port + 1``).

    Returns:
        The viewer process, and a text for the user with the address on its own line.

    Raises:
        ValueError: no recording in ``path``, an unsupported Rerun version, a port in use, or no display for a window.
    """
    files = [str(file) for file in _recordings(path)]
    if mode == "native" and not viewer.has_display():
        raise ValueError(
            "mode: want a display for mode=native, found neither DISPLAY nor WAYLAND_DISPLAY set; use mode=web"
        )
    program = viewer.viewer_executable()
    if mode == "native":
        # Not the default port: a window that follows a running session may hold it.
        window_port = viewer.free_port() if port is None else port
        viewer.check_port_free(window_port, "the viewer's window", "port")
        return viewer.start_native(program, window_port, files), f"the Rerun window (port {window_port})"
    page_port, data_port = viewer.page_ports(port, "port")
    address = viewer.web_address(page_port, viewer.stream_url(data_port))
    page = viewer.serve_files(program, page_port, data_port, files)
    opens = viewer.is_interactive()
    if opens:
        viewer.open_browser(address, page_port)
    return page, how_to_look_at_page(address, opened=opens)


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
    if head[:3] != _MAGIC[:3] or len(head) < 8:
        raise ValueError(f"recording: want a Rerun recording, got {file}, which is none or cut off at its start")
    written, ours = (head[4], head[5]), tuple(int(part) for part in rr.__version__.split(".")[:2])
    if head[:4] == _MAGIC and OLDEST <= written <= ours:
        return
    wanted = f"{OLDEST[0]}.{OLDEST[1]} to {ours[0]}.{ours[1]}"
    raise ValueError(
        f"recording: want one of Rerun {wanted}, got {file} of {written[0]}.{written[1]}; "
        f"open it with `pip install rerun-sdk=={written[0]}.{written[1]}.*` in an environment of its own"
    )
