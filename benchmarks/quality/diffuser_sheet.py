"""Contact sheet of the small diffuser in training: `python -m benchmarks.quality.diffuser_sheet runs/diffuser
runs/latents runs/vae/model [--steps N] [--clips N] [--out FILE]`.

Rows: held-out clips, evenly spread over the list and fixed by it. Columns: the truth, the guide and what the network
makes of it, all as the VAE decodes them, at the middle and at the last frame. Figures: PSNR against the truth as the
VAE decodes it, in tokens with a hole and elsewhere, of the guide and of the network (`made`; `again`: other noise), and
the mean absolute difference between two noises there. JSON line last.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from diffusion.wan.fresh import read_vae
from diffusion.wan.tokens import expanded
from scenes.io.png import write_rgb_png
from worldwarp.training.accelerated import CHECKPOINT
from worldwarp.training.wan_diffuser import DiffuserStage


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sheet and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("latents", type=Path)
    parser.add_argument("vae", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    stage = DiffuserStage(given.latents, given.vae)
    state = load_file(given.run / CHECKPOINT)
    stage.network.load_state_dict({k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")})
    stage.network.eval().requires_grad_(False)
    vae = read_vae(given.vae)

    def frames(latents: Tensor) -> Tensor:
        first, stream = vae.decode(latents[:1])
        return torch.cat([first, vae.decode(latents[1:], stream)[0]])

    rows, errors = [], {}
    for number in range(given.clips):
        take = stage.held_out[number * len(stage.held_out) // given.clips]
        made, again = (
            frames(stage.sample(stage.network, take, given.steps, torch.Generator().manual_seed(seed)))
            for seed in (2 * number, 2 * number + 1)
        )
        truth, guide = frames(take["clean"].float()), frames(take["guide"].float())
        hole = expanded(take["hole"].float(), 16)[1:].repeat_interleave(4, 0) > 0.0
        for place, where in (("in_holes", hole), ("elsewhere", ~hole)):
            if not where.any():
                continue
            for name, shown in (("guide", guide), ("made", made), ("again", again)):
                off = (shown - truth)[1:].square().mean(1, keepdim=True)[where].mean()
                errors.setdefault(f"{name}_{place}_db", []).append(float(off))
            off = (made - again)[1:].abs().mean(1, keepdim=True)[where].mean()
            errors.setdefault(f"seeds_{place}", []).append(float(off))
        columns = [shown[k] for k in (len(truth) // 2, -1) for shown in (truth, guide, made)]
        rows.append(torch.cat(columns, -1))
    out = given.out or given.run / "sheet.png"
    write_rgb_png(out, torch.cat(rows, -2).clamp(0.0, 1.0))
    mean = {name: sum(values) / len(values) for name, values in errors.items()}
    figures = {
        name: round(float(-10.0 * torch.tensor(v).log10()), 2) if name.endswith("_db") else round(v, 4)
        for name, v in mean.items()
    }
    print(json.dumps({"benchmark": "diffuser_sheet", "steps": given.steps, "clips": given.clips, **figures}))


if __name__ == "__main__":
    main()
