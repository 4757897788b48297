"""A model whose parts wait in main memory, on a pretended GPU: the same bits, and only what runs is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.generator import WanGenerator
from diffusion.wan.lines import LINES
from diffusion.wan.memory import LatentPolicy
from diffusion.wan.offload import Placement
from diffusion.wan.tiny import TinyDecoder
from diffusion.wan.toy import make_toy
from diffusion.wan.vae import StreamingVAE
from tests.diffusion.wan.test_wan_generator import _assert_same, _walk
from tests.oracles.pretend_gpu import PretendGpu, is_marked

SETTINGS: dict[str, Any] = {"prompt": "a garden", "steps": 1, "chunk": 1}


def _tensors(value: Any) -> Iterator[Tensor]:
    """Of a memory, as deep as its values go."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from _tensors(getattr(value, name))


def _on_gpu(module: nn.Module) -> set[str]:
    """Names of its weights that are on the pretended GPU."""
    return {name for name, weight in (*module.named_parameters(), *module.named_buffers()) if is_marked(weight)}


@pytest.mark.parametrize(
    ("line", "settings", "offload"),
    [
        ("self-forcing", {"memory": LatentPolicy(sink=1, recent=1, trust=0.5, context_noise=0.1)}, "stages"),
        ("inspatio", {"guide_history": "generated"}, "stages"),
        ("st-diff", {"guidance": 2.0}, "blocks"),
    ],
)
def test_offloading_changes_no_bit_and_leaves_on_the_gpu_only_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, settings: dict[str, Any], offload: str
) -> None:
    make_toy(tmp_path, LINES[line])
    # On a GPU the decoder computes in bfloat16; here it is to be compared.
    monkeypatch.setattr(WanGenerator, "_decoder_dtype", property(lambda _: torch.float32))
    whole, memories = _walk(WanGenerator(tmp_path, **SETTINGS, **settings), [4, 3])
    seen: set[str] = set()

    def watch(kind: type, method: str, parts: dict[str, set[str]]) -> None:
        called = getattr(kind, method)

        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            out = called(self, *args, **kwargs)
            there = {name for name, module in modules.items() if _on_gpu(module)}
            assert there == parts[method]
            seen.add(method)
            return out

        monkeypatch.setattr(kind, method, watched)

    stages = {"encode": {"encoder", "quant_conv"}, "decode": {"decoder", "post_quant_conv"}, "_pass": {"transformer"}}
    running: list[int] = []
    forward = WanTransformerBlock.forward

    def one_block(self: WanTransformerBlock, *args: Any, **kwargs: Any) -> Tensor:
        # The attributes of a torch module are untyped.
        blocks = [block for block in modules["transformer"].blocks if _on_gpu(block)]  # pyright: ignore
        running.append(len(blocks))
        assert self in blocks
        return forward(self, *args, **kwargs)

    with PretendGpu():
        offloaded = WanGenerator(tmp_path, device="cuda", offload=offload, **SETTINGS, **settings)
        vae = offloaded.parts.vae
        assert isinstance(vae, StreamingVAE)
        modules = {"transformer": offloaded.parts.denoiser.model, **dict(vae._vae.named_children())}
        assert not any(_on_gpu(module) for module in modules.values())
        watch(StreamingVAE, "encode", stages)
        watch(StreamingVAE, "decode", stages)
        watch(WanDenoiser, "_pass", stages)
        monkeypatch.setattr(WanTransformerBlock, "forward", one_block)
        stored, moved = _walk(offloaded, [4, 3])
        waits = [(m.streams, None if m.bank is None else tuple(f.slot for f in m.bank.frames)) for m in moved]
        assert not any(is_marked(tensor) for tensor in _tensors(tuple(waits)))
        offloaded.parts.vae.encode(torch.zeros(1, 3, 32, 64))  # what attention has made there goes with the transformer
        attention = offloaded.parts.denoiser.attention
        assert attention._keys is None
        assert attention._text is None
    assert seen == set(stages)
    assert set(running) == ({1} if offload == "blocks" else {3})
    for (chunk, carried), (other, more) in zip(whole, stored, strict=True):
        assert torch.equal(chunk.frames.rgb, other.frames.rgb)
        assert carried.keys() == more.keys()
        assert all(torch.equal(carried[name], more[name]) for name in carried)
    _assert_same(memories[-1].streams, moved[-1].streams)
    _assert_same(memories[-1].bank, moved[-1].bank)


def test_offloading_is_refused_where_there_is_nothing_to_spare(tmp_path: Path) -> None:
    make_toy(tmp_path, LINES["self-forcing"])
    with pytest.raises(ValueError, match="offload: want a GPU whose memory is to be spared, got device=cpu"):
        WanGenerator(tmp_path, offload="stages", **SETTINGS)
    with pytest.raises(ValueError, match="offload: want one of none, stages, blocks, got 'some'"):
        WanGenerator(tmp_path, device="cuda", offload="some", **SETTINGS)


def test_a_tiny_decoder_comes_to_the_gpu_to_decode_and_leaves_it_for_others() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny, other = TinyDecoder(16, widths=(8, 6, 4, 4)).requires_grad_(False), nn.Linear(2, 2)
    latents = torch.randn(3, 16, 4, 6, generator=torch.Generator().manual_seed(1))
    first, state = tiny.decode(latents[:1])
    rest, _ = tiny.decode(latents[1:], state)
    tiny.placement = placement = Placement("cuda", "stages")
    with PretendGpu():
        for piece, frames in ((latents[:1], first), (latents[1:], rest)):
            made, state = tiny.decode(piece, None if frames is first else state)
            assert is_marked(made)
            assert torch.equal(made.cpu(), frames)
            assert not any(is_marked(tensor) for tensor in _tensors(state.cache))
            assert len(_on_gpu(tiny)) == len(list(tiny.parameters()))
            placement.enter(other)
            assert not _on_gpu(tiny)
            assert _on_gpu(other) == {"weight", "bias"}


def test_weights_of_a_block_go_back_where_it_fails() -> None:
    class Fails(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            raise MemoryError(input.shape)

    model, placement = nn.Sequential(nn.Linear(2, 2), Fails(2, 2)), Placement("cuda", "blocks")
    placement.stream([model[1]])
    with PretendGpu():
        placement.enter(model)
        with pytest.raises(MemoryError):
            model(torch.zeros(1, 2, device="cuda"))
        assert _on_gpu(model) == {"0.weight", "0.bias"}
