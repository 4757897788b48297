"""Exported pages and files in a real browser, compared with our own renders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import worldwarp
from tests.browser import Drawing, chromium, opened
from tests.helpers import psnr
from worldwarp import World
from worldwarp.cli import main

SIZE = (96, 160)
PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"
WORDS = ["size=[96,160]", "chunk=4", "generator=passthrough", "prior=smooth", "viewer=none"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The bundled photo, which is neither its own mirror image nor its own upside down."""
    chromium()
    folder = tmp_path_factory.mktemp("made") / "world"
    assert main(["explore", f"image={PHOTO}", f"out={folder}", "path=right:distance=0.1", "frames=5", *WORDS]) == 0
    return World.load(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Drawing]:
    with opened(SIZE) as context:
        context.set_offline(True)
        yield Drawing(context.new_page())


@pytest.fixture
def page(world: World, browser: Drawing, tmp_path: Path) -> Drawing:
    """The exported page, opened from the disk without a network, at rest."""
    report = world.export(["html"], tmp_path)[0]
    browser.console.clear()
    browser.opens(f"{report.path.as_uri()}#still")
    browser.wait("window.drawn")
    style = "document.createElement('style'), {textContent: '#bar, #text {display: none !important}'}"
    browser.evaluate(f"document.head.append(Object.assign({style})), 0")
    return browser


def shown(page: Drawing, frame: float) -> torch.Tensor:
    page.evaluate(f"worldwarp.show({frame}), 0")
    page.wait("window.drawn")
    return page.screenshot()


def test_a_page_shows_the_frames_of_the_world_upright_and_not_mirrored(page: Drawing, world: World) -> None:
    page.wait("getComputedStyle(document.getElementById('poster')).opacity === '0'")
    for frame in (0, 4):
        picture, own = shown(page, frame), world.render(world.cameras[frame : frame + 1]).rgb[0]
        assert psnr(picture, own) > 28.0
        assert max(psnr(picture.flip(axis), own) for axis in (1, 2)) < 20.0
    assert page.console == []


def test_a_page_plays_the_path_and_yields_to_the_hand(page: Drawing) -> None:
    before = page.screenshot()
    page.evaluate("document.getElementById('play').click(), 0")
    page.wait("document.getElementById('at').value > 0.9 && window.drawn")
    assert psnr(page.screenshot(), before) < 30.0
    page.evaluate("document.getElementById('home').click(), 0")
    page.wait("window.drawn && document.getElementById('at').value == 0")
    at_home = page.screenshot()
    for kind, x in (("mousePressed", 80), ("mouseMoved", 110), ("mouseReleased", 110)):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=40, button="left", buttons=1, clickCount=1)
    page.wait("window.drawn")
    assert psnr(page.screenshot(), at_home) < 25.0
    page.call("Input.dispatchKeyEvent", type="keyDown", key="h")
    page.wait("window.drawn")
    page.evaluate("new Promise(done => setTimeout(done, 300))")
    assert psnr(page.screenshot(), at_home) > 35.0


def test_a_page_works_on_a_telephone(page: Drawing) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=120, height=200, deviceScaleFactor=2, mobile=True)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    try:
        page.wait("window.drawn && document.getElementById('view').width === 240")
        before = page.screenshot()
        fingers = [[(50, 100), (70, 100)], [(40, 100), (80, 100)], [(20, 100), (100, 100)]]
        for kind, places in zip(("touchStart", "touchMove", "touchMove"), fingers, strict=True):
            points = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(places)]
            page.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        page.wait("window.drawn")
        page.evaluate("new Promise(done => setTimeout(done, 300))")
        assert psnr(page.screenshot(), before) < 30.0
    finally:
        page.call("Emulation.setTouchEmulationEnabled", enabled=False)
        page.call(
            "Emulation.setDeviceMetricsOverride", width=SIZE[1], height=SIZE[0], deviceScaleFactor=1, mobile=False
        )


def test_a_world_is_shown_inside_a_notebook(world: World, browser: Drawing, tmp_path: Path) -> None:
    """As notebooks do, its HTML stands in the middle of a page of theirs."""
    notebook = tmp_path / "notebook.html"
    head = "<!doctype html><p style='font-size: 9px; margin: 4px'>a notebook</p>"
    notebook.write_text(f"{head}{world.show(height_px=60)._repr_html_()}<p>after it</p>")
    browser.opens(notebook.as_uri())
    browser.wait("frames.length && frames[0].drawn && frames[0].worldwarp")
    browser.evaluate("frames[0].worldwarp.show(0), 0")
    browser.wait("frames[0].drawn && frames[0].getComputedStyle(frames[0].poster).opacity === '0'")
    top, height = browser.evaluate(
        "[document.querySelector('iframe').getBoundingClientRect().top, frames[0].innerHeight]"
    )
    assert height == 60
    view = browser.screenshot()[:, int(top) + 5 : int(top) + 20]
    assert view.std() > 0.1  # the photo, not an empty page


def test_holes_can_be_shown(page: Drawing) -> None:
    page.evaluate("worldwarp.showPose([0, 0, 0], [0.7, 0, 0.714, 0, 1, 0, -0.714, 0, 0.7], 0.9), 0")  # to the right
    page.wait("window.drawn")
    filled = page.screenshot()
    page.evaluate("document.getElementById('holes').click(), window.drawn = false, 0")
    page.wait("window.drawn")
    purple = (page.screenshot() - torch.tensor([0.5, 0.0, 0.5])[:, None, None]).abs().amax(0) < 0.02
    assert 0.2 < purple.float().mean() < 0.95
    assert filled[:, purple].mean() > 0.15  # the page's own color would be darker


VIEWERS = Path(__file__).parents[1] / "viewers"


@pytest.mark.slow  # Spark draws in software for minutes
@pytest.mark.parametrize(
    ("name", "turned", "least_db"), [("gaussians_ply", True, 24.0), ("spz", False, 24.0), ("glb", False, 20.0)]
)
def test_files_look_the_same_in_the_viewer_of_others(
    world: World, tmp_path: Path, name: str, turned: bool, least_db: float
) -> None:
    """Spark (splats) and three.js (mesh), at the photo's camera and at the end of the path; axes as the notes say."""
    if not (VIEWERS / "node_modules").exists():
        pytest.skip("npm install --no-package-lock --prefix tests/viewers was not run")
    report = world.export([name], tmp_path / "exports")[0]
    size = (2 * SIZE[0], 2 * SIZE[1])  # others blur a splat by about half a pixel, of whatever size
    with opened(size, "--allow-file-access-from-files") as context:
        viewer = Drawing(context.new_page())
        viewer.opens((VIEWERS / "viewer.html").as_uri())
        viewer.wait("window.ready")
        viewer.evaluate(f"open_file('{report.path.as_uri()}', {str(turned).lower()})")
        for frame in (0, 4):
            camera = world.cameras[frame].resized(size)
            flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
            matrix = (flip @ camera.world_from_camera @ flip).T.flatten().tolist()  # three.js: by columns
            own, before, picture = world.cache.render(camera[None]).rgb[0], torch.zeros(3, *size), torch.ones(3, *size)
            for _ in range(30):  # splats are sorted between frames: until the picture stays
                if picture.mean() > 0.1 and psnr(picture, before) > 60.0:
                    break
                before = picture
                viewer.evaluate(f"look({matrix}, {float(camera.fov_deg[1])})")
                picture = viewer.screenshot()
            known = world.render(camera).covered[0].expand_as(own)
            assert psnr(picture[known], own[known]) > least_db
            assert max(psnr(picture.flip(axis)[known], own[known]) for axis in (1, 2)) < least_db - 5.0
        if name == "glb":
            assert viewer.evaluate("cameras") == 1
            assert viewer.evaluate("animated") == [["path.position", "path.quaternion"]]
