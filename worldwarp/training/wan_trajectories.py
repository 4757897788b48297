"""Trajectories of the teacher: its states at the levels of the student's few steps, and where each way ends.

What CausVid (Yin et al., arXiv 2412.07772, section 4.3) calls ODE pairs: the student starts as a copy of the teacher
that learns to go from any of these states to the end in one step.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from diffusion.flow import add_noise
from diffusion.wan.lines import Line, line_named
from diffusion.wan.schedule import denoise, draw, schedule_levels, staggered, token_rows
from diffusion.wan.tokens import expanded
from worldwarp.training.wan_diffuser import DiffuserStage, is_photo, start_levels
from worldwarp.training.wan_rollout import student_levels

STUDENT = "tiny-student"  # line
STEPS = 48  # of the teacher; the student's levels are among its own


def record_trajectories(
    latents: Path,
    teacher: Path,
    out: Path,
    samples: int = 400,
    steps: int = STEPS,
    seed: int = 0,
    line: str = STUDENT,
) -> int:
    """Write a file for each sample; those that are there are kept. Returns how many there are.

    A file has ``states`` float16 ``[s f c h w]`` at the student's levels, ``clean`` float16 ``[f c h w]``, their end,
    ``start`` float32 ``[f 1 h w]``, the level at which each token starts, and ``extra`` float16 ``[f e h w]``, what the
    network reads of the guide.

    Args:
        latents: folder of `worldwarp.training.wan_latents.record_latents`; takes to train on are drawn from it.
        teacher: model folder, as ``generator.pretrained=`` takes it.
        out: folder, made when missing.
        samples: number of files.
        steps: of the teacher, a multiple of the student's.
        seed: of all draws; a sample depends on it and on its number alone.
        line: name of the student's line.

    Raises:
        ValueError: no latents, no teacher, or another number of steps.
    """
    student = line_named(line)
    few = student_levels(student)
    if steps % (len(few) - 1):
        raise ValueError(f"steps: want a multiple of the student's {len(few) - 1}, got {steps}")
    stage = DiffuserStage(latents, start=teacher)
    stage.network.eval()
    out.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(samples), desc="trajectories", unit="sample", mininterval=5.0):
        path = out / f"trajectory_{number:06}.safetensors"
        if not path.exists():
            partial = path.with_suffix(".partial")
            save_file(_trajectory(stage, student, steps, np.random.default_rng([seed, number])), partial)
            partial.rename(path)
    return len(list_trajectories(out))


def list_trajectories(folder: Path) -> list[Path]:
    """Files of `record_trajectories`.

    Raises:
        ValueError: there are none.
    """
    paths = sorted(folder.glob("trajectory_*.safetensors"))
    if not paths:
        raise ValueError(
            f"trajectories: want files in {folder}, got none; record them with `worldwarp train trajectories`"
        )
    return paths


@torch.no_grad()
def _trajectory(stage: DiffuserStage, student: Line, steps: int, rng: np.random.Generator) -> dict[str, Tensor]:
    take = stage.takes[rng.integers(len(stage.takes))]
    photo = is_photo(len(take["clean"]))
    guide = torch.where(photo, take["clean"].float(), take["guide"].float())
    extra = torch.where(photo, 0.0, stage.extra(take))
    start = torch.where(photo, 0.0, expanded(start_levels(take["hole"], bool(take["copied"]), rng, student)))
    rows = token_rows(staggered(schedule_levels(steps, student.shift), len(guide), 0.0), start)
    noise = draw(guide, torch.Generator().manual_seed(int(rng.integers(2**31))))
    states = [add_noise(guide, noise, start)]

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        return stage.predict(stage.network, noisy[None], level[None], extra)[0]

    every = steps // (len(student_levels(student)) - 1)
    for before, after in pairwise(range(0, steps + 1, every)):
        states.append(denoise(predict, states[-1], rows[before : after + 1]))
    return {
        "states": torch.stack(states[:-1]).half(),
        "clean": states[-1].half(),
        "start": start,
        "extra": extra.half(),
    }
