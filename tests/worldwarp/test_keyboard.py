"""Keyboard control: keys of terminals, pipes and Windows consoles, moves, undo, and the ends of a session."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from geometry.camera import Camera
from tests.helpers import command_line, program_environment, same_bits, wait_until
from viz import viewer_process as viewer
from worldwarp import World
from worldwarp.cli import main
from worldwarp.keyboard import ARROWS, MOVES, PASTE, UNKNOWN, KeyParser, console_pieces, entered, move, typed

SIZE = (48, 80)
SMALL = ["size=[48,64]", "chunk=2", "detail=1", "depth=plane", "generator=passthrough", "prior=smooth", "viewer=none"]
ON_UNIX = pytest.mark.skipif(sys.platform == "win32", reason="terminals of its own kind")


def test_a_key_moves_from_the_last_camera() -> None:
    path = [Camera.from_fov(60.0, SIZE)]
    for key in "we":
        cameras = move(key, path[-1], chunk=4)
        assert cameras is not None
        assert len(cameras) == 4
        path += [cameras[i] for i in range(4)]
    forward, turned = path[4], path[8]
    assert forward.position[2] > 0.1
    assert torch.allclose(turned.position, forward.position, atol=1e-6)
    assert turned.world_from_camera[0, 2] > 0.1  # looks to the right
    assert move("?", path[-1], chunk=4) is None


def test_every_key_moves() -> None:
    start = Camera.from_fov(60.0, SIZE)
    for key in [*MOVES, *ARROWS]:
        cameras = move(key, start, chunk=2)
        assert cameras is not None
        assert not torch.allclose(cameras.world_from_camera[-1], start.world_from_camera, atol=1e-3), key


def test_arrows_move_where_they_point() -> None:
    start = Camera.from_fov(60.0, SIZE)
    ends = {}
    for key in ARROWS:
        cameras = move(key, start, chunk=2)
        assert cameras is not None
        ends[key] = cameras.position[-1]
    assert ends["up"][2] > 0.1
    assert ends["down"][2] < -0.1
    assert ends["left"][0] < -0.1
    assert ends["right"][0] > 0.1


def test_the_step_size_scales_a_move() -> None:
    start = Camera.from_fov(60.0, SIZE)
    once, larger = move("w", start, chunk=2), move("w", start, chunk=2, steps=2)
    assert once is not None
    assert larger is not None
    assert torch.allclose(larger.position[-1], 2.25 * once.position[-1], atol=1e-4)


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"Wad", ["W", "a", "d"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA\x1bOB\x1bOC\x1bOD", ["up", "down", "right", "left"]),  # application mode
        (b"\x1b[1;5A\x1b[1;2D\x1bO5C", ["up", "left", "right"]),  # with Ctrl, Shift
        (b"\x1b\x1b[A", ["up"]),  # with Alt
        (b"\x1b[a\x1bOd", ["up", "left"]),  # rxvt, with Shift and Ctrl
        (b"\x1b[[A\x1b[15~\x1b[H\x1bOP", [UNKNOWN] * 4),  # F1 of the Linux console, F5, Home, F1
        (b"\x1bw", [UNKNOWN]),  # Alt+w
        (b"\x1b[\x1b[A", ["up"]),  # a sequence that was cut off
        (b"\x1b]11;rgb:0000/1111/aaaa\x07d\x1bP1$r\x1b\\s", ["d", "s"]),  # answers of a terminal
        (b"w\x1b[200~wasd\nu\x1b[Ax\x1b[201~s", ["w", f"{PASTE}wasd\nux", "s"]),  # pasted
        ("é→w".encode(), ["é", "→", "w"]),
        (b"\xff\xc3w", ["\ufffd", "\ufffd", "w"]),
    ],
)
@ON_UNIX
def test_terminal_input_is_parsed_to_keys(sent: bytes, keys: list[str]) -> None:
    assert keys_of_terminal([sent]) == keys
    assert keys_of_terminal([bytes([byte]) for byte in sent]) == keys  # in pieces


@ON_UNIX
def test_escape_alone_is_an_unknown_key() -> None:
    assert keys_of_terminal([b"\x1b"], wait_s=0.8) == [UNKNOWN]
    assert keys_of_terminal([b"\x1b", b"", b"w"], wait_s=0.8) == [UNKNOWN, "w"]


def keys_of_terminal(pieces: list[bytes], wait_s: float = 0.0) -> list[str]:
    """The keys of a terminal in which ``pieces`` are typed one by one; an empty one is a pause."""
    ours, theirs = os.openpty()
    keys: list[str] = []
    with os.fdopen(theirs, "r") as terminal, os.fdopen(ours, "wb", buffering=0) as keyboard:
        stop = threading.Event()

        def type_all() -> None:
            for piece in pieces:
                time.sleep(0.02 if piece else 0.8)
                if piece:
                    keyboard.write(piece)
            time.sleep(0.3 + wait_s)
            stop.set()

        typist = threading.Thread(target=type_all)
        typist.start()
        keys += typed(terminal, stop.is_set)
        typist.join()
    return keys


def test_keys_of_a_pipe_end_with_it_or_when_stopped() -> None:
    assert list(typed(io.StringIO("Wad\x1b[A\x1b"), lambda: False)) == ["W", "a", "d", "up", UNKNOWN]
    assert list(typed(io.StringIO("wad"), lambda: True)) == []


def test_a_line_of_text_is_typed_or_pasted() -> None:
    keys = iter([*"A dxg", "\x7f", "\x7f", "up", f"{PASTE}og\nRuns", UNKNOWN, "\n", "w"])
    assert entered(keys) == "A dog\nRuns"
    assert list(keys) == ["w"]


def test_windows_console_input_is_parsed_to_keys() -> None:
    sent = iter("w\xe0H\x00K\xe0M\xe0P\x00;\xe0")
    queue: list[str] = list(sent)
    pieces = console_pieces(lambda: bool(queue), lambda: queue.pop(0))
    parser, keys = KeyParser(), []
    while piece := next(pieces):
        keys += parser.feed(piece)
    assert keys == ["w", "up", "left", "right", "down", UNKNOWN, "\xe0"]  # the last one is the letter à
    queue.append("\x03")
    with pytest.raises(KeyboardInterrupt):
        next(pieces)


@ON_UNIX
def test_keys_arrive_without_enter_and_the_terminal_is_restored() -> None:
    import termios

    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r") as terminal, os.fdopen(ours, "wb", buffering=0) as keyboard:
        before = termios.tcgetattr(terminal)
        stop = threading.Event()
        keys = typed(terminal, stop.is_set)
        timer = threading.Timer(0.1, keyboard.write, [b"wd"])
        timer.start()
        assert [next(keys), next(keys)] == ["w", "d"]  # no Enter was typed
        timer.join()
        stop.set()
        assert list(keys) == []
        assert termios.tcgetattr(terminal) == before


@ON_UNIX
def test_keys_end_when_the_terminal_closes() -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r") as terminal:
        keys = typed(terminal, lambda: False)
        timer = threading.Timer(0.1, os.close, [ours])
        timer.start()
        assert list(keys) == []
        timer.join()


def test_a_world_is_made_and_continued_by_keys(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["size=[48,80]", "chunk=3", "detail=1", *SMALL[3:]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("wx"))
    assert main(["explore", f"image={photo}", f"out={tmp_path / 'w'}", "path=keys", *small]) == 0
    output = capsys.readouterr().out
    assert "a key makes 3 frames of 80x48 in about " in output
    assert "w a s d or arrows move" in output
    assert len(World.load(tmp_path / "w").cameras) == 4
    monkeypatch.setattr(sys, "stdin", io.StringIO("dd"))
    assert main(["explore", f"resume={tmp_path / 'w'}", "viewer=none"]) == 0
    world = World.load(tmp_path / "w")
    assert len(world.cameras) == 10
    assert world.cameras.position[-1][0] > 0.2
    assert len(world.record.path) == 10


def test_keys_after_undo_continue_from_the_last_finished_frame(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("ww"))
    assert main(["explore", f"image={photo}", f"out={tmp_path / 'w'}", "path=keys", *SMALL]) == 0
    assert main(["undo", str(tmp_path / "w")]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("d"))
    assert main(["explore", f"resume={tmp_path / 'w'}", "viewer=none"]) == 0
    world = World.load(tmp_path / "w")
    assert len(world.cameras) == len(world.record.path) == 5
    assert world.cameras.position[-1][2] == pytest.approx(
        world.cameras.position[2][2].item(), abs=1e-6
    )  # one w, not two


class Terminal:
    """The command in a pseudo-terminal."""

    def __init__(self, words: list[str]) -> None:
        import termios

        self._ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (40, 200))
        self.program = subprocess.Popen(
            command_line(words),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=program_environment(DISPLAY="", WAYLAND_DISPLAY="", CI="1"),
            start_new_session=True,
        )
        os.close(theirs)
        self.shown, self._decoder = "", codecs.getincrementaldecoder("utf-8")("replace")
        self._canonical = lambda: bool(termios.tcgetattr(self._ours)[3] & termios.ICANON)

    def read(self, timeout_s: float = 0.1) -> None:
        if select.select([self._ours], [], [], timeout_s)[0]:
            with contextlib.suppress(OSError):
                self.shown += self._decoder.decode(os.read(self._ours, 65536))

    def wait_for(self, text: str, count: int = 1, timeout_s: float = 150.0) -> None:
        until = time.monotonic() + timeout_s
        while self.shown.count(text) < count:
            assert time.monotonic() < until, self.shown
            assert self.program.poll() is None or self.shown.count(text) >= count, self.shown
            self.read()

    def wait_for_keys(self) -> None:
        self.wait_for("viewer  ")
        while self._canonical():
            self.read()

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self, timeout_s: float = 150.0) -> int:
        until = time.monotonic() + timeout_s
        while self.program.poll() is None:
            assert time.monotonic() < until, self.shown
            self.read()
        self.read()
        return self.program.wait()

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self._ours)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@ON_UNIX
def test_a_key_after_undo_makes_the_same_bits_as_without_the_undone_key(
    tmp_path: Path, photo: Path, terminals: list[Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal(["explore", f"image={photo}", f"out={tmp_path / 'undone'}", "path=keys", *SMALL])
    terminals.append(terminal)
    terminal.wait_for_keys()
    terminal.type(b"\x1b[A\x1bODdu zz?+-\x1b[1;5Bx")
    monkeypatch.setattr(sys, "stdin", io.StringIO("w\x1b[D\x1b[Bx"))  # meanwhile, in this process
    assert main(["explore", f"image={photo}", f"out={tmp_path / 'straight'}", "path=keys", *SMALL]) == 0
    assert terminal.end() == 0
    shown = terminal.shown
    assert shown.count("no such key; ? lists them") == 1
    assert shown.count("? help") == 2
    assert "step size 1.5" in shown
    assert "took back the last chunk; 5 frames are left" in shown
    assert "forward …" in shown  # while it was made
    undone, straight = World.load(tmp_path / "undone"), World.load(tmp_path / "straight")
    assert len(undone.cameras) == 7
    up, left, down = (undone.cameras.position[i] for i in (2, 4, 6))
    assert up[2] > 0.1
    assert left[0] < -0.1
    assert left[2] == pytest.approx(up[2].item(), abs=1e-6)
    assert down[2] < up[2] - 0.1
    assert same_bits(undone.frames(), straight.frames())
    assert torch.equal(undone.record.rng_state, straight.record.rng_state)
    assert same_bits(undone.primitives, straight.primitives)


@ON_UNIX
@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGKILL])
def test_an_ended_session_keeps_its_chunks_and_ends_its_page(
    how: signal.Signals, tmp_path: Path, photo: Path, terminals: list[Terminal]
) -> None:
    port = viewer.free_port()
    words = [f"out={tmp_path / 'w'}", "path=keys", *SMALL[:-1], "viewer=web", f"viewer.port={port}"]
    terminal = Terminal(["explore", f"image={photo}", *words])
    terminals.append(terminal)
    terminal.wait_for_keys()
    assert f"\nhttp://127.0.0.1:{port}/?url=" in terminal.shown  # on a line of its own
    terminal.type(b"w")
    terminal.wait_for("chunk 1,")
    wait_until(lambda: not viewer.is_port_free(port))  # the page may start later than a quick chunk ends
    terminal.program.send_signal(how)
    assert terminal.end() == (0 if how == signal.SIGHUP else -how)
    assert len(World.load(tmp_path / "w").cameras) == 3
    if sys.platform.startswith("linux"):
        wait_until(lambda: viewer.is_port_free(port) and viewer.is_port_free(port + 1))
