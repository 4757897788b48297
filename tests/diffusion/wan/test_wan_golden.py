"""Numbers that the original programs computed, through loader, memory and schedule.

The files hold random weights by the original names, inputs and outputs: Self-Forcing 33593df and InSpatio-World
84639bf, run as they are in float32 (attention replaced by torch's). They are right to 3e-6 of their own kind: the
originals rotate in float64.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.lines import LINES
from diffusion.wan.load import find_checkpoint, load_transformer
from diffusion.wan.memory import Context, LatentBank, LatentPolicy
from diffusion.wan.schedule import schedule_levels
from geometry.camera import Camera

GOLDEN = Path(__file__).parents[2] / "fixtures" / "wan"
SIZES = {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 2, "ffn_dim": 96, "freq_dim": 64}


def _golden(name: str, line: str, folder: Path) -> tuple[WanDenoiser, dict[str, Tensor], Tensor]:
    """A denoiser of the stored weights, the other tensors, and the padded prompt."""
    stored = load_file(GOLDEN / f"{name}.safetensors")
    weights = {f"model.{key[2:]}": tensor for key, tensor in stored.items() if key.startswith("w.")}
    config = {**LINES[line].transformer_config(), **SIZES, "text_dim": 32}
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "_class_name": "WanTransformer3DModel"}))
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    model = load_transformer(find_checkpoint(folder, line), "float32")
    text = torch.zeros(1, 512, 32)
    text[:, : stored["text"].shape[1]] = stored["text"]
    return WanDenoiser(model), stored, text


def _cameras(frames: int) -> Camera:
    return Camera.from_fov(60.0, (64, 96), torch.eye(4).repeat(frames, 1, 1))


def _latents(stored: Tensor) -> Tensor:
    return stored[0].transpose(0, 1)


def _assert_velocity(clean: Tensor, noisy: Tensor, level: float, wanted: Tensor) -> None:
    torch.testing.assert_close((noisy - clean) / level, _latents(wanted), rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("rotary", ["absolute", "relative"])
def test_self_forcing_with_its_memory(tmp_path: Path, rotary: str) -> None:
    denoiser, stored, text = _golden("self_forcing", "self-forcing", tmp_path)
    line = LINES["self-forcing"]
    levels = schedule_levels(line.steps, line.shift, warped=line.warped)
    torch.testing.assert_close(1000.0 * levels.float(), stored["t"], rtol=0.0, atol=1e-3)
    bounds = LatentPolicy(sink=0, recent=18, rotary=rotary).bounds(chunk=line.chunk, span=line.trained_span)
    bank, camera = LatentBank((), _cameras(0), 1.0), _cameras(3)
    for k in range(3):
        noisy = _latents(stored["x"][k])
        context = bank.context(camera, 3 * k, bounds)
        for step, level in enumerate(levels[:-1].tolist()):
            clean = denoiser.predict(noisy, torch.full_like(noisy[:, :1], level), text, context)
            _assert_velocity(clean, noisy, level, stored["out"][k, step])
        bank = denoiser.extend(bank, noisy, camera, 3 * k, k, text, bounds)


def test_inspatio_with_its_reference_and_the_chunk_before(tmp_path: Path) -> None:
    denoiser, stored, text = _golden("inspatio", "inspatio", tmp_path)
    line = LINES["inspatio"]
    levels = schedule_levels(line.steps, line.shift, warped=line.warped)
    previous: list[Tensor] = []
    for k in range(3):
        seen = torch.cat([_latents(stored["reference"][k]), *previous])
        slots = denoiser.record(seen, text, Context.none(len(seen)))
        context = Context(slots, tuple(range(len(seen))), (6, 7, 8))
        extra = torch.cat([_latents(stored["mask"][k]), _latents(stored["render"][k])], 1)
        noisy = _latents(stored["x"][k])
        for step, level in enumerate(levels[:-1].tolist()):
            clean = denoiser.predict(noisy, torch.full_like(noisy[:, :1], level), text, context, extra)
            _assert_velocity(clean, noisy, level, stored["out"][k, step])
        previous = [_latents(stored["out"][k, -1])]  # the stored run took the last velocity for a picture
