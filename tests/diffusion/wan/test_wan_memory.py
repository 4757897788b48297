"""Remembered latent frames: positions, bounds, values that do not change, other prompts; equal to slower programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from diffusion.wan.attention import rotated
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.memory import Bounds, LatentBank, LatentPolicy, Remembered
from geometry.camera import Camera

Make = Callable[..., WanTransformer3DModel]
FULL = LatentPolicy(sink=0, recent=18).bounds(chunk=3, span=21)
WINDOW = LatentPolicy().bounds(chunk=3, span=21, window=12, sink=3)


def _cameras(x: list[float]) -> Camera:
    pose = torch.eye(4).repeat(len(x), 1, 1)
    pose[:, 0, 3] = torch.tensor(x)
    return Camera.from_fov(60.0, (64, 96), pose)


def _empty() -> LatentBank:
    return LatentBank((), _cameras([]), 1.0)


def _latents(chunks: int) -> Tensor:
    return torch.randn(chunks, 3, 16, 8, 12, generator=torch.Generator().manual_seed(1))


LEVEL = torch.full((3, 1, 8, 12), 0.8)


def _walk(denoiser: WanDenoiser, chunks: Tensor, text: Tensor, bounds: Bounds) -> tuple[list[Tensor], LatentBank]:
    """What is predicted for each chunk, and the memory after the last."""
    bank, made = _empty(), []
    for k, latents in enumerate(chunks):
        camera = _cameras([3.0 * k, 3.0 * k + 1, 3.0 * k + 2])
        made.append(denoiser.predict(latents, LEVEL, text, bank.context(camera, 3 * k, bounds)))
        bank = denoiser.extend(bank, latents, camera, 3 * k, k, text, bounds)
    return made, bank


def test_bounds_of_a_line_and_of_students_without_a_window() -> None:
    assert (WINDOW.sink, WINDOW.recent, WINDOW.bank, WINDOW.rotary) == (3, 6, 9, "relative")
    student = LatentPolicy().bounds(chunk=3, span=21)
    assert (student.sink, student.recent) == (3, 6)
    near = LatentPolicy(nearest=3).bounds(chunk=3, span=21, window=12, sink=3)
    assert (near.sink, near.recent, near.nearest, near.bank) == (3, 3, 3, 12)


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        (LatentPolicy(recent=16), "lower memory.recent"),
        (LatentPolicy(recent=0), "recent >= 1"),
        (LatentPolicy(sink=-1), "sink >= 0"),
        (LatentPolicy(bank=5), "bank"),
        (LatentPolicy(trust=1.5), "trust"),
        (LatentPolicy(trust=0.5, sink=0), "memory.sink=1"),
        (LatentPolicy(rotary="fixed"), "rotary"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(policy: LatentPolicy, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        policy.bounds(chunk=3, span=21)


def test_positions_stay_in_the_trained_span_however_long_the_walk() -> None:
    bank, slot = _empty(), torch.zeros(2, 1, 1, 1, 1, 1)
    for k in range(100):
        camera = _cameras([1.0 * k, k + 0.3, k + 0.6])
        context = bank.context(camera, 3 * k, WINDOW)
        assert context.positions == tuple(range(min(3 * k, 9)))
        assert context.at == tuple(range(min(3 * k, 9), min(3 * k, 9) + 3))
        bank = bank.extended([Remembered(slot, torch.zeros(1, 1, 1), 3 * k + i, k) for i in range(3)], camera, WINDOW)
    assert [frame.place for frame in bank.frames] == [0, 1, 2, *range(294, 300)]


def test_absolute_positions_are_refused_beyond_the_span(transformer: Make, text: Tensor) -> None:
    bounds = replace(FULL, rotary="absolute", span=9)
    with pytest.raises(ValueError, match=r"within the 9 latents.*got 12; set memory.rotary=relative"):
        _walk(WanDenoiser(transformer()), _latents(4), text, bounds)


def test_absolute_positions_are_relative_ones_until_a_frame_is_dropped(transformer: Make, text: Tensor) -> None:
    denoiser, chunks = WanDenoiser(transformer()), _latents(6)
    relative, _ = _walk(denoiser, chunks, text, WINDOW)
    absolute, _ = _walk(denoiser, chunks, text, replace(WINDOW, rotary="absolute"))
    for k in range(4):
        assert torch.equal(relative[k], absolute[k])
    assert (relative[4] - absolute[4]).abs().max() > 1e-3


def test_a_later_chunk_changes_no_older_memory_and_shares_its_frames(transformer: Make, text: Tensor) -> None:
    denoiser, chunks = WanDenoiser(transformer()), _latents(5)
    _, old = _walk(denoiser, chunks[:3], text, WINDOW)
    slots = [frame.slot.clone() for frame in old.frames]
    new = denoiser.extend(old, chunks[3], _cameras([9.0, 10.0, 11.0]), 9, 3, text, WINDOW)
    assert len(old) == 9
    for frame, slot in zip(old.frames, slots, strict=True):
        assert torch.equal(frame.slot, slot)
    assert new.frames[0].slot is old.frames[0].slot
    assert [frame.place for frame in new.frames] == [0, 1, 2, 6, 7, 8, 9, 10, 11]


class _Twin:
    """LongLive's endless window, spelled out: all of the past is kept, cut, rotated and joined anew in every pass."""

    _attention_backend = None
    _parallel_config = None

    def __init__(self, model: Any) -> None:
        self.model, self.past, self.own = model, [[] for _ in model.blocks], []
        for block, layer in enumerate(model.blocks):
            layer.attn1.set_processor(lambda *a, block=block: self.attend(block, *a))

    def attend(self, block: int, attn, x: Tensor, _text: None, _mask: None, _rope: Tensor) -> Tensor:
        keys = attn.norm_k(attn.to_k(x)).unflatten(2, (2, 24))
        values = attn.to_v(x).unflatten(2, (2, 24))
        query = attn.norm_q(attn.to_q(x)).unflatten(2, (2, 24))
        own = list(zip(keys.split(24, 1), values.split(24, 1), strict=True))
        self.own.append(own)
        past = self.past[block]
        window = (past if len(past) <= 9 else past[:3] + past[-6:]) + own
        cos, sin = self.model.rope(torch.zeros(1, 16, len(window), 8, 12))
        keys = rotated(torch.cat([k for k, _ in window], 1), cos, sin)
        query = rotated(query, cos[:, -72:], sin[:, -72:])
        heads = (t.transpose(1, 2) for t in (query, keys, torch.cat([v for _, v in window], 1)))
        q, k, v = heads
        weights = torch.softmax(q @ k.transpose(-1, -2) / 24**0.5, -1)
        return attn.to_out[0]((weights @ v).transpose(1, 2).flatten(2))

    def run(self, latents: Tensor, t: float, text: Tensor) -> Tensor:
        self.own = []
        return self.model(latents.transpose(0, 1)[None], torch.tensor([t]), text, return_dict=False)[0][0]

    def remember(self, latents: Tensor, text: Tensor) -> None:
        self.run(latents, 0.0, text)
        for past, own in zip(self.past, self.own, strict=True):
            past.extend(own)


def test_relative_positions_with_eviction_equal_a_slow_twin(transformer: Make, text: Tensor) -> None:
    chunks, twin = _latents(6), _Twin(transformer())
    made, _ = _walk(WanDenoiser(transformer()), chunks, text, WINDOW)
    for latents, clean in zip(chunks, made, strict=True):
        velocity = twin.run(latents, 800.0, text).transpose(0, 1)
        torch.testing.assert_close(clean, latents - LEVEL * velocity, rtol=0.0, atol=1e-5)
        twin.remember(latents, text)


def test_nearest_frames_are_recalled_by_camera_in_order_of_time(transformer: Make, text: Tensor) -> None:
    bounds = LatentPolicy(sink=1, recent=1, nearest=2, bank=12).bounds(chunk=3, span=21)
    _, bank = _walk(WanDenoiser(transformer()), _latents(4), text, bounds)
    context = bank.context(_cameras([4.2, 4.3, 4.4]), 12, bounds)
    assert [slot is bank.frames[k].slot for slot, k in zip(context.slots, [0, 4, 5, 11], strict=True)] == [True] * 4
    assert context.positions == (0, 1, 2, 3)


def test_trusted_statistics_move_later_frames_to_those_of_the_sink(transformer: Make, text: Tensor) -> None:
    bounds = LatentPolicy(sink=2, recent=7, trust=1.0).bounds(chunk=3, span=21)
    _, bank = _walk(WanDenoiser(transformer()), _latents(3), text, replace(bounds, trust=0.0))
    slots = bank.context(_cameras([9.0, 10.0, 11.0]), 9, bounds).slots
    assert slots[0] is bank.frames[0].slot
    assert slots[1] is bank.frames[1].slot
    sink = torch.cat(slots[:2], 3)
    for slot in slots[2:]:
        torch.testing.assert_close(slot.mean(3), sink.mean(3), rtol=0.0, atol=1e-4)
        torch.testing.assert_close(slot.std(3), sink.std(3), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(bank.frames[5].slot.mean(3), sink.mean(3), atol=1e-2)


def test_frames_remembered_anew_under_another_prompt_are_those_built_under_it(transformer: Make, text: Tensor) -> None:
    denoiser, chunks, other = WanDenoiser(transformer()), _latents(3), 0.5 * text
    _, bank = _walk(denoiser, chunks, text, WINDOW)
    _, wanted = _walk(denoiser, chunks, other, WINDOW)
    switched = denoiser.recached(bank, other, WINDOW)
    assert not torch.equal(switched.frames[0].slot, bank.frames[0].slot)
    for a, b in zip(switched.frames, wanted.frames, strict=True):
        assert torch.equal(a.slot, b.slot)
        assert (a.place, a.chunk) == (b.place, b.chunk)
