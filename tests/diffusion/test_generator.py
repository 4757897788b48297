"""The packaged generator: weights files, memory over chunks, independence of uncovered guide pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion.condition import Condition
from diffusion.generator import Made
from diffusion.kv_memory import KVMemory, MemoryPolicy
from diffusion.noise_map import NoiseConfig, noise_map
from diffusion.passthrough import PassthroughGenerator
from diffusion.retouch.generator import RetouchGenerator, load_network, median_filtered, package_weights, save_network
from diffusion.retouch.network import DenoiserNetwork, NetworkConfig
from diffusion.sampler import sample
from geometry.frame import Chunk, Frame
from tests.helpers import TOY_NETWORK, cameras_along, chunk_of, guide_of, prior_of, random_rgb

SIZE = (32, 48)


def _network() -> DenoiserNetwork:
    torch.manual_seed(0)
    network = DenoiserNetwork(TOY_NETWORK)
    with torch.no_grad():
        network.head.weight.mul_(50.0)
    return network


def _seed(depth: float = 1.0) -> Chunk:
    true = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    return chunk_of(Frame(random_rgb(SIZE, seed=1), depth * true, true, ~true, cameras_along(0.0, 1, SIZE)))


def _condition(frames: int = 2, first: int = 1) -> tuple[Condition, torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    rgb, depth = torch.rand(frames, 3, *SIZE, generator=rng), 1.0 + torch.rand(frames, 1, *SIZE, generator=rng)
    coverage = torch.ones_like(depth)
    coverage[..., 30:] = 0.0
    guide = guide_of(cameras_along(0.1, frames, SIZE, first), depth, rgb, coverage == 0.0)
    prior = prior_of(rgb, depth, 1.0 - coverage)
    return Condition(guide, prior), noise_map(guide, prior, NoiseConfig())


def _walk(generator: RetouchGenerator, memory: KVMemory, chunks: range) -> tuple[KVMemory, torch.Tensor]:
    rgb = torch.zeros(0)
    for index in chunks:
        condition, sigma = _condition(2, 2 * index + 1)
        made = generator.make(condition, sigma, memory, torch.Generator().manual_seed(index))
        frames = Frame(made.rgb, made.depth, made.depth > 0, made.sky, condition.guide.camera)
        memory = generator.remember(Chunk(frames, index + 1, False, torch.ones_like(sigma)), made, memory)
        rgb = made.rgb
    return memory, rgb


def test_memory_is_bounded_and_a_walk_reproducible_and_resumable() -> None:
    generator = RetouchGenerator.of(_network(), MemoryPolicy(bank=4, recent=2, nearest=1))
    memory, rgb = _walk(generator, generator.start(_seed()), range(4))
    assert len(memory) == 4
    _, again = _walk(generator, generator.start(_seed()), range(4))
    assert torch.equal(rgb, again)
    half, _ = _walk(generator, generator.start(_seed()), range(2))
    restored = KVMemory.from_tensors(half.to_tensors())
    assert torch.equal(_walk(generator, restored, range(2, 4))[1], rgb)


def test_certain_pixels_keep_the_guide_and_uncovered_ones_have_no_effect() -> None:
    generator = RetouchGenerator.of(_network())
    memory = generator.start(_seed())
    condition, sigma = _condition()
    made = sample(generator, condition, sigma, memory, torch.Generator().manual_seed(0))
    assert torch.equal(made.rgb[..., :30], condition.guide.rgb[..., :30])
    assert (made.rgb[..., 30:] - condition.prior.rgb[..., 30:]).abs().max() > 1e-3
    guide = replace(condition.guide, rgb=torch.where(sigma > 0, 0.5, condition.guide.rgb))
    other = sample(generator, Condition(guide, condition.prior), sigma, memory, torch.Generator().manual_seed(0))
    assert torch.equal(made.rgb, other.rgb)


def test_context_noise_is_added_to_generated_frames_only_and_deterministic() -> None:
    seed, network = _seed(), _network()
    chunk, made = replace(seed, index=1, observed=False), Made(seed.frames.rgb, None, None)
    clean = RetouchGenerator.of(network, MemoryPolicy(bank=24))
    noisy = RetouchGenerator.of(network, MemoryPolicy(bank=24, context_noise=0.3))
    assert torch.equal(clean.start(seed).keys, noisy.start(seed).keys)
    first, again = (noisy.remember(chunk, made, noisy.start(seed)) for _ in range(2))
    assert torch.equal(first.keys, again.keys)
    assert not torch.equal(first.keys[1], clean.remember(chunk, made, clean.start(seed)).keys[1])


def test_memory_off_stores_no_keys_and_runs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = RetouchGenerator.of(_network())
    monkeypatch.setattr(generator, "network", None)
    memory = generator.remember(_seed(), Made(_seed().frames.rgb, None, None), generator.start(_seed()))
    assert (len(memory), memory.keys.numel()) == (0, 0)


def test_a_rebuilt_memory_has_the_same_bits() -> None:
    generator = RetouchGenerator.of(_network(), MemoryPolicy(bank=4, recent=2, nearest=1, context_noise=0.1))
    seed = _seed()
    chunks, memory = [seed], generator.start(seed)
    for index in range(1, 4):
        frames = Frame.concatenate([seed.frames] * 3)
        chunks.append(Chunk(frames, index, False, torch.ones(3, 1, *SIZE)))
        memory = generator.remember(chunks[-1], Made(frames.rgb, None, None), memory)
    rebuilt = generator.rebuild((chunk, {}) for chunk in chunks)
    assert torch.equal(rebuilt.keys, memory.keys)
    assert torch.equal(rebuilt.values, memory.values)


def test_unit_is_the_median_depth_of_the_photo() -> None:
    generator = RetouchGenerator.of(_network())
    assert generator.start(_seed(3.0)).unit == pytest.approx(3.0)
    assert PassthroughGenerator().start(_seed(3.0)).unit == pytest.approx(3.0)
    unknown = _seed()
    frames = replace(unknown.frames, valid=~unknown.frames.valid)
    assert generator.start(replace(unknown, frames=frames)).unit == 1.0


def test_rehearse_runs() -> None:
    RetouchGenerator.of(_network()).rehearse(2, SIZE)
    PassthroughGenerator().rehearse(2, SIZE)


def test_weights_round_trip_in_half_precision(tmp_path: Path) -> None:
    network = _network()
    save_network(network, tmp_path / "w.safetensors", {"data": "toy"})
    back = RetouchGenerator(tmp_path / "w.safetensors").network
    assert back.config == TOY_NETWORK
    for name, tensor in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor.half().float())


def test_missing_damaged_and_foreign_weights_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is none"):
        RetouchGenerator(tmp_path / "none.safetensors")
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not a readable"):
        RetouchGenerator(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="want format"):
        RetouchGenerator(path)
    save_network(_network(), path)
    tensors = load_file(path)
    metadata = {"format": "worldwarp-generator-1", **NetworkConfig(widths=(8, 8, 16), dim=16, heads=1).to_text()}
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="another architecture"):
        RetouchGenerator(path)


@pytest.mark.skipif(not package_weights().is_file(), reason="no weights in this checkout")
def test_packaged_weights_load_and_are_under_20_mb() -> None:
    assert package_weights().stat().st_size < 20e6
    network = load_network(package_weights())
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_median_filter_removes_depth_specks_and_keeps_edges() -> None:
    depth = torch.where(torch.arange(40) < 20, 1.0, 3.0).expand(2, 1, 30, 40).clone()
    grainy = depth.clone()
    grainy[0, 0, 10, 5:7] = 0.2  # a speck
    grainy[1, 0, :, 30] = 9.0
    calm = median_filtered(grainy)
    assert torch.equal(calm[..., 3:-3, 3:-3], depth[..., 3:-3, 3:-3])
