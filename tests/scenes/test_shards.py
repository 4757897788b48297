"""Clips on their way to another machine arrive as they were, as far as a network can tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from scenes.dataset.clips import write_clip, write_manifest
from scenes.dataset.shards import STEP, decode_depth, encode_depth, pack, unpack
from worldwarp.cli import main

FRAMES, HEIGHT, WIDTH = 3, 36, 60


def write_clips(data: Path, count: int) -> None:
    """Smooth pictures, no two alike, with some sky."""
    data.mkdir()
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    for index in range(count):
        waves = [np.sin(row / 9.0 + index) * np.cos(column / 7.0 + t + c) for t in range(FRAMES) for c in range(3)]
        rgb = (127.5 + 100.0 * np.array(waves)).astype(np.uint8).reshape(FRAMES, 3, HEIGHT, WIDTH)
        inverse = np.broadcast_to((row / HEIGHT) ** 2 / (1 + index), (FRAMES, 1, HEIGHT, WIDTH)).astype(np.float16)
        pose = np.eye(4, dtype=np.float32)[None].repeat(FRAMES, 0)
        pose[:, 0, 3] = 0.1 * np.arange(FRAMES) + index
        focal = np.full((FRAMES, 2), 40.0 + index, np.float32)
        arrays = {
            "rgb": rgb,
            "inverse_depth": inverse,
            "world_from_camera": pose,
            "focal_px": focal,
            "center_px": focal,
        }
        fields = {"index": index, "frames": FRAMES, "seed": 7, "scene": f"scene-{index}", "split": "train"}
        write_clip(data / f"clip_{index:05d}.safetensors", arrays, fields)
    write_manifest(data)


def test_clips_come_back_from_shards(tmp_path: Path) -> None:
    write_clips(tmp_path / "data", 5)
    shards = pack(tmp_path / "data", tmp_path / "shards", shard_mb=0.015)
    assert len(shards) > 1
    manifest = unpack(tmp_path / "shards", tmp_path / "back")
    assert json.loads(manifest.read_text()) == json.loads((tmp_path / "data" / "manifest.json").read_text())
    for path in sorted((tmp_path / "data").glob("clip_*")):
        sent, came = load_file(path), load_file(tmp_path / "back" / path.name)
        assert sent.keys() == came.keys()
        for name in ("world_from_camera", "focal_px", "center_px"):
            np.testing.assert_array_equal(sent[name], came[name])
        error = sent["rgb"].astype(float) - came["rgb"]
        assert came["rgb"].dtype == np.uint8
        assert 10.0 * np.log10(255.0**2 / np.square(error).mean()) > 32.0
        assert ((sent["inverse_depth"] > 0) == (came["inverse_depth"] > 0)).all()
        assert came["inverse_depth"].dtype == np.float16
        np.testing.assert_allclose(came["inverse_depth"], sent["inverse_depth"], rtol=2e-3)


def test_shards_are_no_larger_than_asked_and_replace_older_ones(tmp_path: Path) -> None:
    write_clips(tmp_path / "data", 4)
    one_each = pack(tmp_path / "data", tmp_path / "shards", shard_mb=1e-6)
    assert len(one_each) == 4
    (whole,) = pack(tmp_path / "data", tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == [whole]
    size = whole.stat().st_size / 1e6
    assert all(path.stat().st_size / 1e6 < 0.7 * size for path in pack(tmp_path / "data", tmp_path / "s", 0.6 * size))


def test_existing_clips_are_not_unpacked_again(tmp_path: Path) -> None:
    write_clips(tmp_path / "data", 2)
    pack(tmp_path / "data", tmp_path / "shards")
    unpack(tmp_path / "shards", tmp_path / "back")
    (tmp_path / "back" / "clip_00000.safetensors").unlink()
    kept = (tmp_path / "back" / "clip_00001.safetensors").stat().st_mtime_ns
    unpack(tmp_path / "shards", tmp_path / "back")
    assert (tmp_path / "back" / "clip_00000.safetensors").is_file()
    assert (tmp_path / "back" / "clip_00001.safetensors").stat().st_mtime_ns == kept


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="folder of clips"):
        pack(tmp_path, tmp_path / "shards")
    with pytest.raises(ValueError, match="pack-data"):
        unpack(tmp_path, tmp_path / "back")
    write_clips(tmp_path / "data", 2)
    shards = pack(tmp_path / "data", tmp_path / "shards", shard_mb=1e-6)
    shards[1].write_bytes(shards[1].read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"shard_001.*damaged"):
        unpack(tmp_path / "shards", tmp_path / "back")
    assert (tmp_path / "back" / "clip_00000.safetensors").is_file()
    assert main(["unpack-data", f"shards={tmp_path / 'nothing'}", f"out={tmp_path / 'back'}"]) == 2
    assert "pack-data" in capsys.readouterr().err


def test_the_commands(tmp_path: Path) -> None:
    write_clips(tmp_path / "data", 2)
    assert main(["pack-data", f"data={tmp_path / 'data'}", f"out={tmp_path / 'shards'}"]) == 0
    assert main(["unpack-data", f"shards={tmp_path / 'shards'}", f"out={tmp_path / 'back'}"]) == 0
    assert len(list((tmp_path / "back").glob("clip_*"))) == 2


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-4, 1e3))
def test_depth_is_right_to_half_a_step(inverse: float) -> None:
    half = np.array([[inverse, 0.0]], np.float16)
    back = decode_depth(encode_depth(half))
    assert back[0, 1] == 0.0
    assert abs(float(back[0, 0]) / float(half[0, 0]) - 1.0) <= STEP / 2 + 2 * float(np.spacing(half[0, 0])) / float(
        half[0, 0]
    )
