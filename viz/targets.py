"""Where a live view goes: a window, a page, or a viewer elsewhere. Ports and versions are checked here, up front."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import rerun as rr

from viz import viewer

log = logging.getLogger(__name__)

# The server keeps this much for viewers that come late; beyond it the oldest images go, static data stays.
_SERVER_MEMORY = "512MB"


@dataclass(frozen=True)
class LiveTarget:
    """A live view that is ready to be opened.

    Attributes:
        make_sink: makes the Rerun sink that the walk streams to.
        show: opens what looks at it, once the sink is there; returns the program if it started one.
        how_to_look: a line for the user.
        ends_with_run: whether that program is of no use after the run.
    """

    make_sink: Callable[[], rr.GrpcServerSink | rr.GrpcSink]
    show: Callable[[], subprocess.Popen[bytes] | None]
    how_to_look: str
    ends_with_run: bool = False


def native_target(port: int) -> LiveTarget:
    """A window on this machine, the one that already holds ``port`` if there is one.

    The walk serves and the window is its client: a window may close, freeze or come back without the walk noticing.

    Raises:
        ValueError: something else holds the port, or a viewer of another version.
    """
    window_url = viewer.stream_url(port)
    data_port = viewer.free_port()
    data_url = viewer.stream_url(data_port)
    version = viewer.version_of_viewer(window_url) if viewer.is_listening(viewer.LOOPBACK, port) else None
    viewer.check_version(version, f"the viewer on port {port}")
    if version is None:
        viewer.check_port_free(port, "the viewer's window")
    program = viewer.viewer_executable()

    def show() -> subprocess.Popen[bytes] | None:
        if version is None:
            return viewer.start_native(program, port, [data_url])
        viewer.show_in_viewer(window_url, data_url)
        return None

    return LiveTarget(lambda: _server_sink(data_port), show, f"the Rerun window (port {port})")


def web_target(port: int) -> LiveTarget:
    """A page on this machine, on ``port``; its data comes from ``port + 1``.

    Raises:
        ValueError: one of the ports is in use, or the viewer program is of another version.
    """
    viewer.check_port_free(port, "the viewer's web page")
    viewer.check_port_free(port + 1, "the data of the viewer's web page")
    program = viewer.viewer_executable()
    data_url = viewer.stream_url(port + 1)
    return LiveTarget(
        lambda: _server_sink(port + 1),
        lambda: viewer.start_web_page(program, port, data_url),
        viewer.web_address(port, data_url),
        ends_with_run=True,
    )


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
    return rr.GrpcServerSink(bind_ip=viewer.LOOPBACK, port=port, server_memory_limit=_SERVER_MEMORY)
