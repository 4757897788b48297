"""Where a live view goes: a window, a page, or a viewer elsewhere. Ports and versions are checked here, up front."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import rerun as rr

from viz import viewer_process as viewer
from viz.viewer_process import LOOPBACK

log = logging.getLogger(__name__)

# The server keeps this much for viewers that come late; beyond it the oldest images go, static data stays.
_SERVER_MEMORY = "512MB"
OPTION = "viewer.port"


@dataclass(frozen=True)
class LiveTarget:
    """A live view that is ready to be opened.

    Attributes:
        make_sink: makes the Rerun sink that the walk streams to.
        show: opens what looks at it, once the sink is there; returns the program if it started one.
        how_to_look: tells the user; an address has a line of its own.
        ends_with_run: whether that program is of no use after the run.
    """

    make_sink: Callable[[], rr.GrpcServerSink | rr.GrpcSink]
    show: Callable[[], subprocess.Popen[bytes] | None]
    how_to_look: str
    ends_with_run: bool = False


def native_target(port: int | None) -> LiveTarget | None:
    """A window on this machine; None, after a warning, when there is no display to open one on.

    The walk serves and the window is its client: a window may close, freeze or come back without the walk noticing.

    Args:
        port: of the window; the viewer that already holds it is used. None for the default one, or if something else
            holds that, a free one.

    Raises:
        ValueError: something else holds ``port``, or a viewer of another version.
    """
    wanted = viewer.NATIVE_PORT if port is None else port
    version = viewer.version_of_viewer(viewer.stream_url(wanted)) if viewer.is_listening(LOOPBACK, wanted) else None
    if port is not None:
        viewer.check_version(version, f"the viewer on port {port}")
    if version is not None and viewer.is_our_version(version):
        return _window_that_is_open(wanted)
    if port is not None:
        viewer.check_port_free(port, "the viewer's window", OPTION)
    elif not viewer.is_port_free(wanted):
        wanted = viewer.free_port()
    if not viewer.has_display():
        log.warning(
            "viewer: no display for a window here (neither DISPLAY nor WAYLAND_DISPLAY is set); the walk is recorded, "
            "and viewer=web would show it in a browser"
        )
        return None
    program, data_port = viewer.viewer_executable(), viewer.free_port()
    return LiveTarget(
        lambda: _server_sink(data_port),
        lambda: viewer.start_native(program, wanted, [viewer.stream_url(data_port)]),
        f"the Rerun window (port {wanted})",
    )


def _window_that_is_open(port: int) -> LiveTarget:
    data_port = viewer.free_port()

    def show() -> None:
        viewer.show_in_viewer(viewer.stream_url(port), viewer.stream_url(data_port))

    return LiveTarget(lambda: _server_sink(data_port), show, f"the Rerun window that is already open (port {port})")


def web_target(port: int | None, browser: bool | None = False) -> LiveTarget:
    """A page on this machine.

    Args:
        port: of the page; its data comes from ``port + 1``. None for the default ones, or free ones if they are in use.
        browser: whether to open the user's browser; None where somebody at this machine is likely to want it.

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
    """Where a page is, with the address on a line of its own, so that it can be copied."""
    return f"a page on this machine, {'opened in your browser' if opened else 'for a browser'}:\n{address}"


def remote_target(url: str | None) -> LiveTarget | None:
    """The viewer that listens at ``url``; None, after a warning, when nobody does.

    Raises:
        ValueError: no or a malformed address, or a viewer of another version.
    """
    if url is None:
        raise ValueError(f"viewer url: want rerun+http://HOST:{viewer.NATIVE_PORT}/proxy for viewer=remote, got none")
    if not viewer.is_listening(*viewer.host_and_port(url)):
        log.warning("viewer: nobody listens at %s; the walk goes on without a live view", url)
        return None
    viewer.check_version(viewer.version_of_viewer(url), f"the viewer at {url}")
    return LiveTarget(lambda: rr.GrpcSink(url), lambda: None, f"the Rerun viewer at {url}")


def _server_sink(port: int) -> rr.GrpcServerSink:
    return rr.GrpcServerSink(bind_ip=LOOPBACK, port=port, server_memory_limit=_SERVER_MEMORY)
