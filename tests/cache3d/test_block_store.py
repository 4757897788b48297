"""The world in blocks: what is on disk changes no bit of what is shown, and a disk that fails is named."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache3d.cache import Integration, WorldCache
from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from cache3d.store import grid as cells
from cache3d.store.block_files import PagingError, Scratch, Stored, read_block
from cache3d.store.block_store import BlockStore
from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.primitives import Change, Points
from tests.helpers import same_bits

Cache = TypeVar("Cache", bound=WorldCache)
SIZE = (24, 40)


class QuickCache(GaussianCache):
    """Optimized little, which is quicker and moves Gaussians all the same."""

    def __init__(self, resident_mib: float | int = 2048) -> None:
        super().__init__(refine_steps=2, resident_mib=resident_mib)


CACHES = [QuickCache, PointCache]
STEPS = 12
TINY = 0.15  # MiB: about what one of these views needs


def corridor(position: float, count: int = 2) -> Camera:
    """Cameras that look at a long wall from the side, moving along it."""
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = position + 0.4 * torch.arange(count)
    return Camera.from_fov(60.0, SIZE, poses)


def wavy_chunk(camera: Camera, index: int, *, observed: bool = False) -> Chunk:
    """A wavy wall with a strip of sky above it; colors follow the place."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    place = camera.position[:, 0, None, None] + (columns - SIZE[1] / 2) / camera.focal_px[0, 0]
    depth = 1.2 + 0.3 * torch.sin(3.0 * place)
    sky = torch.zeros(len(camera), 1, *SIZE, dtype=torch.bool)
    sky[..., :5, :] = True
    depth = torch.where(sky, torch.full_like(depth[:, None], 1000.0), depth[:, None])
    wave = torch.stack([torch.sin(k * place + 0.1 * rows) for k in (2, 5, 9)], dim=1)
    frame = Frame(0.5 + 0.4 * wave, depth, torch.ones_like(sky), sky, camera)
    confidence = torch.full_like(depth, 1.0 if observed else 0.5 + 0.02 * index)
    return Chunk(frame, index, observed, confidence)


def walk(cache: WorldCache, steps: int = STEPS) -> list[Integration]:
    """Along the wall and back."""
    places = [0.8 * min(k, steps - k) for k in range(steps)]
    made = []
    for k, place in enumerate(places):
        made.append(cache.integrate(wavy_chunk(corridor(place), k, observed=k == 0)))
        if k + 1 < steps:
            cache.prefetch(corridor(places[k + 1]))
    return made


@functools.cache
def walked(make: Callable[[], WorldCache], steps: int = STEPS) -> list[Integration]:
    """The changes of a walk, made once."""
    return walk(make(), steps)


def replayed(cache: Cache, steps: int = STEPS) -> Cache:
    """The cache, told of the changes of a walk."""
    for made in walked(type(cache), steps):
        cache.apply(made.change)
    return cache


def block_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.block"))


@pytest.mark.parametrize("make", CACHES)
def test_paging_changes_no_bit(make: type[GaussianCache], tmp_path: Path) -> None:
    whole, paged = replayed(make()), make(resident_mib=TINY)
    paged.page_to(tmp_path)
    for a, b in zip(walked(make), walk(paged), strict=True):
        assert a == b
        assert same_bits(a.change.rows, b.change.rows)
        assert torch.equal(a.change.index, b.change.index)
    assert len(block_files(tmp_path)) > 5
    assert paged._store.resident_bytes < 0.7 * whole._store.resident_bytes
    for place in (0.0, 4.4, 2.0):
        assert same_bits(whole.render(corridor(place)), paged.render(corridor(place)))
    assert same_bits(whole.snapshot(), paged.snapshot())


@pytest.mark.parametrize("make", CACHES)
def test_cell_size_changes_no_bit(make: type[GaussianCache], monkeypatch: pytest.MonkeyPatch) -> None:
    fine, coarse = replayed(make()), make()
    monkeypatch.setattr(cells, "CELL_BITS", 40)  # all in one cell
    walk(coarse)
    assert same_bits(fine.snapshot(), coarse.snapshot())
    for place in (0.0, 4.4, 2.0):
        assert same_bits(fine.render(corridor(place)), coarse.render(corridor(place)))


@pytest.mark.parametrize("make", CACHES)
def test_applied_changes_render_the_same_bits(make: type[GaussianCache], tmp_path: Path) -> None:
    cache, again = make(), make(resident_mib=TINY)
    again.page_to(tmp_path)
    walk(cache)
    replayed(again)
    assert len(cache) == len(again)
    assert same_bits(cache.snapshot(), again.snapshot())
    later = wavy_chunk(corridor(5.2), STEPS)
    assert cache.integrate(later) == again.integrate(later)
    assert same_bits(cache.render(corridor(5.0)), again.render(corridor(5.0)))


@pytest.mark.parametrize("make", CACHES)
def test_a_change_lists_added_changed_and_removed_ids(make: type[GaussianCache]) -> None:
    cache = make()
    first, second = cache.integrate(wavy_chunk(corridor(0.0), 0)), cache.integrate(wavy_chunk(corridor(0.4), 1))
    assert first.change.total == first.added == len(first.change.index)
    old = second.change.index < second.first
    assert second.refined > 0
    assert 0 < int(old.sum()) <= second.refined
    assert int((~old).sum()) == second.added
    assert len(cache.integrate(wavy_chunk(corridor(0.0), 2, observed=False)).change.removed) == 0
    assert len(second.change.index) < second.total


def test_integration_loads_only_nearby_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = replayed(PointCache(), 40)
    store, seen = cache._store, set()
    load = store._memory.load

    def watched(number: int) -> object:
        seen.add(number)
        return load(number)

    monkeypatch.setattr(store._memory, "load", watched)
    cache.integrate(wavy_chunk(corridor(8.0), 40))
    assert 0 < len(seen) < len(store._memory.blocks) / 3


def test_prefetched_blocks_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PointCache(resident_mib=TINY)
    cache.page_to(tmp_path)
    walk(cache)
    expected = cache.render(corridor(0.0)).rgb
    cache.render(corridor(4.4))
    cache.prefetch(corridor(0.0))
    coming = [block.loading for block in cache._store._memory.blocks if block.loading is not None]
    assert coming
    for future in coming:
        future.result()

    def never(*_: object) -> object:
        raise AssertionError("read while someone waits")

    monkeypatch.setattr("cache3d.store.pager.read_block", never)
    assert torch.equal(cache.render(corridor(0.0)).rgb, expected)


def test_prefetch_respects_the_memory_bound(tmp_path: Path) -> None:
    cache = PointCache(resident_mib=TINY)
    cache.page_to(tmp_path)
    replayed(cache, 40)
    cache.prefetch(Camera.from_fov(150.0, SIZE, corridor(8.0).world_from_camera))
    memory = cache._store._memory
    assert memory.resident_bytes - memory.blocks[0].count * memory._row_bytes <= TINY * 2**20


@pytest.mark.parametrize("make", CACHES)
def test_removed_rows_are_gone_and_others_stay(make: type[GaussianCache]) -> None:
    cache, again = replayed(make()), replayed(make(resident_mib=TINY))
    store = cache._store
    every_third = torch.arange(0, len(store.near(corridor(2.0)).ids), 3)
    gone = store.near(corridor(2.0)).ids[every_third]
    names = torch.from_numpy(np.flatnonzero(store._home[: store.total] >= 0))  # integration has taken some away already
    before = cache.snapshot()
    with store.edit(corridor(2.0)) as edit:
        edit.removed = torch.cat([every_third, every_third[:5]])
    change = store.take_change()
    assert torch.equal(change.removed, gone)
    assert len(change.index) == 0
    assert same_bits(cache.snapshot(), before[~torch.isin(names, gone)])
    again.apply(change)
    assert same_bits(cache.snapshot(), again.snapshot())
    assert same_bits(cache.render(corridor(2.0)), again.render(corridor(2.0)))
    later = wavy_chunk(corridor(2.0), STEPS)
    assert cache.integrate(later) == again.integrate(later)


def test_moved_rows_are_found_at_their_new_place(tmp_path: Path) -> None:
    """Geometry may change a little; whatever it does, what a camera sees is never left out."""
    cache, again = replayed(QuickCache()), QuickCache(resident_mib=TINY)
    again.page_to(tmp_path)
    replayed(again)
    far = corridor(60.0)
    with cache._store.edit(corridor(2.0)) as edit:
        rows, edit.written = edit.view.rows, torch.nonzero(~edit.view.rows.sky)[:, 0]
        rows.means[edit.written] += torch.tensor([58.0, 0.0, 0.0])
        rows.scales[edit.written] *= 1.1
    names = edit.view.ids[edit.written]
    seen = cache._store.near(far)
    assert torch.isin(names, seen.ids).all()
    again.apply(cache._store.take_change())
    assert same_bits(cache.snapshot(), again.snapshot())
    assert same_bits(cache.render(far), again.render(far))


def test_an_edit_that_raises_changes_nothing() -> None:
    cache, again = replayed(QuickCache()), replayed(QuickCache())

    def fails() -> None:
        with cache._store.edit(corridor(2.0)) as edit:
            edit.view.rows.colors.zero_()
            edit.written = edit.removed = torch.arange(len(edit.view.ids))
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fails()
    assert same_bits(cache.snapshot(), again.snapshot())
    assert same_bits(cache.render(corridor(2.0)), again.render(corridor(2.0)))


def test_an_edit_of_an_older_view_is_seen_in_the_next_one() -> None:
    store = replayed(QuickCache())._store
    with store.edit(corridor(2.0)) as edit:
        edit.view.rows.colors.fill_(0.25)
        edit.written = torch.arange(len(edit.view.ids))
        store.near(corridor(4.4))  # the kept view is another one now
    assert (store.near(corridor(2.0)).rows.colors == 0.25).sum() == 3 * len(edit.view.ids)


def test_new_blocks_join_the_kept_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a frame adds in new blocks is not gathered again for the next frame."""
    store = replayed(PointCache())._store
    far = corridor(60.0)
    before, blocks = store.near(corridor(2.0), far), len(store._memory.blocks)
    added = before.rows[~before.rows.sky]
    added.positions[:, 0] += 58.0
    store.append(added)
    assert len(store._memory.blocks) > blocks

    def never(_: int) -> object:
        raise AssertionError("gathered again")

    monkeypatch.setattr(store._memory, "load", never)
    joined = store.near(far)
    monkeypatch.undo()
    assert torch.equal(joined.ids[-len(added) :], torch.arange(store.total - len(added), store.total))
    assert same_bits(joined.rows[-len(added) :], added)


@pytest.mark.parametrize("make", CACHES)
def test_a_kept_view_changes_no_bit(make: type[GaussianCache], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept view may hold more than a camera sees: whoever takes it sees the same as in a view of its own."""
    kept, near = replayed(make()), BlockStore.near
    made = kept.integrate(wavy_chunk(corridor(5.2, 4), STEPS))
    guides = [kept.render(corridor(place)) for place in (0.0, 4.4, 5.6)]

    def gathered(store: BlockStore, *cameras: Camera) -> object:
        store._view = None
        return near(store, *cameras)

    monkeypatch.setattr(BlockStore, "near", gathered)
    anew = replayed(make())
    assert anew.integrate(wavy_chunk(corridor(5.2, 4), STEPS)) == made
    assert same_bits(anew.snapshot(), kept.snapshot())
    for place, guide in zip((0.0, 4.4, 5.6), guides, strict=True):
        assert same_bits(anew.render(corridor(place)), guide)


def paged_walk(folder: Path) -> PointCache:
    cache = PointCache(resident_mib=TINY)
    cache.page_to(folder)
    replayed(cache)
    cache.render(corridor(4.4))
    return cache


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_block_is_named_in_the_error(damage: str, tmp_path: Path) -> None:
    cache = paged_walk(tmp_path)
    store = cache._store
    number = next(n for n in store._numbers_in_view(corridor(0.0)) if store._memory.blocks[n].room is None)
    stored = store._memory.blocks[number].stored
    assert stored is not None
    content = stored.path.read_bytes()
    if damage == "missing":
        stored.path.unlink()
    else:
        stored.path.write_bytes(content[:-1] if damage == "truncated" else bytes([content[0] ^ 1]) + content[1:])
    cache.prefetch(corridor(0.0))  # ahead of time it is nobody's error
    for _ in range(2):
        with pytest.raises(PagingError, match=f"{number:06d}.block: block .*open the world again"):
            cache.render(corridor(0.0))
    assert cache.render(corridor(4.4)).coverage.mean() > 0.9
    stored.path.write_bytes(content)
    whole = replayed(PointCache())
    assert same_bits(cache.render(corridor(0.0)), whole.render(corridor(0.0)))


def test_a_block_without_rows_is_read_back(tmp_path: Path) -> None:
    columns = [torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3)]
    scratch = Scratch(tmp_path)  # its folder goes with it
    read = read_block(scratch.write(0, columns), columns)
    assert [(column.shape, column.dtype) for column in read] == [(column.shape, column.dtype) for column in columns]


def test_a_full_disk_raises_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PointCache(resident_mib=TINY)
    cache.page_to(tmp_path)
    real = Path.open

    def full(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if self.suffix == ".block" and mode == "wb":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *rest, **more)  # type: ignore[call-overload]  # passed on as given

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(PagingError, match=r"\.block: cannot be written \(No space left on device\); free some"):
            walk(cache)
    assert block_files(tmp_path) == []
    assert cache.render(corridor(0.0)).coverage.mean() > 0.9


def test_blocks_to_evict_next_are_written_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PointCache()
    cache.page_to(tmp_path)
    replayed(cache, 40)
    store = cache._store
    store._memory.limit_bytes = store.resident_bytes - 1
    writers: list[int] = []
    write = Scratch.write

    def noted(self: Scratch, number: int, columns: list[torch.Tensor]) -> Stored:
        writers.append(threading.get_ident())
        return write(self, number, columns)

    monkeypatch.setattr(Scratch, "write", noted)
    whole = replayed(PointCache(), 40)
    cache.prefetch(corridor(14.0))
    saving = [block.saving for block in store._memory.blocks if block.saving is not None]
    assert saving
    wait(saving)
    store._memory.make_room(set(), 1)
    assert writers
    assert threading.get_ident() not in writers
    # What is written while it changes is written again.
    cache.prefetch(corridor(14.0))
    for made in (cache, whole):
        made.integrate(wavy_chunk(corridor(0.0), 40, observed=True))
    assert same_bits(cache.snapshot(), whole.snapshot())


def test_scratch_folders_of_ended_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "blocks-999999999-x").mkdir(parents=True)
    (tmp_path / "blocks-999999999-x" / "000001.block").write_bytes(b"left by a killed process")
    (tmp_path / f"blocks-{os.getppid()}-y").mkdir()
    (tmp_path / "blocks-mine").mkdir()
    cache = paged_walk(tmp_path)
    names = {path.name.rpartition("-")[0] for path in tmp_path.iterdir()}
    assert names == {f"blocks-{os.getpid()}", f"blocks-{os.getppid()}", "blocks"}
    del cache
    names = {path.name.rpartition("-")[0] for path in tmp_path.iterdir()}
    assert names == {f"blocks-{os.getppid()}", "blocks"}


def test_a_camera_inside_a_surface_renders() -> None:
    for cache in (GaussianCache(), PointCache()):
        replayed(cache)
        inside = corridor(1.0)
        inside.world_from_camera[:, 2, 3] = 1.2 + 0.3 * torch.sin(3.0 * inside.position[:, 0])
        guide = cache.render(inside)
        assert all(torch.isfinite(t).all() for t in (guide.rgb, guide.depth, guide.confidence))
        cache.integrate(wavy_chunk(inside, STEPS))


@pytest.mark.parametrize("make", CACHES)
def test_a_bound_must_be_positive(make: type[GaussianCache]) -> None:
    with pytest.raises(ValueError, match="resident_mib: want a positive number"):
        make(resident_mib=0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*(3 * [st.floats(-50, 50)])), min_size=1, max_size=30),
    st.floats(0.001, 5.0),
    st.tuples(*(3 * [st.floats(-20, 20)])),
    st.floats(-3.1, 3.1),
)
def test_no_visible_block_is_missed(
    places: list[tuple[float, float, float]], radius: float, eye: tuple[float, float, float], yaw: float
) -> None:
    """Whatever projects into the image is among the rows of a view, and rows come in the order of arrival."""
    count, turn = len(places), torch.tensor(yaw)
    positions, one = torch.tensor(places), torch.ones(count)
    store = BlockStore(points_at(positions[:0], one[:0]), 64)
    store.append(points_at(positions, radius * one))
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = torch.cos(turn)
    pose[0, 2], pose[2, 0] = torch.sin(turn), -torch.sin(turn)
    pose[:3, 3] = torch.tensor(eye)
    camera = Camera.from_fov(70.0, SIZE, pose)
    view = store.near(camera)
    assert torch.equal(view.rows.positions, positions[view.ids])
    assert (view.ids.diff() > 0).all()
    local = (positions - pose[:3, 3]) @ pose[:3, :3]
    pixel = local[:, :2] / local[:, 2:] * camera.focal_px + camera.center_px
    extent = torch.tensor([SIZE[1], SIZE[0]])
    visible = (local[:, 2] > 0.01) & ((pixel > 0) & (pixel < extent)).all(-1)
    assert set(torch.nonzero(visible)[:, 0].tolist()) <= set(view.ids.tolist())


def points_at(positions: torch.Tensor, radii: torch.Tensor) -> Points:
    flags = torch.zeros(len(radii), dtype=torch.bool)
    return Points(positions, positions.abs() % 1.0, positions, radii, flags.int(), flags, radii.clamp(max=1.0), flags)


def test_an_empty_change_changes_nothing() -> None:
    cache = PointCache()
    walk(cache, 3)
    before, none = cache.snapshot(), torch.zeros(0, dtype=torch.int64)
    cache.apply(Change(len(cache), none, before[:0], none))
    assert same_bits(cache.snapshot(), before)
    with pytest.raises(ValueError, match="want Gaussians, got Points"):
        GaussianCache().apply(Change.from_nothing(before))


@pytest.mark.parametrize("make", CACHES)
def test_combined_changes_equal_two_changes(make: type[GaussianCache]) -> None:
    cache, at_once, made = replayed(make()), make(), walked(make)
    assert any(len(step.change.removed) for step in made)
    for k in range(0, STEPS, 3):
        both = made[k].then(made[k + 1]).then(made[k + 2])
        assert both.added == sum(step.added for step in made[k : k + 3])
        assert both.first == made[k].first
        assert (both.change.index.diff() > 0).all()
        assert not torch.isin(both.change.index, both.change.removed).any()
        at_once.apply(both.change)
    assert same_bits(at_once.snapshot(), cache.snapshot())
    assert torch.equal(at_once.ids(), cache.ids())
