"""Rerun viewer programs: finding, starting and questioning them. Everything binds to this machine only."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote, urlsplit

import rerun as rr
from rerun.experimental import ViewerClient

LOOPBACK = "127.0.0.1"
NATIVE_PORT = 9876
WEB_PORT = 9090
MEMORY_LIMIT = "2GB"


def has_display() -> bool:
    """Whether a window can be expected to open."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))


def stream_url(port: int, host: str = LOOPBACK) -> str:
    """The address of a Rerun data stream."""
    return f"rerun+http://{host}:{port}/proxy"


def free_port() -> int:
    """A port of this machine that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def is_listening(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def check_port_free(port: int, what: str) -> None:
    """Refuse a port that is taken.

    Raises:
        ValueError: the port is in use or may not be used.
    """
    with socket.socket() as probe:
        if sys.platform != "win32":  # there the option would allow to share a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"viewer port: want {port} on {LOOPBACK} for {what}, got {error}; "
                "stop the program that holds it or choose another port"
            ) from None


def viewer_executable() -> Path:
    """The viewer program that came with the Rerun library, checked to be of its version.

    The ``rerun`` on the PATH may be a wrapper (killing it leaves the viewer running) or another version.

    Raises:
        ValueError: it is missing or of another version.
    """
    package = importlib.util.find_spec("rerun_cli")
    folder = Path(package.origin).parent if package and package.origin else Path("rerun_cli")
    program = folder / ("rerun.exe" if sys.platform == "win32" else "rerun")
    if not program.exists():
        raise ValueError(f"viewer: want the program {program}, found none; reinstall rerun-sdk=={rr.__version__}")
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    check_version(_version_in(answer), str(program))
    return program


def check_version(version: str | None, whose: str) -> None:
    """Refuse a viewer whose version is known not to be the library's (patch releases may differ).

    Raises:
        ValueError: it is another one. Rerun drops what it does not know without a word, splats among it.
    """
    if version is not None and version.split(".")[:2] != rr.__version__.split(".")[:2]:
        raise ValueError(
            f"viewer version: want Rerun {rr.__version__}, got {version} ({whose}); "
            f"close that viewer and start one with `pip install rerun-sdk=={rr.__version__}`, or use viewer=file"
        )


def version_of_viewer(url: str, timeout_s: float = 3.0) -> str | None:
    """Ask the viewer at ``url`` for its version; None when nobody or no viewer answers."""
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(ViewerClient.connect(url).get_state().viewer_version or "unknown")
        except (ConnectionError, AttributeError, ValueError):
            return

    # The call has no timeout of its own and never returns when the other side is silent.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answers[0] if answers else None


def show_in_viewer(viewer_url: str, stream: str) -> None:
    """Make a running viewer look at a data stream too."""
    ViewerClient.connect(viewer_url).open(stream)


def start_native(program: Path, port: int, sources: list[str]) -> subprocess.Popen[bytes]:
    """Open a window that shows ``sources`` (one stream address, or files) and outlives this program."""
    shown = ["--connect", *sources] if sources[0].startswith("rerun") and "://" in sources[0] else sources
    options = ["--port", str(port), "--memory-limit", MEMORY_LIMIT, "--hide-welcome-screen"]
    return _start(program, [*options, *shown], True)


def start_web_page(program: Path, port: int, source_url: str) -> subprocess.Popen[bytes]:
    """Serve the web viewer; ``web_address`` points it at a data stream."""
    return _start(program, ["--serve-web", "--web-viewer-port", str(port), source_url], False)


def serve_files(program: Path, port: int, files: list[str]) -> subprocess.Popen[bytes]:
    """Serve the web viewer on ``port`` and the data of ``files`` on ``port + 1``."""
    return _start(program, ["--serve-web", "--web-viewer-port", str(port), "--port", str(port + 1), *files], False)


def web_address(port: int, source_url: str) -> str:
    """What to type into a browser."""
    return f"http://{LOOPBACK}:{port}/?url={quote(source_url, safe='')}&hide_welcome_screen=1"


def host_and_port(url: str) -> tuple[str, int]:
    """Take the address of a remote viewer apart.

    Raises:
        ValueError: it is not a Rerun stream address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("rerun", "rerun+http", "rerun+https") or not parts.hostname or parts.path != "/proxy":
        raise ValueError(f"viewer url: want rerun+http://HOST:{NATIVE_PORT}/proxy, got {url!r}")
    return parts.hostname, parts.port or NATIVE_PORT


def _start(program: Path, arguments: list[str], own_session: bool) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program, "--bind", LOOPBACK, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=own_session,
    )


def _version_in(text: str) -> str | None:
    found = re.search(r"\d+\.\d+\.\d+", text)
    return found.group() if found else None
