"""Targets of a live view: a window, a web page, or a remote viewer. Ports and versions are checked here."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import rerun as rr

from viz import viewer_process as viewer
from viz.viewer_process import LOOPBACK

log = logging.getLogger(__name__)

# Buffer of the server for viewers that connect late; beyond it the oldest data are dropped, static data are kept.
_SERVER_MEMORY = "512MB"
OPTION = "viewer.port"


@dataclass(frozen=True)
class LiveTarget:
    """A checked live view that can be opened.

    Attributes:
        make_sink: makes the Rerun sink that the session streams to.
        show: opens the viewer after the sink exists; returns its process if it started one.
        how_to_look: text for the user; an address is on its own line.
        ends_with_run: whether the process is to be ended after the run.
    """

    make_sink: Callable[[], rr.GrpcServerSink | rr.GrpcSink]
    show: Callable[[], subprocess.Popen[bytes] | None]
    how_to_look: str
    ends_with_run: bool = False


def native_target(port: int | None) -> LiveTarget | None:
    """A window on this machine; None, after a warning, without a display.

    The session is the server and the window its client: a window that closes or freezes does not affect the session.

    Args:
        port: of the window; a viewer that already listens on it is used. None for the default port, or a free one if
            another program uses that.

    Raises:
        ValueError: another program, or a viewer of another version, uses ``port``.
    """
    wanted = viewer.NATIVE_PORT if port is None else port
    # Asked only where something listens: the question waits seconds for an answer.
    version = viewer.version_of_viewer(viewer.stream_url(wanted)) if viewer.is_listening(LOOPBACK, wanted) else None
    if port is not None:
        viewer.check_version(version, f"the viewer on port {port}")
    # A window that is open already is used, unless its version would drop splats.
    if version is not None and viewer.is_our_version(version):
        return _open_window_target(wanted)
    if port is not None:
        viewer.check_port_free(port, "the viewer's window", OPTION)
    elif not viewer.is_port_free(wanted):
        wanted = viewer.free_port()
    if not viewer.has_display():
        log.warning(
            "viewer: no display for a window here (neither DISPLAY nor WAYLAND_DISPLAY is set); the session is "
            "recorded, and viewer=web would show it in a browser"
        )
        return None
    program, data_port = viewer.viewer_executable(), viewer.free_port()
    return LiveTarget(
        lambda: _server_sink(data_port),
        lambda: viewer.start_native(program, wanted, [viewer.stream_url(data_port)]),
        f"the Rerun window (port {wanted})",
    )


def _open_window_target(port: int) -> LiveTarget:
    data_port = viewer.free_port()

    def show() -> None:
        viewer.show_in_viewer(viewer.stream_url(port), viewer.stream_url(data_port))

    return LiveTarget(lambda: _server_sink(data_port), show, f"the Rerun window that is already open (port {port})")


def web_target(port: int | None, browser: bool | None = False) -> LiveTarget:
    """A web page on this machine.

    Args:
        port: of the page; its data comes from ``port + 1``. None for the default ones, or free ones if they are in use.
        browser: whether to open the user's browser; None to open it if `is_interactive`.

    Raises:
        ValueError: one of the ports is in use, or the viewer program is of another version.
    """
    page_port, data_port = viewer.page_ports(port, OPTION)
    program = viewer.viewer_executable()
    data_url = viewer.stream_url(data_port)
    address = viewer.web_address(page_port, data_url)
    opens = viewer.is_interactive() if browser is None else browser

    def show() -> subprocess.Popen[bytes]:
        page = viewer.start_web_page(program, page_port, data_url)
        if opens:
            viewer.open_browser(address, page_port)
        return page

    return LiveTarget(
        lambda: _server_sink(data_port), show, how_to_look_at_page(address, opened=opens), ends_with_run=True
    )


def how_to_look_at_page(address: str, *, opened: bool) -> str:
    """Text for the user with the address of a page on its own line, so that it can be copied."""
    return f"a page on this machine, {'opened in your browser' if opened else 'for a browser'}:\n{address}"


def remote_target(url: str | None) -> LiveTarget | None:
    """The viewer at ``url``; None, after a warning, when it does not answer.

    Raises:
        ValueError: no or a malformed URL, or a viewer of another version.
    """
    if url is None:
        raise ValueError(f"viewer url: want rerun+http://HOST:{viewer.NATIVE_PORT}/proxy for viewer=remote, got none")
    if not viewer.is_listening(*viewer.host_and_port(url)):
        log.warning("viewer: nobody listens at %s; exploration goes on without a live view", url)
        return None
    viewer.check_version(viewer.version_of_viewer(url), f"the viewer at {url}")
    return LiveTarget(lambda: rr.GrpcSink(url), lambda: None, f"the Rerun viewer at {url}")


def _server_sink(port: int) -> rr.GrpcServerSink:
    return rr.GrpcServerSink(bind_ip=LOOPBACK, port=port, server_memory_limit=_SERVER_MEMORY)
