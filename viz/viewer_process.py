"""Finds, starts and queries Rerun viewer programs. All servers bind to the loopback interface only."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import rerun as rr
from rerun.experimental import ViewerClient

LOOPBACK = "127.0.0.1"
NATIVE_PORT = 9876
WEB_PORT = 9090
MEMORY_LIMIT = "2GB"

# Executes the program in its arguments; Linux ends that program when the thread that started it ends, even by SIGKILL,
# which no handler can catch. (Popen's preexec_fn could do the same, but may deadlock among threads.)
_DIES_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


def has_display() -> bool:
    """Whether a window can be expected to open."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))


def stream_url(port: int, host: str = LOOPBACK) -> str:
    """The URL of a Rerun data stream."""
    return f"rerun+http://{host}:{port}/proxy"


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def is_listening(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether a server accepts connections at this address."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def is_port_free(port: int) -> bool:
    """Whether a server can bind to this port now."""
    return _bind_error(port) is None


def check_port_free(port: int, what: str, option: str) -> None:
    """Refuse a port that is taken.

    Args:
        port: requested port.
        what: its purpose, for the message.
        option: setting that changes the port, for the message.

    Raises:
        ValueError: the port is in use or not permitted.
    """
    why = _bind_error(port)
    if why is not None:
        raise ValueError(
            f"{option}: want {port} on {LOOPBACK} for {what}, got {why}; "
            f"stop the program that holds it, choose another {option}=, or leave {option} out for a free one"
        )


def page_ports(port: int | None, option: str) -> tuple[int, int]:
    """Ports of a web page and of its data: ``port`` and the next one; None: the default ones if free, else free ones.

    Raises:
        ValueError: ``port`` or the next one is in use.
    """
    if port is not None:
        check_port_free(port, "the viewer's web page", option)
        check_port_free(port + 1, "the data of the viewer's web page", option)
        return port, port + 1
    if is_port_free(WEB_PORT) and is_port_free(WEB_PORT + 1):
        return WEB_PORT, WEB_PORT + 1
    return free_port(), free_port()


def _bind_error(port: int) -> str | None:
    with socket.socket() as probe:
        if sys.platform != "win32":  # on Windows the option would allow to share a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            return str(error)
    return None


def viewer_executable() -> Path:
    """The viewer program of the Rerun package, checked to have its version.

    The ``rerun`` on the PATH may be a wrapper (killing it leaves the viewer running) or another version.

    Raises:
        ValueError: the program is missing or of another version.
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
    """Refuse a viewer of another version than the library (patch releases may differ); None passes.

    Raises:
        ValueError: another version, which would silently drop unknown archetypes, for example splats.
    """
    if version is not None and not is_our_version(version):
        raise ValueError(
            f"viewer version: want Rerun {rr.__version__}, got {version} ({whose}); "
            f"close that viewer and start one with `pip install rerun-sdk=={rr.__version__}`, or use viewer=file"
        )


def is_our_version(version: str) -> bool:
    """Whether a viewer's version is the library's; patch releases may differ."""
    return version.split(".")[:2] == rr.__version__.split(".")[:2]


def version_of_viewer(url: str, timeout_s: float = 3.0) -> str | None:
    """Ask the viewer at ``url`` for its version; None when no viewer answers within ``timeout_s``."""
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(ViewerClient.connect(url).get_state().viewer_version or "unknown")
        except (ConnectionError, AttributeError, ValueError):
            return

    # The call has no timeout and never returns when the server does not answer.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answers[0] if answers else None


def show_in_viewer(viewer_url: str, stream: str) -> None:
    """Make a running viewer open a data stream."""
    ViewerClient.connect(viewer_url).open(stream)


def start_native(program: Path, port: int, sources: list[str]) -> subprocess.Popen[bytes]:
    """Open a window that shows ``sources`` (one stream URL, or files) and stays open after this program ends."""
    # A stream is connected to, files are opened.
    shown = ["--connect", *sources] if sources[0].startswith("rerun") and "://" in sources[0] else sources
    options = ["--port", str(port), "--memory-limit", MEMORY_LIMIT, "--hide-welcome-screen"]
    return _start([str(program), *_LOOPBACK_ONLY, *options, *shown], own_session=True)


def start_web_page(program: Path, port: int, source_url: str) -> subprocess.Popen[bytes]:
    """Serve the web viewer of a data stream, see `web_address`. On Linux it ends with the calling thread."""
    return _start(_ends_with_parent([program, *_LOOPBACK_ONLY, "--serve-web", "--web-viewer-port", port, source_url]))


def serve_files(program: Path, port: int, data_port: int, files: list[str]) -> subprocess.Popen[bytes]:
    """Serve the web viewer and the data of ``files``. On Linux it ends with the calling thread."""
    ports = ["--web-viewer-port", port, "--port", data_port]
    return _start(_ends_with_parent([program, *_LOOPBACK_ONLY, "--serve-web", *ports, *files]))


def web_address(port: int, source_url: str) -> str:
    """The URL of the web viewer, for a browser."""
    return f"http://{LOOPBACK}:{port}/?url={quote(source_url, safe='')}&hide_welcome_screen=1"


def is_interactive() -> bool:
    """Whether to open a browser by default: a terminal on a machine with a display, and not in CI."""
    return has_display() and sys.stdin.isatty() and sys.stdout.isatty() and "CI" not in os.environ


def open_browser(address: str, port: int, timeout_s: float = 10.0) -> None:
    """Open a page in the user's browser as soon as its ``port`` answers."""
    # A browser that comes before the server shows an error and does not try again.
    until = time.monotonic() + timeout_s
    while not is_listening(LOOPBACK, port) and time.monotonic() < until:
        time.sleep(0.05)
    webbrowser.open(address)


def host_and_port(url: str) -> tuple[str, int]:
    """Split the URL of a remote viewer into host and port.

    Raises:
        ValueError: not the URL of a Rerun stream.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("rerun", "rerun+http", "rerun+https") or not parts.hostname or parts.path != "/proxy":
        raise ValueError(f"viewer url: want rerun+http://HOST:{NATIVE_PORT}/proxy, got {url!r}")
    return parts.hostname, parts.port or NATIVE_PORT


_LOOPBACK_ONLY = ("--bind", LOOPBACK)


def _ends_with_parent(command: Sequence[object]) -> list[str]:
    words = [str(word) for word in command]
    if not sys.platform.startswith("linux"):
        return words
    # Isolated and without site packages: nothing of the user's environment runs in it.
    return [sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, str(os.getpid()), *words]


def _environment() -> dict[str, str]:
    return os.environ | {"CI": "1"}  # disables usage statistics of Rerun, which has no other setting for a single run


def _start(command: list[str], own_session: bool = False) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=own_session,
        env=_environment(),
    )


def _version_in(text: str) -> str | None:
    found = re.search(r"\d+\.\d+\.\d+", text)
    return found.group() if found else None
