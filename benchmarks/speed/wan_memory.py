"""Peak memory of a Wan transformer against its plan: `python -m benchmarks.speed.wan_memory [--size HxW] [--latents N]
[--layers N] [--context N]`.

The architecture of Wan 2.1 1.3B with random weights in bfloat16 denoises one chunk once, on the CPU, with a level per
token. Before anything is loaded the plan is made; afterwards it is compared with the peak of the process. The VAE does
not run: its share of the plan is left out of the comparison. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time

import psutil
import torch

from diffusion.memory_plan import GIB
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.lines import LINES, VAES
from diffusion.wan.load import dtype_of, empty_transformer
from diffusion.wan.memory import Context
from diffusion.wan.plan import ALLOCATOR, WanSetup, plan_wan

NOT_RUN = ("VAE", "state of the VAE", "allocator")


def random_transformer(setup: WanSetup, rng: torch.Generator, device: str = "cpu") -> WanDenoiser:
    """The model of ``setup``, drawn tensor by tensor so that it never exists in float32."""
    model = empty_transformer(setup.transformer)
    weights = {}
    for name, tensor in model.state_dict().items():
        scale = math.prod(tensor.shape[1:]) ** -0.5 if tensor.ndim > 1 else 0.02
        made = torch.empty(tensor.shape, dtype=dtype_of(name, setup.precision))
        weights[name] = made.normal_(0.0, scale, generator=rng)
        if name.endswith("weight") and tensor.ndim == 1:  # norms
            weights[name].fill_(1.0)
    model.load_state_dict(weights, assign=True)
    rope = model.rope  # its tables are no weights
    model.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len)
    # diffusers wraps `to` in a decorator that loses its types.
    return WanDenoiser(model.to(device))  # pyright: ignore[reportArgumentType]


def measure(setup: WanSetup) -> dict[str, float | bool]:
    """Plan, load, run one pass; GiB and seconds."""
    parts = next(stage for stage in plan_wan(setup).stages if stage.name == "denoise").parts
    planned = sum(size for name, size in parts.items() if name not in NOT_RUN)
    planned += round(ALLOCATOR * (planned - setup.process))
    rng = torch.Generator().manual_seed(0)
    denoiser = random_transformer(setup, rng)
    loaded = psutil.Process().memory_info().rss
    height, width = (side // 8 for side in setup.size)
    noisy = torch.randn(setup.chunk, denoiser.channels, height, width, generator=rng)
    level = torch.full_like(noisy[:, :1], 1.0)
    level[:, :, : height // 2] = 0.5
    text = torch.randn(1, 512, setup.transformer["text_dim"], generator=rng, dtype=torch.bfloat16)
    like = denoiser.attention.record(setup.context, height * width // 4, text)
    denoiser.attention.stop_recording()
    for slot in like:
        slot.normal_(generator=rng)
    context = Context(like, tuple(range(setup.context)), tuple(range(setup.context, setup.context + setup.chunk)))
    began, cpu = time.perf_counter(), time.process_time()
    made = denoiser.predict(noisy, level, text, context)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gib = {"process": setup.process, "loaded": loaded, "peak": peak, "planned": planned}
    return {
        **{f"{name}_gib": round(size / GIB, 3) for name, size in gib.items()},
        "planned_over_measured": round(planned / peak, 3),
        "growth_planned_over_measured": round((planned - setup.process) / (peak - setup.process), 3),
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "finite": bool(made.isfinite().all()),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="480x832")
    parser.add_argument("--latents", type=int, default=3)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--context", type=int, default=0)
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    line = LINES["self-forcing"]
    config = {**line.transformer_config(), "num_layers": options.layers}
    small = WanSetup({**config, "num_layers": 1}, VAES[line.vae], (height, width), chunk=options.latents)
    plan_wan(small)  # what planning imports and keeps belongs to the process
    setup = WanSetup(
        config, VAES[line.vae], (height, width), options.latents, options.context, bank=options.context,
        process=psutil.Process().memory_info().rss,
    )  # fmt: skip
    print(json.dumps({"benchmark": "wan_memory", **vars(options), **measure(setup)}))


if __name__ == "__main__":
    main()
