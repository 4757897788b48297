"""A world on disk: what is written comes back to the bit, and no moment of dying breaks it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import zlib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from geometry.camera import Camera
from geometry.camera_io.nerfstudio import transforms_content
from geometry.frame import Chunk, Frame
from geometry.primitives import Change, Gaussians, Points
from geometry.rounding import rounded
from scenes.io.atomic_files import WorldError, fingerprint
from scenes.io.png import write_depth_png, write_rgb_png
from scenes.store import delta_log
from scenes.store.cameras_file import CamerasText
from scenes.store.manifest import manifest_text, read_manifest
from scenes.store.packed_tensors import open_tensors
from scenes.store.world_store import WorldStore
from tests.helpers import same_bits

SIZE = (16, 32)


def random_chunk(index: int, frames: int = 3, seed: int = 0, fov_deg: float = 60.0) -> Chunk:
    rng = torch.Generator().manual_seed(100 * seed + index)
    poses = torch.eye(4).repeat(frames, 1, 1)
    poses[:, :3, 3] = torch.rand(frames, 3, generator=rng)
    field = torch.rand(frames, 1, *SIZE, generator=rng)
    rgb = torch.randint(0, 256, (frames, 3, *SIZE), generator=rng).float() / 255.0
    camera = Camera.from_fov(fov_deg, SIZE, poses)
    return Chunk(Frame(rgb, field + 0.5, field > 0.1, field > 0.9, camera), index, index == 0, field)


def random_points(count: int, seed: int = 0) -> Points:
    rng = torch.Generator().manual_seed(seed)
    column = torch.rand(count, 8, generator=rng)
    flag = column[:, 7] > 0.5
    chunk = torch.zeros(count, dtype=torch.int32)
    positions, colors, normals, radii = (column[:, i].clone() for i in (slice(3), slice(3, 6), slice(1, 4), 6))
    return Points(positions, colors, normals, radii, chunk, flag, column[:, 5].clone(), ~flag)


def gaussians_of_points(count: int, seed: int = 0) -> Gaussians:
    p = random_points(count, seed)
    quats = torch.nn.functional.normalize(torch.cat([p.positions, p.radii[:, None]], 1), dim=1)
    rest = (p.confidence, p.colors, p.chunk, p.observed, p.confidence, p.sky, 9.0 * p.radii)
    return Gaussians(p.positions, quats, p.normals + 0.1, *rest)


def make_world(folder: Path) -> WorldStore:
    path = Camera.from_fov(60.0, SIZE, torch.eye(4).repeat(9, 1, 1))
    return WorldStore.create(folder, path=path, seed=7, config={"path": "orbit", "size": [16, 32]})


def added(primitives: Points | Gaussians, first: int) -> Change:
    """The change that adds the primitives from ``first`` on."""
    none = torch.zeros(0, dtype=torch.int64)
    return Change(len(primitives), torch.arange(first, len(primitives)), primitives[first:], none)


def add(world: WorldStore, index: int, primitives: Points | Gaussians | None = None, fov_deg: float = 60.0) -> None:
    rng = torch.Generator().manual_seed(index)
    if primitives is None:
        change = added(random_points(10 + 5 * index), world.chunks[-1].primitives if world.chunks else 0)
    else:
        change = Change.from_nothing(primitives)
    world.append(
        random_chunk(index, 1 if index == 0 else 3, fov_deg=fov_deg),
        change=change,
        rng_state=rng.get_state(),
        gauges={"hole_ratio": 0.25},
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_state(world: WorldStore, chunks: int) -> None:
    """A loaded world holds exactly its first ``chunks`` chunks."""
    assert len(world.chunks) == chunks
    for index in range(chunks):
        assert same_bits(world.chunk(index), random_chunk(index, 1 if index == 0 else 3))
    if chunks:
        assert same_bits(world.primitives, random_points(10 + 5 * (chunks - 1)))
        assert torch.equal(world.rng_state, torch.Generator().manual_seed(chunks - 1).get_state())


def test_world_round_trips_exactly(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    check_state(WorldStore.load(tmp_path / "w"), 0)
    for index in range(3):
        add(world, index)
    loaded = WorldStore.load(tmp_path / "w")
    check_state(loaded, 3)
    assert len(loaded) == len(world) == 7
    assert same_bits(loaded.path, world.path)
    assert same_bits(loaded.cameras, world.cameras)
    assert loaded.config == {"path": "orbit", "size": [16, 32]}
    assert (loaded.manifest.seed, loaded.manifest.size, loaded.manifest.metric) == (7, SIZE, False)
    assert loaded.chunks[1].gauges == {"hole_ratio": 0.25}
    assert (loaded.chunks[2].first_frame, loaded.chunks[2].frames, loaded.chunks[2].primitives) == (4, 3, 20)
    rng = torch.Generator()
    rng.set_state(loaded.rng_state)  # as a resumed walk uses it


def test_ranges_of_frames_cross_chunks(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    for index in range(3):
        add(world, index)
    everything = world.frames()
    assert len(everything) == 7
    assert same_bits(world.frames(0, 2), everything[0:2])
    assert same_bits(world.frames(3, 5), everything[3:5])
    for first, last in ((0, 8), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match="within the 7 finished frames"):
            world.frames(first, last)


def test_resumed_world_equals_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = make_world(tmp_path / "whole"), make_world(tmp_path / "parts")
    for index in range(4):
        add(whole, index)
        add(parts, index)
        parts = WorldStore.load(tmp_path / "parts")
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


def test_cameras_file_is_a_nerfstudio_dataset(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    add(world, 0)
    add(world, 1)
    content = json.loads((tmp_path / "w" / "cameras.json").read_text())
    assert (content["w"], content["h"]) == (32, 16)
    assert content["fl_x"] == pytest.approx(float(world.cameras.focal_px[0, 0]))
    assert (content["cx"], content["cy"]) == (16.0, 8.0)
    frame = content["frames"][2]
    assert frame["file_path"] == "frames/00002.webp"
    assert (tmp_path / "w" / frame["file_path"]).is_file()
    matrix = torch.tensor(frame["transform_matrix"])
    assert torch.allclose(matrix[:3, 3], world.cameras.position[2])
    assert torch.allclose(matrix[:3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])))  # OpenGL axes
    assert content["worldwarp"]["chunk"] == [0, 1, 1, 1]
    assert torch.equal(torch.tensor(content["worldwarp"]["world_from_camera"]), world.cameras.world_from_camera)


def test_cameras_file_holds_changing_intrinsics(tmp_path: Path) -> None:
    def check(world: WorldStore) -> None:
        content = json.loads((tmp_path / "w" / "cameras.json").read_text())
        expected = transforms_content(world.cameras, [f"frames/{i:05d}.webp" for i in range(len(world))])
        ours = content.pop("worldwarp")
        assert content == expected
        assert torch.equal(torch.tensor(ours["world_from_camera"]), world.cameras.world_from_camera)
        WorldStore.load(tmp_path / "w")

    world = make_world(tmp_path / "w")
    for index, fov_deg in enumerate((60.0, 60.0, 50.0)):
        add(world, index, fov_deg=fov_deg)
        check(world)
    world.undo()
    check(world)
    add(world, 2, fov_deg=60.0)
    check(world)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(0, 20), st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)))
def test_changes_replay_exactly(before: int, more: int, changed: set[int], removed: set[int]) -> None:
    old, new, total = random_points(before), random_points(before + more), before + more
    for i in changed:
        if i < total:
            new.positions[i] = torch.tensor([float("nan"), -0.0, 1.0])
    gone = sorted(i for i in removed if i < total)
    put = [i for i in range(total) if (i in changed or i >= before) and i not in gone]
    index = torch.tensor(put, dtype=torch.int64)
    change = Change(total, index, new[index], torch.tensor(gone, dtype=torch.int64))
    replayed = delta_log.replay([Change.from_nothing(old), change], total)
    left = [i for i in range(total) if i not in gone]
    for f in fields(Points):
        assert getattr(replayed, f.name).numpy().tobytes() == getattr(new, f.name)[left].numpy().tobytes()


def test_inconsistent_changes_are_refused() -> None:
    points, none = random_points(4), torch.zeros(0, dtype=torch.int64)
    first = Change.from_nothing(points)
    for total, index, removed in ((4, [0, 9], []), (6, [4], []), (3, [-1], []), (4, [1, 0], []), (4, [], [4])):
        rows = points[: len(index)]
        change = Change(total, torch.tensor(index, dtype=torch.int64), rows, torch.tensor(removed, dtype=torch.int64))
        with pytest.raises(WorldError, match="does not fit"):
            delta_log.replay([first, change], max(total, 4))
    without = Change(4, none, points[:0], torch.tensor([2]))
    again = Change(4, torch.tensor([2]), points[2:3], none)
    with pytest.raises(WorldError, match="does not fit"):
        delta_log.replay([first, without, again], 4)
    with pytest.raises(WorldError, match="Points follows Gaussians"):
        delta_log.replay([Change.from_nothing(gaussians_of_points(4)), Change(4, none, points[:0], none)], 4)


def test_gaussians_of_older_worlds_have_zero_updates(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    delta_log.write_change(new, Change.from_nothing(gaussians_of_points(5)[torch.arange(5)]))
    with open_tensors(new) as file:
        tensors = {name: file.get(name) for name in file.names - {"looks"}}
    save_file(tensors, old, {"kind": "Gaussians"})
    rows, known = delta_log.read_change(old).rows, delta_log.read_change(new).rows
    assert isinstance(rows, Gaussians)
    assert isinstance(known, Gaussians)
    assert (rows.n_updates == 0).all()
    for f in fields(Gaussians)[:-1]:
        assert torch.equal(getattr(rows, f.name), getattr(known, f.name))
    assert (known.n_updates > 0).all()
    save_file({name: column for name, column in tensors.items() if name != "quats"}, old, {"kind": "Gaussians"})
    with pytest.raises(WorldError, match="want Points or Gaussians"):
        delta_log.read_change(old)


def as_older(folder: Path, version: int) -> None:
    """Make of a world what an earlier program wrote: PNG frames and depth images; before version 3 plain tensors."""
    world, manifest = WorldStore.load(folder), read_manifest(folder / "world.json")
    names = {record.index: set(record.files) for record in manifest.chunks}
    chunks = [world.chunk(record.index) for record in manifest.chunks]
    (folder / "depth").mkdir()
    for record in manifest.chunks:
        frames = chunks[record.index].frames
        for k in range(record.frames):
            i = record.first_frame + k
            write_rgb_png(folder / "frames" / f"{i:05d}.png", frames.rgb[k])
            write_depth_png(folder / "depth" / f"{i:05d}.png", frames.depth[k], frames.surface[k])
            (folder / "frames" / f"{i:05d}.webp").unlink()
            names[record.index] -= {f"frames/{i:05d}.webp"}
            names[record.index] |= {f"frames/{i:05d}.png", f"depth/{i:05d}.png"}
    shared = [*manifest.files]
    for name in [name for name in manifest.all_files() if name.endswith(".safetensors")]:
        with open_tensors(folder / name) as file:
            tensors, kind = {key: file.get(key) for key in file.names}, file.kind
        if "confidence" in tensors and name.startswith("chunks/"):
            tensors["confidence"] = chunks[int(Path(name).stem)].confidence
        (folder / name).write_bytes(save_shuffled(tensors, kind))
        if version < 3:
            save_file(tensors, folder / name, {"kind": kind} if kind else None)
    if version < 3:
        (folder / "memory").mkdir()
        save_file({"keys": torch.zeros(2, 3)}, folder / "memory" / "0001.safetensors")
        shared.append("memory/0001.safetensors")
    records = [
        replace(record, files={name: fingerprint(folder / name) for name in sorted(names[record.index])})
        for record in manifest.chunks
    ]
    older = replace(manifest, files={n: fingerprint(folder / n) for n in shared}, chunks=tuple(records))
    text = CamerasText().after(older.chunks, world.cameras, metric=older.metric)
    (folder / "cameras.json").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scenes.store.manifest.VERSION", version)
        (folder / "world.json").write_text(manifest_text(older))


def save_shuffled(tensors: dict[str, torch.Tensor], kind: str | None) -> bytes:
    """A file of version 3: bytes shuffled and deflated, without differences."""
    layout, content = {}, {}
    for name, tensor in tensors.items():
        numbers = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().reshape(-1, tensor.element_size())
        layout[name] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        content[name] = torch.frombuffer(bytearray(zlib.compress(numbers.T.tobytes(), 1)), dtype=torch.uint8)
    return save(content, {"packed": json.dumps({"kind": kind, "tensors": layout})})


@pytest.mark.parametrize("version", [2, 3])
def test_worlds_of_older_versions_open_branch_and_continue(tmp_path: Path, version: int) -> None:
    folder = finished(tmp_path / "w")
    as_older(folder, version)
    world = WorldStore.load(folder)
    check_state(world, 2)
    branch = world.branch(tmp_path / "b", 1)
    check_state(WorldStore.load(branch.folder), 2)
    assert not (branch.folder / "memory").exists()
    for older in (branch, world):
        add(older, 2)
        again = WorldStore.load(older.folder)
        check_state(again, 3)
        content = json.loads((older.folder / "cameras.json").read_text())["frames"]
        assert [Path(frame["file_path"]).suffix for frame in content] == 4 * [".png"] + 3 * [".webp"]
        assert ["depth_file_path" in frame for frame in content] == 4 * [True] + 3 * [False]
    add(world, 3)
    assert not (folder / "memory").exists() or not list((folder / "memory").iterdir())  # no longer of use
    assert len(list((folder / "depth").iterdir())) == 4


def test_rounded_chunks_take_less_and_come_back_exactly(tmp_path: Path) -> None:
    def smooth(index: int) -> Chunk:
        chunk = random_chunk(index, 1 if index == 0 else 3)
        ramp = torch.linspace(1.0, 3.0, chunk.frames.depth.numel()).reshape(chunk.frames.depth.shape)
        return replace(chunk, frames=replace(chunk.frames, depth=ramp * 0.777))

    sizes = []
    for name, change in (("exact", lambda chunk: chunk), ("rounded", rounded)):
        world = make_world(tmp_path / name)
        chunk = change(smooth(0))
        none = Change.from_nothing(random_points(4))
        world.append(chunk, change=none, rng_state=torch.Generator().get_state())
        assert same_bits(WorldStore.load(tmp_path / name).chunk(0), chunk)
        sizes.append((tmp_path / name / "chunks" / "0000.safetensors").stat().st_size)
    assert sizes[1] < sizes[0]


class Killed(BaseException):
    """The process dies here."""


def die_at(monkeypatch: pytest.MonkeyPatch, target: str, call: int) -> list[int]:
    """Let the ``call``-th call of an ``os`` function kill the process; returns a counter."""
    real, count = getattr(os, target), [0]

    def dying(*args: object) -> object:
        count[0] += 1
        if count[0] == call:
            raise Killed
        return real(*args)

    monkeypatch.setattr(os, target, dying)
    return count


def keep_partial_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process does not clean up after itself."""
    real = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.suffix != ".partial":
            real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)


@pytest.mark.parametrize("target", ["replace", "fsync"])
def test_kill_at_any_write_of_a_chunk_keeps_committed_chunks(tmp_path: Path, target: str) -> None:
    reference = make_world(tmp_path / "reference")
    for index in range(3):
        add(reference, index)
    wanted, seen, call = contents(tmp_path / "reference"), set(), 0
    two_chunks = finished(tmp_path / "two_chunks")
    while True:
        call += 1
        folder = shutil.copytree(two_chunks, tmp_path / f"{target}{call}")
        world = WorldStore.load(folder)
        with pytest.MonkeyPatch.context() as patch:
            keep_partial_files(patch)
            count = die_at(patch, target, call)
            with contextlib.suppress(Killed):
                add(world, 2)
        resumed = WorldStore.load(folder)
        check_state(resumed, len(resumed.chunks))
        seen.add(len(resumed.chunks))
        if len(resumed.chunks) == 2:
            add(resumed, 2)  # leftovers are cleaned up and the same bits appear
            assert contents(folder) == wanted
        if count[0] < call:
            break
    assert seen == {2, 3}
    assert call > 6  # three frames, two files of tensors, the manifest and the cameras


@pytest.mark.parametrize("call", [1, 2])
def test_kill_during_create_leaves_an_openable_or_vacant_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    with monkeypatch.context() as patch:
        die_at(patch, "replace", call)
        with pytest.raises(Killed):
            make_world(tmp_path / "w")
    with pytest.raises(WorldError, match=r"world\.json: missing"):
        WorldStore.load(tmp_path / "w")
    make_world(tmp_path / "w")  # may simply be tried again
    check_state(WorldStore.load(tmp_path / "w"), 0)


def onward(world: WorldStore) -> Camera:
    turned = torch.eye(4).repeat(3, 1, 1)
    turned[:, 2, 3] = torch.tensor([1.0, 2.0, 3.0])
    return Camera.concatenate([world.cameras, Camera.from_fov(60.0, SIZE, turned)])


@pytest.mark.parametrize("target", ["replace", "fsync", "unlink"])
def test_kill_during_redirect_keeps_old_or_new_path(tmp_path: Path, target: str) -> None:
    before, call, seen = finished(tmp_path / "world"), 0, set()
    while True:
        call += 1
        world = WorldStore.load(shutil.copytree(before, tmp_path / f"{target}{call}"))
        old, new = world.path, onward(world)
        with pytest.MonkeyPatch.context() as patch:
            keep_partial_files(patch)
            count = die_at(patch, target, call)
            with contextlib.suppress(Killed):
                world.redirect(new, {"path": "back"})
        resumed = WorldStore.load(world.folder)
        turned = resumed.config["path"] == "back"
        assert same_bits(resumed.path, new if turned else old)
        seen.add(turned)
        add(resumed, 2)
        assert len(list(world.folder.glob("path-*"))) == 1
        if count[0] < call:
            break
    assert True in seen


def test_path_without_the_finished_cameras_is_refused(tmp_path: Path) -> None:
    world = WorldStore.load(finished(tmp_path / "w"))
    with pytest.raises(ValueError, match="begins with the 4 finished cameras"):
        world.redirect(onward(world)[1:], {})
    with pytest.raises(ValueError, match="begins with"):
        world.redirect(world.cameras[:2], {})


def test_full_disk_keeps_committed_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path / "w")
    add(world, 0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WorldError, match=r"cannot store chunk 1 .* the disk is full.*every earlier chunk is kept"):
            add(world, 1)
    check_state(WorldStore.load(tmp_path / "w"), 1)
    assert not list((tmp_path / "w").rglob("*.partial"))
    add(world, 1)  # after the user has made room
    check_state(WorldStore.load(tmp_path / "w"), 2)


def test_create_refuses_nonempty_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorldError, match="is a file"):
        make_world(tmp_path / "file")
    with pytest.raises(WorldError, match="not empty; choose another folder, or continue it with resume="):
        make_world(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(WorldError, match="cannot write"):
        make_world(tmp_path / "file" / "below")
    (tmp_path / "empty").mkdir()
    make_world(tmp_path / "empty")


def test_create_reports_missing_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(WorldError, match="permission denied; choose a folder that you may write to"):
        make_world(tmp_path / "w")


def test_config_must_be_plain(tmp_path: Path) -> None:
    path = Camera.from_fov(60.0, SIZE, torch.eye(4)[None])
    for value in (float("nan"), object()):
        with pytest.raises(WorldError, match="plain JSON"):
            WorldStore.create(tmp_path / "w", path=path, seed=0, config={"a": value})
    assert not (tmp_path / "w").exists()


def test_photo_keeps_its_resolution(tmp_path: Path) -> None:
    world, fine = make_world(tmp_path / "w"), torch.randint(0, 256, (3, 40, 80)).float() / 255.0
    rest = {"change": added(random_points(15), 0), "rng_state": torch.Generator().get_state()}
    world.append(random_chunk(0, 1), photo=fine, **rest)
    add(world, 1)
    assert torch.equal(WorldStore.load(tmp_path / "w").photo, fine)
    assert torch.equal(world.branch(tmp_path / "b", 0).photo, fine)
    world.undo()
    assert torch.equal(WorldStore.load(tmp_path / "w").photo, fine)
    (tmp_path / "w" / "photo.png").unlink()
    with pytest.raises(WorldError, match=r"photo.png: missing"):
        WorldStore.load(tmp_path / "w")
    assert WorldStore.load(tmp_path / "b").photo.shape == (3, 40, 80)


def test_photo_falls_back_to_the_first_frame(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    add(world, 0)
    assert torch.equal(world.photo, random_chunk(0, 1).frames.rgb[0])


def test_append_refuses_a_chunk_that_does_not_follow(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    with pytest.raises(ValueError, match=r"chunk.index: want 0, the next one, got 1"):
        add(world, 1)
    add(world, 0)
    chunk = random_chunk(1)
    small = Camera.from_fov(60.0, (8, 16), torch.eye(4)[None])
    frame = Frame(*(torch.zeros(1, c, 8, 16) for c in (3, 1)), *(2 * [torch.ones(1, 1, 8, 16).bool()]), small)  # type: ignore[arg-type]  # fields in a row
    rest = {"change": added(random_points(15), 10), "rng_state": torch.Generator().get_state()}
    with pytest.raises(ValueError, match=r"want frames of \(16, 32\), got \(8, 16\)"):
        world.append(Chunk(frame, 1, False, torch.zeros(1, 1, 8, 16)), **rest)
    f = chunk.frames
    with pytest.raises(ValueError, match="metric"):
        world.append(Chunk(Frame(f.rgb, f.depth, f.valid, f.sky, f.camera, True), 1, False, chunk.confidence), **rest)
    loose = Frame(f.rgb * 0.999, f.depth, f.valid, f.sky, f.camera)
    with pytest.raises(ValueError, match="8-bit grid"):
        world.append(Chunk(loose, 1, False, chunk.confidence), **rest)
    check_state(WorldStore.load(tmp_path / "w"), 1)


def test_metric_that_is_not_finite_is_stored_as_none(tmp_path: Path) -> None:
    world, state = make_world(tmp_path / "w"), torch.Generator().get_state()
    gauges = {"psnr": float("inf"), "residual": float("nan"), "hole_ratio": 0.5}
    world.append(random_chunk(0), change=added(random_points(3), 0), rng_state=state, gauges=gauges)
    assert WorldStore.load(tmp_path / "w").chunks[0].gauges == {"psnr": None, "residual": None, "hole_ratio": 0.5}


def test_second_writer_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    add(world, 0)
    other = WorldStore.load(tmp_path / "w")
    add(other, 1)
    with pytest.raises(WorldError, match="another program has written"):
        add(world, 1)
    check_state(WorldStore.load(tmp_path / "w"), 2)


def finished(folder: Path) -> Path:
    world = make_world(folder)
    add(world, 0)
    add(world, 1)
    return folder


def test_every_truncated_or_changed_file_is_named(tmp_path: Path) -> None:
    folder = finished(tmp_path / "w")
    for name, content in contents(folder).items():
        path = folder / name
        path.write_bytes(content[:-3])
        with pytest.raises(WorldError, match=name.replace(".", r"\.")):
            WorldStore.load(folder)
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(WorldError, match=name.replace(".", r"\.")):
            WorldStore.load(folder)
        if name != "cameras.json":
            path.unlink()
            with pytest.raises(WorldError, match=name.replace(".", r"\.") + ": missing"):
                WorldStore.load(folder)
        path.write_bytes(content)
    check_state(WorldStore.load(folder), 2)


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "w")
    text = (folder / "world.json").read_text()
    (folder / "world.json").write_text(text.replace('"seed":7', '"seed":8'))
    with pytest.raises(WorldError, match="changed after it was written"):
        WorldStore.load(folder)
    (folder / "world.json").write_text("[]")
    with pytest.raises(WorldError, match="not the folder of a world"):
        WorldStore.load(folder)
    (folder / "world.json").write_text(text)
    assert manifest_text(read_manifest(folder / "world.json")) == text


def test_a_manifest_without_a_path_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "w")
    manifest = replace(read_manifest(folder / "world.json"), files={})
    (folder / "world.json").write_text(manifest_text(manifest))
    with pytest.raises(WorldError, match="want one planned path, got none"):
        WorldStore.load(folder)


def test_manifest_may_not_name_files_outside_the_folder(tmp_path: Path) -> None:
    folder = finished(tmp_path / "w")
    manifest = read_manifest(folder / "world.json")
    manifest.files["../../secret"] = {"bytes": 1, "sha256": ""}
    (folder / "world.json").write_text(manifest_text(manifest))
    with pytest.raises(WorldError, match="outside the folder"):
        WorldStore.load(folder)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "w")
    content = json.loads((folder / "world.json").read_text())
    content["version"], content["created_by"] = 5, "5.1.0"
    (folder / "world.json").write_text(json.dumps(content))
    with pytest.raises(
        WorldError, match=r"of version 5 \(made by worldwarp 5.1.0\), but this program reads versions 1 to 4"
    ):
        WorldStore.load(folder)


def test_folder_without_a_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="no such folder"):
        WorldStore.load(tmp_path / "none")
    with pytest.raises(WorldError, match=r"world.json: missing"):
        WorldStore.load(tmp_path)


def test_world_without_chunks_has_no_primitives(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    for name in ("primitives", "rng_state"):
        with pytest.raises(WorldError, match="no chunk is finished yet"):
            getattr(world, name)


def test_branches_share_chunks_and_change_independently(tmp_path: Path) -> None:
    folder = finished(tmp_path / "w")
    world = WorldStore.load(folder)
    add(world, 2)
    before = contents(folder)
    branch = world.branch(tmp_path / "b", chunk=1)
    assert len(branch) == len(WorldStore.load(tmp_path / "b")) == 4
    assert same_bits(branch.primitives, random_points(15))
    add(branch, 2, random_points(40, seed=9))
    assert same_bits(WorldStore.load(tmp_path / "b").primitives, random_points(40, seed=9))
    assert contents(folder) == before
    last = world.branch(tmp_path / "c", chunk=2)
    assert contents(tmp_path / "c") == before
    check_state(last, 3)
    with pytest.raises(ValueError, match="one of the 3 finished chunks, got 3"):
        world.branch(tmp_path / "d", chunk=3)


def test_cost_of_a_chunk_does_not_grow_with_the_world(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w")
    for index in range(12):
        add(world, index)
    sizes = [sum(int(mark["bytes"]) for mark in chunk.files.values()) for chunk in world.chunks[1:]]
    assert max(sizes) < 1.02 * min(sizes)
