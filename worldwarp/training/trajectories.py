"""Trajectories of the teacher's sampler: its states at the student's noise levels, and its clean results."""

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
from worldwarp.training.rollout import RolloutConfig, roll_out
from worldwarp.training.run import TrainingRun
from worldwarp.training.samples import Sample
from worldwarp.training.train_teacher import SHAPE, STEPS, ClipTask


@dataclass(frozen=True)
class Trajectories:
    """Samples with the teacher's states and results.

    Attributes:
        sample: a batch ``[b]``.
        levels: noise levels of the states, descending, ``[k]``.
        states: noisy states of the frames after the context, ``[b k s 4 h w]``.
        clean: clean results of the teacher, ``[b s 4 h w]``.
    """

    sample: Sample
    levels: Float[Tensor, "k"]
    states: Float[Tensor, "b k s 4 h w"]
    clean: Float[Tensor, "b s 4 h w"]

    def save(self, path: Path) -> None:
        """Write as float16 (cameras and unit in float32), atomically."""
        tensors = {f"sample.{f.name}": getattr(self.sample, f.name) for f in fields(Sample)}
        exact = {"sample.world_from_camera", "sample.intrinsics", "sample.unit"}
        # float16 is too coarse for poses and focal lengths.
        tensors = {k: v if k in exact else v.half() for k, v in tensors.items()}
        tensors |= {"levels": self.levels, "states": self.states.half(), "clean": self.clean.half()}
        partial = path.with_suffix(".partial")
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, partial)
        partial.replace(path)

    @staticmethod
    def load(path: Path) -> Trajectories:
        """Read a shard as float32.

        Raises:
            ValueError: the file is damaged or is not a shard of trajectories.
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
        run: see `TrainingRun`; each step records one shard.
        teacher: weights of the teacher.
        student_steps: number of steps of the student, at whose noise levels states are recorded.
        guides: folder of the guides recorded from the clips; ``data/guides`` when None.
    """
    check_machine(run.device, 1)
    network = load_network(teacher).to(run.device)
    config = RolloutConfig(SHAPE.context, SHAPE.targets, STEPS)
    task = ClipTask(run.data, guides, config)
    run.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for index in tqdm(range(run.steps), desc="trajectories", unit="shard"):
        if time.monotonic() - started > 60.0 * run.minutes:
            break
        path = run.out / f"trajectories_{index:05d}.safetensors"
        if not path.exists():
            # By index: an interrupted recording continues with the same shards.
            rng = np.random.default_rng([run.seed, index])
            sample = moved(task.batch(0.0, rng), device_of(network))
            # Drawn on the CPU, so that every device records the same noise.
            draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
            follow(network, sample, torch.randn(sample.truth.shape, generator=draws), config, student_steps).save(path)


def follow(
    teacher: DenoiserNetwork,
    sample: Sample,
    noise: Float[Tensor, "b t 4 h w"],
    config: RolloutConfig,
    student_steps: int,
) -> Trajectories:
    """Sample with the teacher and record its states at the steps nearest to the student's noise levels."""
    # The teacher has many more levels than the student; the nearest ones are recorded.
    watch = tuple(round(index * config.steps / student_steps) for index in range(student_steps))
    rolled = roll_out(teacher, sample, noise.to(sample.truth), config, watch=watch)
    return Trajectories(sample, torch.tensor([config.levels[index] for index in watch]), rolled.states, rolled.made)


def list_shards(folder: Path) -> list[Path]:
    """Paths of the shards in a folder, sorted.

    Raises:
        ValueError: the folder holds no shard.
    """
    shards = sorted(folder.glob("trajectories_*.safetensors"))
    if not shards:
        raise ValueError(f"trajectories: want shards in {folder}, there are none; run `worldwarp train trajectories`")
    return shards
