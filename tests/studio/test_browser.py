"""The studio as a person uses it: the real command, a real browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser import opened
from tests.helpers import REPOSITORY, command_line, program_environment, wait_until, write_photo
from worldwarp import World

SIZE = (480, 640)  # small: software draws every pixel
TOY = ("size=48x64", "chunk=2", "detail=1", "depth=plane", "generator=passthrough", "prior=smooth")


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`worldwarp studio`, run in ``folder``; the program and the address that it prints."""
    command = command_line(["studio", *words, "open=false"])
    libraries = program_environment(PYTHONPATH=os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]))
    with (folder / "log.txt").open("a") as log:
        program = subprocess.Popen(command, cwd=folder, env=libraries, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line.startswith("studio "), (folder / "log.txt").read_text()
        yield program, line.split()[1]
    finally:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


@contextmanager
def browser() -> Iterator[Callable[[str], Person]]:
    with opened(SIZE) as context:
        yield lambda address: Person(context.new_page(), address)


class Person:
    """Somebody at a page of the studio."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        page.set_default_timeout(60_000.0)
        page.goto(address)

    def sees(self, pattern: str, timeout_s: float = 90.0) -> str:
        """Wait until the page's text matches; returns the first group, or the match."""
        until = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.page.inner_text("body"))) is None:
            assert time.monotonic() < until, self.page.inner_text("body")
            time.sleep(0.1)
        return found.group(found.lastindex or 0)

    def presses(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def opens(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def hits(self, key: str, *, for_s: float = 0.0) -> None:
        self.page.mouse.click(60, 440)
        self.page.keyboard.down(key)
        time.sleep(for_s)
        self.page.keyboard.up(key)

    @property
    def frames(self) -> int:
        return int(self.sees(r"(\d+) frames · "))

    @property
    def splats(self) -> int:
        return int(self.sees(r"frames · ([\d,]+) splats").replace(",", ""))

    def waits_for(self, done: Callable[[], bool], timeout_s: float = 120.0) -> None:
        wait_until(done, timeout_s)


@pytest.mark.timeout(900)
def test_a_person_makes_grows_plans_forgets_and_takes_home(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "holiday.png")
    with browser() as visit:
        with serving(tmp_path, *TOY) as (program, address):
            me = visit(address)
            me.sees("No world yet")
            me.opens("Make")
            me.page.set_input_files("input[type=file] >> nth=0", str(photo))
            me.sees(r"holiday\.png, 0\.0 MB")
            me.page.get_by_text("More", exact=True).click()
            fill(me, "seed", "3")
            choose(me, "noise", "confidence")
            me.presses("Plan it")
            me.sees(r"plan 0 frames of 64x")
            me.presses("Make it")
            me.waits_for(lambda: me.sees(r"(holiday|No world)") == "holiday" and me.frames == 1)

            grow(me, "d", lambda: me.hits("g"))
            grow(me, "ArrowRight", lambda: me.presses("Grow here"))
            grown = me.frames

            me.opens("Path")
            for count, key in enumerate("adw", 1):
                me.hits(key, for_s=0.3)
                me.presses("Add a key here (K)")
                me.sees(rf"{count} keys · key {count}")
            me.presses("forecast")
            me.sees(r"up to \d+% of a view is unknown today")
            me.presses("fly")
            me.presses("Walk it")
            me.waits_for(lambda: me.frames > grown)
            idle(me)
            walked, held = me.frames, me.splats
            world = World.load(tmp_path / "worlds" / "holiday")
            assert len(world.cameras) == walked

            me.opens("History")
            me.presses("Take back the last chunk (U)")
            me.waits_for(lambda: me.frames == walked - 2)
            before = me.splats
            me.presses("Draw a box")
            me.presses("Forget what is in it")
            me.waits_for(lambda: me.splats < before)
            assert held >= before

            me.opens("Save")
            with me.page.expect_download() as download:
                me.presses("Points (PLY)")
            assert Path(download.value.path()).read_bytes().startswith(b"ply")

            me.page.reload()
            me.waits_for(lambda: me.frames == walked - 2)
            kept = len(stored_chunks(world.folder))
            assert me.splats < before

            me.opens("Path")
            me.page.get_by_text("Presets and files").click()
            me.presses("Use the preset")
            me.sees(r"16 keys")
            with me.page.expect_download() as download:
                me.presses("Save the path")
            me.presses("Remove all keys")
            me.sees("Look somewhere and press")
            me.page.set_input_files("input[type=file] >> nth=0", download.value.path())
            me.sees(r"16 keys")
            with killed_when(program, lambda: len(stored_chunks(world.folder)) > kept):
                me.presses("Walk it")
            me.page.close()  # it would come back, and steer
        with serving(tmp_path, *TOY) as (program, address):
            me = visit(address)
            me.sees(r"frames of 64x48, \d+ planned ones are left")
            planned = len(World.load(world.folder).record.path)
            me.presses("go on")
            me.waits_for(lambda: f"{planned} frames · " in me.page.inner_text("body"))
            idle(me)
            program.send_signal(signal.SIGINT)
            assert program.wait(60) == 0
    world = World.load(tmp_path / "worlds" / "holiday")
    assert len(world.cameras) == len(world.record.path) == planned
    assert (world.folder / "video.mp4").exists()


@pytest.mark.timeout(300)
def test_two_people_one_of_whom_steers_and_one_whose_browser_cannot_draw(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, address), browser() as visit:
        one = visit(address)
        one.sees("No world is here yet")
        other = visit(address)
        other.sees("Somebody else steers")
        one.sees("2 people are here")
        assert other.page.get_by_role("button", name="Grow here").count() == 0
        one.page.close()
        other.sees("Grow here")
        page = visit("about:blank").page
        page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        page.goto(address, wait_until="commit")
        page.get_by_text("This browser shows no WebGL 2").wait_for()


def stored_chunks(world: Path) -> list[Path]:
    """Files of finished chunks."""
    return list((world / "chunks").glob("*.safetensors"))


@contextmanager
def killed_when(program: subprocess.Popen[str], due: Callable[[], bool]) -> Iterator[None]:
    """Kill ``program`` as soon as it is ``due``, whatever the body waits for; leaves when it is dead.

    A page that is drawn by software answers seconds late; by then a walk of toy size is over.
    """

    def watch() -> None:
        wait_until(due, 120.0)
        program.kill()

    with ThreadPoolExecutor(1) as watching:
        killed = watching.submit(watch)
        yield
        killed.result()
    program.wait()


def idle(person: Person) -> None:
    """Wait until nothing is done."""
    person.sees("Look around, then press")


def grow(person: Person, key: str, ask: Callable[[], None]) -> None:
    """Move, and ask the world to follow, until it does: without a GPU no frame may be drawn while a key is held."""
    before, until = person.frames, time.monotonic() + 120.0
    while person.frames == before:
        assert time.monotonic() < until, person.page.inner_text("body")
        person.hits(key, for_s=0.5)
        ask()
        with suppress(AssertionError):
            wait_until(lambda: person.frames != before, 2.0)
    idle(person)


def fill(person: Person, label: str, text: str) -> None:
    field = person.page.get_by_label(label, exact=True).first
    field.fill(text)
    field.press("Tab")


def choose(person: Person, label: str, option: str) -> None:
    person.page.get_by_label(label, exact=True).first.click()
    person.page.get_by_role("option", name=option, exact=True).click()
