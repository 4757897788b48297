"""The bounded key/value memory: eviction, recall, serialization."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from diffusion.kv_memory import KVMemory, MemoryPolicy
from geometry.camera import Camera
from tests.helpers import cameras_at


def _cameras(x: list[float]) -> Camera:
    return cameras_at(*((place, 0.0, 0.0) for place in x), size=(16, 32))


def _memory(x: list[float]) -> KVMemory:
    keys = torch.arange(len(x), dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 2, 3, 4).contiguous()
    return KVMemory(keys, -keys, _cameras(x), unit=1.0)


def _add(memory: KVMemory, x: list[float], policy: MemoryPolicy) -> KVMemory:
    keys = (100.0 + torch.tensor(x)).reshape(-1, 1, 1, 1).expand(-1, 2, 3, 4).contiguous()
    return memory.extended(keys, -keys, _cameras(x), policy)


def test_eviction_keeps_sink_recent_and_different_views() -> None:
    policy = MemoryPolicy(bank=5, recent=2, nearest=1)
    memory = _memory([0.0])
    for x in ([1.0], [5.0], [5.01], [9.0], [12.0], [12.1]):
        memory = _add(memory, x, policy)
        assert len(memory) <= 5
    places = memory.camera.position[:, 0].tolist()
    assert places[0] == 0.0
    assert places[-2:] == pytest.approx([12.0, 12.1])
    assert len([p for p in places if 4.9 < p < 5.1]) <= 1  # one of two nearly equal views was dropped


def test_recall_returns_sink_nearest_and_recent_oldest_first() -> None:
    memory = _memory([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    recalled = memory.recall(_cameras([2.2, 2.3]), MemoryPolicy(bank=9, recent=2, nearest=2))
    assert recalled.camera.position[:, 0].tolist() == [0.0, 2.0, 3.0, 5.0, 6.0]
    assert recalled.keys[:, 0, 0, 0].tolist() == [0.0, 2.0, 3.0, 5.0, 6.0]


def test_safetensors_round_trip_is_exact() -> None:
    memory = _memory([0.0, 0.3, 0.7])
    back = KVMemory.from_tensors(load(save(memory.to_tensors())))
    assert torch.equal(back.keys, memory.keys)
    assert torch.equal(back.values, memory.values)
    assert torch.equal(back.camera.world_from_camera, memory.camera.world_from_camera)
    assert back.camera.size == memory.camera.size
    assert back.unit == memory.unit


def test_bad_policies_and_tensors_are_rejected() -> None:
    with pytest.raises(ValueError, match="memory policy"):
        MemoryPolicy(bank=2, recent=2)
    with pytest.raises(ValueError, match="context_noise"):
        MemoryPolicy(context_noise=1.5)
    memory = _memory([0.0])
    with pytest.raises(ValueError, match="tokens"):
        memory.extended(torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4), _cameras([1.0]), MemoryPolicy())
    tensors = _memory([0.0, 1.0]).to_tensors()
    with pytest.raises(ValueError, match="missing"):
        KVMemory.from_tensors({k: v for k, v in tensors.items() if k != "values"})
    with pytest.raises(ValueError, match="same number of frames"):
        KVMemory.from_tensors({**tensors, "keys": tensors["keys"][:1]})
