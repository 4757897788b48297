"""Forgetting, undoing and branching: the cache comes back exactly."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
import torch

from cache3d.store.block_files import Scratch
from geometry.primitives import Gaussians
from scenes.io.atomic_files import WorldError
from scenes.store.world_store import WorldStore
from tests.helpers import same_bits, world_content
from worldwarp import World
from worldwarp.cli import main
from worldwarp.config import compose_config
from worldwarp.prepare import prepare
from worldwarp.resume import resume

SIZE = (48, 80)
WORDS = [
    "path=right:distance=1.2,left:distance=1.2",
    "frames=9",
    "size=[48,80]",
    "chunk=2",
    "depth=plane",
    "prior=smooth",
    "cache.refine_steps=1",
    "viewer=none",
]


@pytest.fixture(scope="module")
def walked(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished walk; tests work on copies."""
    folder = tmp_path_factory.mktemp("walked")
    start(photo, folder / "world")
    return folder / "world"


def start(photo: Path, out: Path, *more: str, chunks: int = 99) -> None:
    words = [f"image={photo}", f"out={out}", *WORDS, "generator=passthrough", *more]
    session = prepare(compose_config("explore", words))
    session.store_in(out)
    for step in session.steps():
        if step.chunk.index == chunks:
            break


def copy_of(walked: Path, folder: Path) -> World:
    record = WorldStore.load(walked)
    record.branch(folder, len(record.chunks) - 1)
    return World.load(folder)


def gaussians(world: World) -> Gaussians:
    primitives = world.primitives
    assert isinstance(primitives, Gaussians)
    return primitives


def test_forget_chunks_removes_exactly_their_primitives(walked: Path, tmp_path: Path) -> None:
    world = copy_of(walked, tmp_path / "w")
    before = gaussians(world)
    count = world.forget(chunks=[1, 2])
    left = before[(before.chunk != 1) & (before.chunk != 2)]
    assert count == len(before) - len(left) > 0
    for opened in (world, World.load(world.folder)):
        assert all(torch.equal(getattr(gaussians(opened), n), getattr(left, n)) for n in left.__dataclass_fields__)
        assert len(opened.cache) == len(left) == opened.record.chunks[-1].primitives
    assert len(world.cameras) == 9  # frames stay
    assert world.forget(chunks=[1, 2]) == 0


def test_forget_region_removes_primitives_inside(walked: Path, tmp_path: Path) -> None:
    world = copy_of(walked, tmp_path / "w")
    before = gaussians(world)
    low, high = (0.0, -0.2, 0.0), (5.0, 0.4, 5.0)
    inside = ((before.means >= torch.tensor(low)) & (before.means <= torch.tensor(high))).all(-1) & ~before.sky
    assert world.forget(region=(low, high)) == int(inside.sum()) > 0
    assert torch.equal(gaussians(World.load(world.folder)).means, before.means[~inside])
    assert world.render(world.cameras[:1]).coverage.mean() < 0.95


def test_undo_restores_forgotten_primitives(walked: Path, tmp_path: Path) -> None:
    world = copy_of(walked, tmp_path / "w")
    before = world_content(world.folder)
    world.forget(chunks=[0])
    once = world_content(world.folder)
    world.forget(region=((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0)))
    world.undo()
    assert same_bits(world_content(world.folder), once)
    world.undo()
    assert same_bits(world_content(world.folder), before)


@pytest.mark.parametrize("words", [["generator=passthrough"], ["generator=retouch", "steps=1", "prior=copy"]])
def test_exploring_after_undo_gives_the_same_bits(photo: Path, tmp_path: Path, words: list[str]) -> None:
    start(photo, tmp_path / "w", "frames=5", *words)
    world = World.load(tmp_path / "w")
    before = world_content(world.folder)
    world.undo()
    assert (len(world.cameras), len(World.load(world.folder).cameras)) == (3, 3)
    world.undo()
    assert (tmp_path / "w" / "cameras.json").exists()
    list(resume(world.folder).steps())
    assert same_bits(world_content(world.folder), before)
    cameras_text = (tmp_path / "w" / "cameras.json").read_text()
    assert cameras_text == WorldStore.load(world.folder).cameras_text()


def test_exploration_continues_after_forget(photo: Path, tmp_path: Path) -> None:
    """What was taken away is found new again, and stopping in between changes nothing."""
    start(photo, tmp_path / "whole", chunks=2)
    World.load(tmp_path / "whole").forget(chunks=[1])
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    list(resume(tmp_path / "whole").steps())
    while resume(tmp_path / "parts").remaining:
        next(resume(tmp_path / "parts").steps())
    whole, parts = World.load(tmp_path / "whole"), World.load(tmp_path / "parts")
    assert same_bits(world_content(whole.folder), world_content(parts.folder))
    assert not (gaussians(whole).chunk == 1).any()
    assert (gaussians(whole).chunk == 3).any()


def test_branch_renders_the_same_bits_and_keeps_its_origin(walked: Path, tmp_path: Path) -> None:
    world = World.load(walked)
    before = world_content(world.folder)
    assert same_bits(world_content(world.branch(tmp_path / "all", 4).folder), before)
    branch = world.branch(tmp_path / "early", 2)
    early = World.load(walked, chunks=3)
    assert same_bits(branch.render(branch.cameras[::3]), early.render(branch.cameras[::3]))
    branch.forget(chunks=[0])
    branch.undo()
    list(resume(branch.folder).steps())  # its memory is made again from its chunks
    assert same_bits(world_content(branch.folder), before)
    assert same_bits(world_content(world.folder), before)


def test_the_chunks_before_a_damaged_file_still_open(walked: Path, tmp_path: Path) -> None:
    world = copy_of(walked, tmp_path / "w")
    path = tmp_path / "w" / "cache" / "0003.safetensors"
    content = path.read_bytes()
    path.unlink()  # the link, not the file of the other world
    path.write_bytes(content[:100])
    with pytest.raises(WorldError, match=r"0003.safetensors: truncated"):
        World.load(world.folder)
    opened = World.load(world.folder, chunks=3)
    assert len(opened.cameras) == 5
    saved = opened.branch(tmp_path / "saved", 2)
    list(resume(saved.folder).steps())
    assert same_bits(world_content(saved.folder), world_content(walked))
    with pytest.raises(ValueError, match="chunks: want 1 to 5"):
        World.load(walked, chunks=6)


def test_bad_requests_are_refused(walked: Path, tmp_path: Path) -> None:
    world = copy_of(walked, tmp_path / "w")
    before = world_content(world.folder)
    for chunks in ([], [5], [-1]):
        with pytest.raises(ValueError, match=r"forget: want chunks from 0 \(the photo\) to 4"):
            world.forget(chunks=chunks)
    with pytest.raises(ValueError, match="region: want a low corner below the high one"):
        world.forget(region=((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)))
    assert same_bits(world_content(world.folder), before)
    for _ in range(4):
        world.undo()
    with pytest.raises(ValueError, match="nothing but its photo"):
        world.undo()
    assert len(World.load(world.folder).cameras) == 1


def test_commands(walked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = copy_of(walked, tmp_path / "w")
    before = world_content(world.folder)
    assert main(["forget", str(world.folder), "chunks=[1,2]"]) == 0
    assert "brings them back" in capsys.readouterr().out
    assert main(["undo", str(world.folder)]) == 0
    assert same_bits(world_content(world.folder), before)
    assert main(["forget", str(world.folder), "region=[-9,-9,-9,9,9,9]"]) == 0
    assert main(["forget", str(world.folder), "region=[1,2]"]) == 2
    assert "region: want six numbers" in capsys.readouterr().err
    assert main(["undo", str(world.folder), "chunk=1"]) == 2


LOOK_AROUND = ["path=pan:angle_deg=120", "frames=9", "chunk=4"]
PAGED = "cache.resident_mib=0.6"  # not all of it is in view at once


@pytest.fixture(scope="module")
def looked_around(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished walk whose cache was in memory as a whole."""
    folder = tmp_path_factory.mktemp("looked") / "world"
    start(photo, folder, *LOOK_AROUND)
    return folder


def test_paged_exploration_equals_one_in_memory(
    photo: Path, looked_around: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = [], Scratch.write

    def counted(self: Scratch, number: int, columns: list[torch.Tensor]) -> object:
        written.append(number)
        return real(self, number, columns)

    monkeypatch.setattr(Scratch, "write", counted)
    start(photo, tmp_path / "paged", *LOOK_AROUND, PAGED)
    assert len(written) > 5
    assert same_bits(world_content(tmp_path / "paged"), world_content(looked_around))
    gc.collect()
    assert not list((tmp_path / "paged").glob("blocks-*"))


def test_full_disk_while_paging_keeps_committed_chunks(
    photo: Path, looked_around: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "w"
    words = ["explore", f"image={photo}", f"out={out}", *WORDS, "generator=passthrough", *LOOK_AROUND, PAGED]
    real = Path.open

    def full(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if self.suffix == ".block" and mode == "wb" and (out / "cache" / "0001.safetensors").exists():
            raise OSError(28, "No space left on device")
        return real(self, mode, *rest, **more)  # type: ignore[call-overload]  # passed on as given

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        assert main(words) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "every finished chunk is kept" in error
    assert len(WorldStore.load(out).chunks) == 2
    assert main(["explore", f"resume={out}", "viewer=none"]) == 0
    assert same_bits(world_content(out), world_content(looked_around))
