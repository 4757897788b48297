"""Trajectories of the teacher: where its sampler stood at the student's levels, and where it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from diffusion.retouch.generator import load_network
from diffusion.retouch.network import DenoiserNetwork
from worldwarp.training.distributed import check_machine, device_of, moved
from worldwarp.training.rollout import Walk, roll_out
from worldwarp.training.run import TrainingRun
from worldwarp.training.samples import Sample
from worldwarp.training.train_teacher import SHAPE, STEPS, ClipTask


@dataclass(frozen=True)
class Trajectories:
    """Samples, and what the teacher made of them.

    Attributes:
        sample: a batch ``[b]``.
        levels: levels at which the states stand, falling, ``[k]``.
        states: noisy states of the frames after the context, ``[b k s 4 h w]``.
        clean: where they end, ``[b s 4 h w]``.
    """

    sample: Sample
    levels: Float[Tensor, "k"]
    states: Float[Tensor, "b k s 4 h w"]
    clean: Float[Tensor, "b s 4 h w"]

    def save(self, path: Path) -> None:
        """Write as float16 (cameras and unit as they are); a file appears only when it is complete."""
        tensors = {f"sample.{f.name}": getattr(self.sample, f.name) for f in fields(Sample)}
        exact = {"sample.world_from_camera", "sample.intrinsics", "sample.unit"}
        tensors = {k: v if k in exact else v.half() for k, v in tensors.items()}
        tensors |= {"levels": self.levels, "states": self.states.half(), "clean": self.clean.half()}
        partial = path.with_suffix(".partial")
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, partial)
        partial.replace(path)

    @staticmethod
    def load(path: Path) -> Trajectories:
        """Read a shard, as float32.

        Raises:
            ValueError: a file that is damaged or holds something else.
        """
        try:
            tensors = {k: v.float() for k, v in load_file(path).items()}
            sample = Sample(**{f.name: tensors[f"sample.{f.name}"] for f in fields(Sample)})
            return Trajectories(sample, tensors["levels"], tensors["states"], tensors["clean"])
        except (OSError, SafetensorError, KeyError) as error:
            raise ValueError(f"{path}: want a shard of trajectories, {error}; delete it and record it again") from error


def record_trajectories(run: TrainingRun, *, teacher: Path, student_steps: int = 4, guides: Path | None = None) -> None:
    """Sample training clips with the teacher, in one process.

    Args:
        run: see `TrainingRun`; a step is a shard of trajectories.
        teacher: its weights.
        student_steps: steps of the student, whose levels are recorded.
        guides: guides recorded from the clips; ``data/guides`` when not given.
    """
    check_machine(run.device, 1)
    network = load_network(teacher).to(run.device)
    walk = Walk(SHAPE.context, SHAPE.targets, STEPS)
    task = ClipTask(run.data, guides, walk)
    run.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for index in tqdm(range(run.steps), desc="trajectories", unit="shard"):
        if time.monotonic() - started > 60.0 * run.minutes:
            break
        path = run.out / f"trajectories_{index:05d}.safetensors"
        if not path.exists():
            rng = np.random.default_rng([run.seed, index])
            sample = moved(task.batch(0.0, rng), device_of(network))
            draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
            follow(network, sample, torch.randn(sample.truth.shape, generator=draws), walk, student_steps).save(path)


def follow(
    teacher: DenoiserNetwork, sample: Sample, noise: Float[Tensor, "b t 4 h w"], walk: Walk, student_steps: int
) -> Trajectories:
    """The teacher's flow from noise to its end, watched at the levels nearest to those of a student."""
    watch = tuple(round(index * walk.steps / student_steps) for index in range(student_steps))
    rolled = roll_out(teacher, sample, noise.to(sample.truth), walk, watch=watch)
    return Trajectories(sample, torch.tensor([walk.levels[index] for index in watch]), rolled.states, rolled.made)


def list_shards(folder: Path) -> list[Path]:
    """Shards in order.

    Raises:
        ValueError: none there.
    """
    shards = sorted(folder.glob("trajectories_*.safetensors"))
    if not shards:
        raise ValueError(f"trajectories: want shards in {folder}, there are none; run `worldwarp train trajectories`")
    return shards
