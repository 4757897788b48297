"""The door of the page: it lets in who has the link, and no more than the page can bear.

viser's own server trusts whoever reaches it, so it listens on a port of the loopback interface, and this relay stands
before it. A page of another site cannot talk to it (``Origin`` and ``Host`` are checked), a client that floods is read
slowly, and a client that stalls is dropped by viser's own pings.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import viser

PORT = 8080
COOKIE = "worldwarp_studio"
LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")

MOST_PEOPLE = 64
HEAD_BYTES = 16 * 1024  # of a request
HEAD_S = 10.0  # time to send it
MESSAGES_PER_S = 120.0  # that one client may send: its camera takes 20
BURST = 600.0  # messages beyond that, for an upload

# Shown instead of an empty page, and a check of what is uploaded before it is sent.
SCRIPT = """<script>
(() => {
  document.title = "WorldWarp studio";
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) {
    window.stop();
    document.documentElement.innerHTML = '<body><p style="font: 18px sans-serif; margin: 3em; max-width: 40em">' +
      'This browser shows no WebGL 2, which draws the world: turn on hardware acceleration in its settings, or open ' +
      'the link in a current Chrome, Firefox, Edge or Safari.</p></body>';
    return;
  }
  document.addEventListener("change", (event) => {
    const files = event.target && event.target.files;
    if (files && files[0] && files[0].size > %d) {
      event.stopImmediatePropagation();
      alert("want a file of at most %d MB, got " + Math.round(files[0].size / 1048576) + " MB; make it smaller");
      event.target.value = "";
    }
  }, true);
})();
</script>"""


class Gate:
    """A relay from a public address to viser's server on the loopback interface.

    Args:
        host: address to listen on.
        port: None for `PORT`, or a free one if that is in use.
        token: what a link must hold as ``?token=``; None lets in everybody who reaches the port.
        most_uploaded: bytes of a file.

    Attributes:
        port: where it listens.
        people: browsers that are connected now.

    Raises:
        ValueError: the port is in use, or the address is not this machine's.
    """

    def __init__(self, host: str, port: int | None, token: str | None, most_uploaded: int = 64 * 2**20) -> None:
        self._token, self._host = token, host
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.people = 0
        self._backend = 0
        self._index = _index(SCRIPT % (most_uploaded, most_uploaded >> 20))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="studio gate", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """The link to open."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self._host, self._host)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + ("" if self._token is None else f"?token={self._token}")

    def reserve(self) -> int:
        """A free port of the loopback interface, for viser."""
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            return probe.getsockname()[1]

    def start(self, backend: int) -> None:
        """Relay to a port of the loopback interface."""
        self._backend = backend
        self._thread.start()

    def stop(self) -> None:
        """Close all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)
        self._socket.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            tasks = [task for task in asyncio.all_tasks(self._loop) if not task.done()]
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            if len(head) <= HEAD_BYTES:
                await self._answer(head, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode("latin-1").split("\r\n")
        method, _, rest = lines[0].partition(" ")
        target = urlsplit(rest.partition(" ")[0])
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if (problem := self._refusal(method, fields)) is not None:
            writer.write(_response("403 Forbidden", problem))
        elif self._token is not None and _matches(parse_qs(target.query).get("token", [""])[0], self._token):
            # The page's own requests have no query: the token goes on as a cookie.
            cookie = f"Set-Cookie: {COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/\r\nLocation: /\r\n"
            writer.write(_response("303 See Other", "", cookie))
        elif self._token is not None and not _matches(_cookie(fields.get("cookie", "")), self._token):
            writer.write(
                _response("403 Forbidden", "Open the whole link that worldwarp studio printed, with its token.")
            )
        elif fields.get("upgrade", "").lower() == "websocket":
            await self._relay_socket(head, reader, writer)
        elif target.path in ("/", "/index.html"):
            writer.write(self._index)
        else:
            writer.write(_response("404 Not Found", "There is nothing here."))
        await writer.drain()

    def _refusal(self, method: str, fields: dict[str, str]) -> str | None:
        """Why a request is refused before its token is looked at; None if it is not."""
        if method != "GET":
            return "The studio answers GET alone."
        host = fields.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        # A name of another site that resolves to this machine must not reach the page.
        if self._host in LOOPBACK_NAMES and name not in LOOPBACK_NAMES:
            return f"Open the studio as http://{self._host}:{self.port}/."
        origin = fields.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "A page of another site cannot use the studio."
        return None

    async def _relay_socket(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.people >= MOST_PEOPLE:
            writer.write(_response("503 Service Unavailable", f"{MOST_PEOPLE} people are here already; try later."))
            return
        self.people += 1
        try:
            behind_reader, behind_writer = await asyncio.open_connection(LOOPBACK, self._backend)
            try:
                behind_writer.write(head)
                ways = [
                    asyncio.ensure_future(_pass(reader, behind_writer, Brake().spent)),
                    asyncio.ensure_future(_pass(behind_reader, writer, None)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            finally:
                behind_writer.close()
        finally:
            self.people -= 1


class Brake:
    """Counts the messages in a WebSocket stream, and says how long to wait before more of it is read (RFC 6455)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._allowed, self._since = BURST, clock()
        self._head = b""  # of a frame, as far as it has come
        self._skip = 0  # bytes of the present frame that are still to come

    def spent(self, data: bytes) -> float:
        """Seconds to wait after ``data`` has come."""
        now = self._clock()
        self._allowed = min(BURST, self._allowed + (now - self._since) * MESSAGES_PER_S)
        self._since = now
        self._allowed -= self._frames(data)
        return max(0.0, -self._allowed / MESSAGES_PER_S)

    def _frames(self, data: bytes) -> int:
        """Number of frames that begin in ``data``."""
        count, place = 0, 0
        while place < len(data):
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
                place += step
                continue
            self._head += data[place : place + 1]
            place += 1
            if len(self._head) < 2:
                continue
            short = self._head[1] & 0x7F
            extended = {126: 2, 127: 8}.get(short, 0)
            masked = 4 if self._head[1] & 0x80 else 0
            if len(self._head) == 2 + extended + masked:
                length = int.from_bytes(self._head[2 : 2 + extended], "big") if extended else short
                self._head, self._skip, count = b"", length, count + 1
        return count


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spent: Callable[[bytes], float] | None
) -> None:
    """Relay one direction until it ends."""
    while data := await reader.read(64 * 1024):
        writer.write(data)
        await writer.drain()
        if spent is not None and (wait_s := spent(data)) > 0.0:
            await asyncio.sleep(wait_s)


def _listening(host: str, port: int | None) -> socket.socket:
    """A socket on ``port``; None: on `PORT`, or on a free one if that is in use."""
    try:
        return _bound(host, PORT if port is None else port)
    except (OSError, OverflowError) as error:
        problem = error
    # On a free port it is the address that is wrong.
    try:
        free = _bound(host, 0)
    except OSError as error:
        raise ValueError(f"host: want an address of this machine, got {host} ({error}); leave host= out") from error
    if port is None:
        return free
    free.close()
    raise ValueError(
        f"port: want a free port for the studio's page, got {port} ({problem}); stop the program that holds it, or "
        "leave port= out"
    )


def _bound(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _index(script: str) -> bytes:
    """The answer to a request for the page: viser's, with our title and checks."""
    page = (Path(viser.__file__).parent / "client" / "build" / "index.html").read_text("utf-8")
    body = gzip.compress(page.replace("<head>", f"<head>{script}", 1).encode())
    head = f"Content-Type: text/html; charset=utf-8\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
    return f"HTTP/1.1 200 OK\r\n{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + body


def _response(status: str, text: str, fields: str = "") -> bytes:
    body = text.encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n{fields}"
        "Connection: close\r\n\r\n"
    ).encode() + body


def _cookie(text: str) -> str:
    cookies = SimpleCookie()
    with suppress(CookieError):
        cookies.load(text)
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _matches(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())
