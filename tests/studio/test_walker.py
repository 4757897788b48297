"""The walk of the studio: real sessions at toy size, a real page on this machine, no browser."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from geometry.camera import Camera
from tests.helpers import pose_at, same_bits, wait_until
from viz.studio.events import BUSY, Choices, Forecast, Making, Status, View
from viz.studio.page import Page
from worldwarp import World, explore
from worldwarp.cli import main
from worldwarp.config import compose_config
from worldwarp.prepare import prepare
from worldwarp.resume import resume
from worldwarp.session import Session
from worldwarp.studio.making import begun, free_folder, world_name
from worldwarp.studio.walker import WAITING, Walker

TOY = {"size": "48x64", "chunk": "2", "detail": "1", "depth": "plane", "generator": "passthrough", "prior": "smooth"}


class Studio:
    """A walker with its page, and what the page was told."""

    def __init__(self, worlds: Path, first: Callable[[Callable[[str], object]], Session] | None) -> None:
        self.page = Page("127.0.0.1", None, None, Choices())
        self.told: list[tuple[str, bool]] = []
        self.forecasts: list[Forecast] = []
        self.statuses: list[Status] = []
        self.page.tell = self._tell  # type: ignore[method-assign]  # noted, not shown
        self.page.show_status = self.statuses.append  # type: ignore[method-assign]  # noted, not shown
        self.page.show_forecast = self.forecasts.append  # type: ignore[method-assign]  # noted, not shown
        self.walker = Walker(self.page, first, worlds=worlds)
        self.page.steered_by(self.walker)
        self.walker.start()
        self.settle()

    def _tell(self, text: str, *, error: bool = False) -> None:
        self.told.append((text, error))

    def settle(self) -> None:
        """Wait until nothing is done."""
        wait_until(lambda: self.walker.is_idle and bool(self.statuses) and self.statuses[-1].share is None, 120.0)

    @property
    def errors(self) -> list[str]:
        return [text for text, error in self.told if error]

    def end(self) -> None:
        self.walker.close()
        assert self.walker.join(60.0)
        self.page.close()


@pytest.fixture
def studio(photo: Path, tmp_path: Path) -> Iterator[Studio]:
    """A studio with a new toy world."""
    found = Studio(tmp_path / "worlds", begins(photo, tmp_path / "world"))
    yield found
    found.end()


def begins(photo: Path, folder: Path, **more: str) -> Callable[[Callable[[str], object]], Session]:
    words = [f"{key}={value}" for key, value in (TOY | more).items()]

    def begin(tell: Callable[[str], object]) -> Session:
        config = compose_config("explore", [*words, f"image={photo}", "path=keys", "viewer=none"])
        session = begun(config, folder, tell)
        session.store_in(folder)
        return session

    return begin


def looking(x: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0) -> View:
    return View(pose_at(x, 0.0, z, yaw_deg).double().numpy(), 45.0, time.monotonic())


def path_to(session_folder: Path, x: float, frames: int = 6) -> Camera:
    here = World.load(session_folder).cameras[-1]
    poses = here.world_from_camera.repeat(frames, 1, 1)
    poses[:, 0, 3] += torch.linspace(x / frames, x, frames)
    return Camera(poses, here.focal_px.expand(frames, 2), here.center_px.expand(frames, 2), here.size)


def shown(studio: Studio) -> dict[int, list[float]]:
    """Means of what the page shows, by id, in page units."""
    return {
        int(i): mean
        for group in studio.page.scene._groups
        for i, mean in zip(group.ids.tolist(), group.rows.means.tolist(), strict=True)
    }


def assert_shows_the_world(studio: Studio, folder: Path) -> None:
    cache = World.load(folder).cache
    rows = cache.snapshot()
    means = rows.means if hasattr(rows, "means") else rows.positions  # type: ignore[union-attr]  # Gaussians or points
    wanted = dict(zip(cache.ids().tolist(), (means * studio.page.scene.scale).tolist(), strict=True))
    assert shown(studio) == wanted


def test_growing_ends_at_the_view_and_is_an_ordinary_world(studio: Studio, tmp_path: Path) -> None:
    view = looking(x=0.1, yaw_deg=6.0)
    assert studio.walker.grow(view) is None
    studio.settle()
    assert not studio.errors
    world = World.load(tmp_path / "world")
    assert len(world.cameras) > 3
    assert torch.allclose(
        world.cameras.world_from_camera[-1].double(), torch.from_numpy(view.world_from_camera), atol=1e-5
    )
    assert_shows_the_world(studio, tmp_path / "world")
    assert len(studio.page.thumbnails) == len(world.record.chunks)
    assert resume(tmp_path / "world").remaining == []
    studio.walker.grow(view)
    studio.settle()
    assert "here already" in studio.told[-1][0]
    assert len(World.load(tmp_path / "world").cameras) == len(world.cameras)


def test_no_chunk_moves_faster_than_a_key(studio: Studio, tmp_path: Path) -> None:
    studio.walker.grow(looking(x=0.5, yaw_deg=20.0))
    studio.settle()
    steps = World.load(tmp_path / "world").cameras.position.diff(dim=0).norm(dim=1)
    assert steps.max() < 0.08  # eased: twice the mean at most


def test_the_clock_never_shows_a_status_after_a_newer_one(studio: Studio) -> None:
    show, idle, late = studio.page.show_status, threading.Event(), threading.Event()

    def slow(status: Status) -> None:
        if threading.current_thread().name == "studio clock" and not late.is_set():
            late.set()
            idle.wait(1.0)  # the page is slow, and the task ends meanwhile
        show(status)
        if status.share is None:
            idle.set()

    def work() -> None:
        late.wait(10.0)

    studio.page.show_status = slow  # type: ignore[method-assign]  # the real one, but slow
    studio.walker._ask("working", work)
    wait_until(lambda: studio.walker.is_idle and late.is_set() and idle.is_set(), 20.0)
    assert studio.statuses[-1].share is None
    assert "working" not in studio.statuses[-1].doing


def test_stop_ends_after_the_chunk_and_keeps_the_rest_planned(studio: Studio, tmp_path: Path) -> None:
    begun = threading.Event()
    apply = studio.page.apply

    def stop_at_first(change: object) -> int:
        begun.set()
        studio.walker.stop()
        return apply(change)  # type: ignore[arg-type]  # passed on as given

    studio.page.apply = stop_at_first  # type: ignore[method-assign]  # noted, not shown
    studio.walker.grow(looking(x=0.4))
    studio.settle()
    world = World.load(tmp_path / "world")
    assert begun.is_set()
    assert len(world.cameras) == 3  # the photo and one chunk
    assert len(world.record.path) > 3
    studio.page.apply = apply  # type: ignore[method-assign]  # noted, not shown
    studio.walker.finish()
    studio.settle()
    world = World.load(tmp_path / "world")
    assert len(world.cameras) == len(world.record.path)


def test_a_killed_walk_goes_on_to_the_same_bits(photo: Path, tmp_path: Path) -> None:
    """What is left when the process dies after a chunk is a world that `worldwarp explore` finishes."""
    ends = []
    for name in ("whole", "broken"):
        folder = tmp_path / name
        studio = Studio(tmp_path / "worlds", begins(photo, folder))
        if name == "broken":
            studio.page.apply = lambda _, walker=studio.walker: walker.stop() or 0  # type: ignore[method-assign]  # noted, not shown
        studio.walker.walk(path_to(folder, 0.2))
        studio.settle()
        studio.end()
        assert bool(resume(folder).remaining) == (name == "broken")
        assert main(["explore", str(folder), "viewer=none"]) == 0
        ends.append(World.load(folder))
    assert same_bits(ends[0].frames(), ends[1].frames())
    assert same_bits(ends[0].primitives, ends[1].primitives)


def test_undo_forget_and_branch_show_what_is_stored(studio: Studio, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    studio.walker.walk(path_to(folder, 0.3))
    studio.settle()
    whole = shown(studio)
    assert studio.walker.forget_box((-9.0, -9.0, 0.0), (0.0, 9.0, 9.0)) is None
    studio.settle()
    assert 0 < len(shown(studio)) < len(whole)
    assert_shows_the_world(studio, folder)
    studio.walker.undo()
    studio.settle()
    assert shown(studio) == whole
    studio.walker.undo()
    studio.settle()
    assert_shows_the_world(studio, folder)
    assert len(World.load(folder).cameras) == 5
    studio.walker.branch(1)
    studio.settle()
    branch = World.load(tmp_path / "world-branch")
    assert len(branch.cameras) == 3
    studio.walker.grow(looking(x=-0.05))
    studio.settle()
    assert not studio.errors
    assert len(World.load(folder).cameras) == 5  # the other world stays
    assert_shows_the_world(studio, tmp_path / "world-branch")


def test_forgetting_a_chunk_removes_what_it_added(photo: Path, tmp_path: Path) -> None:
    studio = Studio(tmp_path / "worlds", begins(photo, tmp_path / "world"))
    studio.walker.forget_chunk(0)
    studio.settle()
    assert shown(studio) == {}
    studio.walker.forget_chunk(7)
    studio.settle()
    assert "chunks from 0" in studio.errors[-1]
    studio.end()


def test_a_forecast_draws_nothing_into_the_world(studio: Studio, tmp_path: Path) -> None:
    before = World.load(tmp_path / "world").primitives
    studio.walker.forecast(path_to(tmp_path / "world", 2.0, frames=20))
    studio.settle()
    forecast = studio.forecasts[-1]
    assert forecast.unknown[-1] > forecast.unknown[0]
    assert "20 frames in 10 chunks" in forecast.line
    assert forecast.sheet is not None
    magenta = (forecast.sheet == (255, 0, 255)).all(-1)
    assert magenta[:, -70:].sum() > 1.2 * magenta[:, :70].sum()  # the farther, the less is known
    assert same_bits(World.load(tmp_path / "world").primitives, before)


def test_a_way_behind_the_photo_is_foretold(studio: Studio, tmp_path: Path) -> None:
    far = path_to(tmp_path / "world", 0.01, frames=8)
    far.world_from_camera[:, 2, 3] += torch.linspace(0.5, 4.0, 8)
    studio.walker.forecast(far)
    studio.settle()
    assert studio.forecasts[-1].collides[-1]
    assert not studio.forecasts[-1].collides[0]
    assert "behind" in studio.forecasts[-1].line


def test_it_grows_by_itself_where_much_is_unknown(studio: Studio, tmp_path: Path) -> None:
    studio.walker.follow(0.2)
    studio.walker.looked(looking())
    time.sleep(0.5)
    assert len(World.load(tmp_path / "world").cameras) == 1  # all of it is known
    studio.walker.looked(looking(yaw_deg=25.0))
    wait_until(lambda: len(studio.page.thumbnails) > 1, 60.0)
    studio.walker.stop()
    studio.settle()
    assert not studio.errors


def test_a_full_queue_refuses_and_drops_nothing_of_the_world(studio: Studio) -> None:
    answers = [studio.walker.grow(looking(x=0.05)) for _ in range(200)]
    assert answers.count(BUSY) >= 200 - WAITING - 2
    assert answers[0] is None
    studio.walker.stop()
    studio.settle()
    assert not studio.errors


def test_a_world_is_made_of_an_upload(tmp_path: Path, photo: Path) -> None:
    studio = Studio(tmp_path / "worlds", None)
    making = Making(photo.read_bytes(), "../../My photo.png", dict(TOY))
    assert "No world yet" in studio.statuses[-1].doing
    studio.walker.grow(looking())
    studio.settle()
    assert "make one of a photo first" in studio.errors[-1]
    plans: list[str] = []
    studio.page.show_plan = plans.append  # type: ignore[method-assign]  # noted, not shown
    studio.walker.plan(making)
    studio.settle()
    assert "plan" in plans[-1]
    assert not (tmp_path / "worlds").exists()
    studio.walker.make(making)
    studio.settle()
    studio.walker.make(making)
    studio.settle()
    assert sorted(path.name for path in (tmp_path / "worlds").iterdir()) == ["My-photo", "My-photo-2"]
    assert_shows_the_world(studio, tmp_path / "worlds" / "My-photo-2")
    studio.end()


def test_what_is_wrong_is_a_sentence_and_the_world_stays(studio: Studio, photo: Path, tmp_path: Path) -> None:
    good = photo.read_bytes()
    for content, settings, wanted in (
        (b"no picture", {}, "image"),
        (good, {"depth": "file"}, "depth.path"),
        (good, {"generator._target_": "os.getcwd"}, "cannot be set in the page"),
        (good, {"out": "/tmp/elsewhere"}, "cannot be set in the page"),
        (good, {"seed": "many"}, "seed"),
        (good, {"nothing": "1"}, "there is no setting"),
    ):
        studio.walker.make(Making(content, "x.png", TOY | settings))
        studio.settle()
        assert wanted in studio.errors[-1], studio.errors
        assert "worldwarp-studio-" not in studio.errors[-1]
    studio.walker.grow(View(np.full((4, 4), np.nan), 45.0, 0.0))
    studio.settle()
    assert "view" in studio.errors[-1]
    count = len(studio.errors)
    studio.walker.grow(looking(x=0.05))
    studio.settle()
    assert len(studio.errors) == count
    assert len(World.load(tmp_path / "world").cameras) > 1


def test_exports_are_sent(studio: Studio) -> None:
    sent: dict[str, bytes] = {}
    studio.walker.export(("points_ply", "nerfstudio"), sent.__setitem__)
    studio.settle()
    assert sent["points.ply"].startswith(b"ply")
    assert sent["nerfstudio.zip"].startswith(b"PK")
    assert not studio.errors


def test_a_finished_preset_walk_grows_on(photo: Path, tmp_path: Path) -> None:
    """A world that `worldwarp explore` made with a preset path is opened and grows from its last camera."""
    folder = tmp_path / "world"
    words = [f"{key}={value}" for key, value in TOY.items()]
    config = compose_config("explore", [*words, f"image={photo}", "path=right", "frames=5", "viewer=none"])
    session = prepare(config, out=folder)
    session.store_in(folder)
    next(iter(session.steps()))
    studio = Studio(tmp_path / "worlds", lambda tell: resume(folder, tell=tell))
    assert studio.page.remaining == 2
    studio.walker.finish()
    studio.settle()
    assert len(World.load(folder).cameras) == 5
    studio.walker.grow(looking(x=0.2))
    studio.settle()
    assert not studio.errors
    assert len(World.load(folder).cameras) > 5
    studio.end()


def test_the_points_cache_is_shown_too(photo: Path, tmp_path: Path) -> None:
    studio = Studio(tmp_path / "worlds", begins(photo, tmp_path / "world", cache="points"))
    studio.walker.grow(looking(x=0.05))
    studio.settle()
    assert not studio.errors
    assert_shows_the_world(studio, tmp_path / "world")
    studio.end()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\My Photo.JPG", "My-Photo"),
        ("...", "photo"),
        ("", "photo"),
        ("ü.jpg", "photo"),
    ],
)
def test_names_of_uploads_become_names_of_folders(name: str, wanted: str) -> None:
    assert world_name(name) == wanted


def test_a_free_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a" / "file").write_text("")
    assert free_folder(tmp_path / "a") == tmp_path / "a-2"
    assert free_folder(tmp_path / "b") == tmp_path / "b"


def test_worlds_are_found_opened_and_finished_in_the_page(photo: Path, tmp_path: Path) -> None:
    half = tmp_path / "worlds" / "half"
    words = [f"{key}={value}" for key, value in TOY.items()]
    steps = explore(image=photo, path="left", frames=7, out=half, overrides=words)
    next(steps)
    steps.close()  # type: ignore[attr-defined]  # a generator, which its type does not say
    shutil.copytree(half, tmp_path / "worlds" / "broken")
    (tmp_path / "worlds" / "broken" / "photo.png").unlink()
    studio = Studio(tmp_path / "worlds", None)
    try:
        tiles = {tile.name: tile for tile in studio.page.worlds}
        assert tiles["half"].is_unfinished
        assert tiles["half"].line == "3 frames of 64x48, 4 planned ones are left"
        assert tiles["broken"].picture is None
        assert "photo.png: missing" in tiles["broken"].line
        assert studio.page.scene.wall == [str(half)]
        studio.walker.open(str(tmp_path), False)  # a folder that is none of them
        studio.settle()
        assert "is not among the worlds here" in studio.errors[-1]
        studio.walker.open(str(half), True)
        studio.settle()
        assert len(World.load(half).cameras) == 7
        assert not studio.page.scene.wall
        assert not {tile.name: tile for tile in studio.page.worlds}["half"].is_unfinished
    finally:
        studio.end()


def test_rerun_shows_how_the_next_chunks_are_made(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened once, in a browser, for this world; told where it is; fed by every chunk after that."""
    seen: list[str] = []

    class Window:
        how_to_look = "http://127.0.0.1:9090"

        def close(self) -> None:
            seen.append("closed")

    def opens(viewer: DictConfig, folder: Path) -> Window:
        seen.append(f"{viewer.mode} {folder.name}")
        return Window()

    monkeypatch.setattr("worldwarp.studio.walker.open_viewer", opens)
    monkeypatch.setattr("worldwarp.studio.walker.record_start", lambda *_: seen.append("start"))
    monkeypatch.setattr("worldwarp.studio.walker.record_step", lambda _, step: seen.append(str(step.chunk.index)))
    for _ in range(2):
        studio.walker.inspect()
        studio.settle()
        assert "http://127.0.0.1:9090" in studio.told[-1][0]
    assert seen == ["web world", "start"]
    studio.walker.walk(path_to(tmp_path / "world", 0.1, frames=4))
    studio.settle()
    assert seen[2:] == ["1", "2"]
    assert not studio.errors
