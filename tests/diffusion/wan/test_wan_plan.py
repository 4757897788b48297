"""The memory plan: what is counted without storage is what real passes allocate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from diffusion.wan.lines import LINES, VAES
from diffusion.wan.load import empty_transformer
from diffusion.wan.plan import StorageTracker, WanSetup, plan_wan, tracked
from diffusion.wan.tiny import TinyDecoder
from diffusion.wan.vae import StreamingVAE

SETUP = WanSetup(
    {**LINES["self-forcing"].transformer_config(), "num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 96,
     "num_layers": 3, "text_dim": 32, "freq_dim": 64},
    {**VAES["2.1"], "base_dim": 4, "num_res_blocks": 1}, (16, 32), chunk=2, context=4, recent=3, bank=6,
    text_encoder=10**9, process=10**8,
)  # fmt: skip


def _peaks(run: Callable[[str], Callable[[], object]]) -> tuple[int, int]:
    """Bytes that a call allocates at its peak, without storage and on the CPU."""
    call = run("meta")
    with tracked() as planned:
        call()
    call = run("cpu")
    with torch.no_grad(), StorageTracker() as real:
        call()
    return planned.peak, real.peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("per_token", [False, True])
def test_peak_of_a_pass_is_the_real_one(
    transformer: Callable[..., WanTransformer3DModel], dtype: torch.dtype, per_token: bool
) -> None:
    def run(device: str) -> Callable[[], object]:
        model = transformer().to(device=device, dtype=dtype)  # pyright: ignore[reportCallIssue]
        clip, text = (torch.zeros(shape, dtype=dtype, device=device) for shape in ((1, 16, 3, 8, 12), (1, 512, 32)))
        timestep = torch.full((1, 72) if per_token else (1,), 500.0, device=device)
        return lambda: model(clip, timestep, text, return_dict=False)

    planned, real = _peaks(run)
    assert planned == real > 10**5


@pytest.mark.parametrize("kind", ["encode", "decode", "tiny"])
def test_peak_of_a_call_of_the_vae_is_the_real_one(kind: str) -> None:
    def run(device: str) -> Callable[[], object]:
        with torch.device(device):
            vae = StreamingVAE(AutoencoderKLWan(base_dim=4))
            frames, latents = torch.zeros(4, 3, 32, 48), torch.zeros(2, 16, 4, 6)
            if kind == "tiny":
                return lambda: TinyDecoder(16, widths=(8, 6, 4, 4)).to(device).decode(latents)
        if kind == "encode":
            _, state = vae.encode(frames[:1])
            return lambda: vae.encode(frames, state)
        _, state = vae.decode(latents[:1])
        return lambda: vae.decode(latents, state)

    planned, real = _peaks(run)
    assert planned == real > 10**4


def test_tracker_counts_a_storage_once_and_frees_it() -> None:
    outside = torch.zeros(100)
    with StorageTracker() as tracker:
        view = outside[:50]  # counted with its owner, which is not new
        made = torch.zeros(1000)
        again = made.reshape(10, 100)
        assert tracker.live == 4000
        del made
        assert tracker.live == 4000
        del again, view
        assert (tracker.live, tracker.peak) == (0, 4000)


def _parts(setup: WanSetup, stage: str) -> dict[str, int]:
    return dict(next(found for found in plan_wan(setup).stages if found.name == stage).parts)


def test_keys_and_values_are_the_arithmetic_of_their_shapes() -> None:
    parts = _parts(SETUP, "denoise")
    slot = 2 * 3 * (1 * 2) * 48 * 2  # keys and values, layers, tokens, width, bfloat16
    assert parts["keys and values of remembered latents"] == 6 * slot
    assert parts["keys and values that a pass attends to"] == (4 + 2) * slot
    assert parts["keys and values of the prompt"] == 2 * 3 * 512 * 48 * 2
    guided = _parts(replace(SETUP, rows=2), "denoise")
    assert guided["keys and values of remembered latents"] == 2 * 6 * slot
    without = _parts(replace(SETUP, context=0, bank=0), "denoise")
    assert without["keys and values of remembered latents"] == without["keys and values that a pass attends to"] == 0


def test_stages_follow_what_is_loaded() -> None:
    names = [stage.name for stage in plan_wan(SETUP).stages]
    assert names == ["text", "encode", "denoise", "decode", "remember"]
    names = [stage.name for stage in plan_wan(replace(SETUP, context=0, bank=0, text_encoder=0)).stages]
    assert names == ["encode", "denoise", "decode"]
    made, shown = (_parts(replace(SETUP, encodes_generated=encodes), "encode") for encodes in (True, False))
    assert made["state of the VAE after the chunk"] == made["state of the VAE"] > 0
    assert shown["state of the VAE after the chunk"] == 0
    assert _parts(replace(SETUP, per_token=False), "denoise")["activations"] < _parts(SETUP, "denoise")["activations"]


def test_true_sizes_are_those_of_the_published_models() -> None:
    """Weights of Wan 2.1 1.3B and its VAE, and the keys of a latent at 480x832, to the byte."""
    line = LINES["self-forcing"]
    config = {**line.transformer_config(), "num_layers": 1}
    parts = _parts(WanSetup(config, VAES["2.1"], (480, 832), 1, context=1, bank=1, precision="float32"), "denoise")
    assert parts["keys and values of remembered latents"] == 2 * 1560 * 1536 * 4
    assert parts["VAE"] == pytest.approx(126.9e6 * 4 - 73.3e6 * 2, rel=2e-3)  # the decoder in bfloat16


def test_smallest_change_and_refusal() -> None:
    plan = plan_wan(SETUP)
    assert plan.largest.name == "text"
    change = plan.smallest_change(5 * 10**8)
    assert change is not None
    assert change.setting.startswith("prompt=")
    full = plan_wan(replace(SETUP, text_encoder=0))
    settings = [change.setting for change in full.changes]
    assert settings[:2] == ["generator.decoder=tiny", "generator.memory.recent=2"]
    smaller = full.smallest_change(int(0.97 * (full.peak - SETUP.process)) + SETUP.process)
    assert smaller is not None
    assert smaller.setting.startswith("size=[")
    assert smaller.plan().peak < full.peak
    with pytest.raises(ValueError, match=r"memory: want about .*; no single setting is enough"):
        full.check(10**7)


def test_offloading_leaves_a_stage_what_it_uses_and_main_memory_the_rest() -> None:
    here = plan_wan(replace(SETUP, offload="none"))
    assert here.waiting == 0
    assert here.stages == plan_wan(SETUP).stages
    plan = plan_wan(replace(SETUP, offload="stages"))
    assert [stage.name for stage in plan.stages] == ["encode", "denoise", "decode", "remember"]
    before = {stage.name: stage.parts for stage in here.stages}
    for stage in plan.stages:
        for name in ("activations", "keys and values that a pass attends to"):
            assert stage.parts.get(name) in (None, before[stage.name][name])
        assert stage.bytes < sum(before[stage.name].values())
    encode, denoise, decode, _ = (stage.parts for stage in plan.stages)
    assert encode["VAE"] + decode["VAE"] == before["encode"]["VAE"]
    assert "transformer" not in encode
    assert "VAE" not in denoise
    slot = before["encode"]["keys and values of remembered latents"] // SETUP.bank
    assert plan.waiting == SETUP.text_encoder  # which runs there; it is gone before the rest comes
    waiting = plan_wan(replace(SETUP, offload="stages", text_encoder=0)).waiting
    parts = before["remember"]
    states = 2 * (encode["state of the VAE"] + decode["state of the VAE"])
    kept = (SETUP.bank + SETUP.chunk) * slot
    assert waiting == parts["transformer"] + parts["VAE"] + kept + states
    alone = plan_wan(replace(SETUP, offload="stages", text_encoder=0, context=0, bank=0)).waiting
    assert waiting - alone == kept + states // 2
    blocks = plan_wan(replace(SETUP, offload="blocks"))
    less = denoise["transformer"] - blocks.stages[1].parts["transformer"]
    block = 2 * sum(p.numel() for p in empty_transformer(SETUP.transformer).blocks[0].parameters())
    assert less == 2 * block  # of three, in bfloat16
    tiny = plan_wan(replace(SETUP, offload="stages", tiny=True)).stages[2].parts["VAE"]
    assert tiny == 2 * sum(p.numel() for p in TinyDecoder(16).parameters())


def test_offloading_is_advised_on_a_gpu_alone() -> None:
    quiet = replace(SETUP, text_encoder=0)
    settings = {o: [c.setting for c in plan_wan(replace(quiet, offload=o)).changes][1:4] for o in (None, "none")}
    assert settings["none"] == ["generator.offload=stages", "generator.offload=blocks", "generator.memory.recent=2"]
    assert not any("offload" in setting for setting in settings[None])
    assert plan_wan(replace(quiet, offload="stages")).changes[1].setting == "generator.offload=blocks"
    plan, offloaded = (plan_wan(replace(quiet, tiny=True, offload=offload)) for offload in ("none", "stages"))
    assert offloaded.peak < plan.peak
    with pytest.raises(ValueError, match=r"set generator\.offload=stages, which takes"):
        plan.check((plan.peak + offloaded.peak) // 2, "GPU memory")


def test_size_that_the_model_cannot_take_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"multiples of 16 for this model, got \[60,100\]; set size=\[64,96\]"):
        plan_wan(replace(SETUP, size=(60, 100)))
