"""Compressed tensors come back to the bit, one by one, and plain files still open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from scenes.io.atomic_files import WorldError
from scenes.store.packed_tensors import open_tensors, packed

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int32, torch.int64, torch.uint8, torch.bool)


def read_all(path: Path) -> dict[str, torch.Tensor]:
    with open_tensors(path) as file:
        return {name: file.get(name) for name in file.names}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=4), st.sampled_from(DTYPES), st.integers(0, 99))
def test_tensors_round_trip_exactly(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], dtype: torch.dtype, seed: int
) -> None:
    bits = torch.randint(0, 256, (*shape, dtype.itemsize), generator=torch.Generator().manual_seed(seed))
    raw = bits.to(torch.uint8).flatten()
    tensor = (raw % 2 == 0 if dtype is torch.bool else raw.view(dtype)).reshape(shape)  # NaN and -0.0 included
    path = tmp_path_factory.mktemp("packed") / "a.safetensors"
    path.write_bytes(packed({"one": tensor, "two": tensor.flatten()}))
    again = read_all(path)
    assert (again["one"].dtype, again["one"].shape) == (dtype, tensor.shape)
    assert again["one"].flatten().view(torch.uint8).equal(tensor.flatten().view(torch.uint8))
    assert again["two"].shape == (tensor.numel(),)


def test_ramp_is_compressed_and_equal_tensors_give_equal_bytes() -> None:
    tensors = {name: torch.linspace(1.0, 2.0, 10_000) for name in "abcdef"}
    assert len(packed(tensors)) < 0.5 * 6 * 40_000
    assert packed(tensors, "Points") == packed(dict(reversed(tensors.items())), "Points")


def test_bytes_do_not_depend_on_memory_layout(tmp_path: Path) -> None:
    square = torch.arange(12.0).reshape(3, 4)
    (tmp_path / "a").write_bytes(
        packed({"turned": square.T, "part": square[:, 1], "none": torch.zeros(1).expand(0)}, "Points")
    )
    again = read_all(tmp_path / "a")
    assert again["turned"].equal(square.T)
    assert again["part"].equal(square[:, 1])
    assert again["none"].shape == (0,)
    with open_tensors(tmp_path / "a") as file:
        assert (file.kind, file.names) == ("Points", {"turned", "part", "none"})
        with pytest.raises(WorldError, match="'whole' cannot be read"):
            file.get("whole")


def test_plain_safetensors_files_open(tmp_path: Path) -> None:
    save_file({"numbers": torch.arange(5)}, tmp_path / "a", {"kind": "Gaussians"})
    with open_tensors(tmp_path / "a") as file:
        assert file.kind == "Gaussians"
        assert file.get("numbers").equal(torch.arange(5))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00" * 50)
    with pytest.raises(WorldError, match="is not a file of tensors"), open_tensors(tmp_path / "a"):
        pass
