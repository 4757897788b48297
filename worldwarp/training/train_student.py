"""The causal few-step student: first along the teacher's trajectories, then by asymmetric distribution matching.

After Yin et al., "From Slow Bidirectional to Fast Autoregressive Video Diffusion Models" (CausVid), section 4: the
student sees earlier chunks only, teacher and online score see all frames. The student goes on from its own chunks
(Huang et al., "Self Forcing").
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.retouch.generator import load_network, save_network
from diffusion.retouch.network import DenoiserNetwork
from scenes.dataset.clips import list_clips
from worldwarp.training.distribution_matching import matching_gradient, matching_loss
from worldwarp.training.flow_matching import entry_level, flow_matching_loss, inputs_at, noised, predict, with_truth
from worldwarp.training.rollout import Walk, roll_out
from worldwarp.training.run import Learner, TrainingRun
from worldwarp.training.samples import Sample, SampleConfig
from worldwarp.training.train_teacher import PACE, SHAPE, ClipTask, SampledTask, begin
from worldwarp.training.trajectories import Trajectories, list_shards

STUDENT = Walk(context=SHAPE.context, chunk=2, steps=4)
ONLINE_UPDATES = 5  # of the online score for each of the student (DMD2, section 4.2)


class TrajectoryTask(SampledTask):
    """From any state on the teacher's trajectory to its end, causally."""

    def __init__(self, data: Path, shards: list[Path], walk: Walk, shape: SampleConfig = SHAPE) -> None:
        """Learn from ``shards``; clips of ``data`` are only validated on."""
        super().__init__(data, walk, shape)
        self.shards = shards

    def batch(self, progress: float, rng: np.random.Generator) -> Trajectories:  # noqa: ARG002
        """A shard."""
        return Trajectories.load(self.shards[int(rng.integers(len(self.shards)))])

    def frames(self, batch: Trajectories) -> int:
        """Those that the teacher made."""
        return batch.clean.shape[0] * batch.clean.shape[1]

    def loss(
        self, network: DenoiserNetwork, batch: Trajectories, rng: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Squared error of the clean end, every chunk standing at a level of its own."""
        sample, context, chunk = batch.sample, self.walk.context, self.walk.chunk
        entry = entry_level(sample, context)
        many, frames = batch.clean.shape[:2]
        drawn = torch.randint(len(batch.levels), (many, -(-frames // chunk)), generator=rng)
        drawn = drawn.repeat_interleave(chunk, 1)[:, :frames].to(batch.states.device)
        each, frame = (torch.arange(count, device=drawn.device) for count in (many, frames))
        state = batch.states[each[:, None], drawn, frame]
        level = batch.levels[drawn][:, :, None, None, None]
        sigma = torch.cat([entry[:, :context], torch.minimum(entry[:, context:], level)], dim=1)
        made = predict(network, inputs_at(sample, with_truth(sample, state, context), sigma), context, chunk)
        weight = (sigma[:, context:] > 0.0).to(made)
        error = (made - batch.clean).square() * weight
        loss = error.sum() / (weight.sum() * made.shape[2]).clamp_min(1.0)
        return loss, {"square": loss.detach()}

    def save(self, network: DenoiserNetwork, path: Path, notes: dict[str, str]) -> None:
        """Write the weights as the package holds them."""
        save_network(network, path, {**notes, "role": "student, from trajectories"})


class Pair(nn.Module):
    """Student and online score, trained together; ``turn`` counts updates and says whose turn it is."""

    def __init__(self, student: DenoiserNetwork, online: DenoiserNetwork) -> None:
        """The online score starts as a copy of the teacher."""
        super().__init__()
        self.student, self.online = student, online
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    def next_is_student(self) -> bool:
        """Take a turn: the student's after every `ONLINE_UPDATES` of the online score."""
        self.turn += 1
        return int(self.turn) % (ONLINE_UPDATES + 1) == 0


class MatchingTask(ClipTask):
    """Asymmetric distribution matching with self-rollout."""

    def __init__(
        self,
        data: Path,
        guides: Path | None,
        teacher: DenoiserNetwork,
        walk: Walk,
        shape: SampleConfig = SHAPE,
        batch: int = 2,
    ) -> None:
        """Match the frozen ``teacher``, which sees all frames of a sample at once and is where the training is."""
        super().__init__(data, guides, walk, shape, batch)
        self.teacher = teacher.eval().requires_grad_(False)

    def loss(self, network: Pair, batch: Sample, rng: torch.Generator) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The student's matching loss in its turn, the online score's flow matching on the student's frames else."""
        is_student = network.next_is_student()
        context, every = self.walk.context, batch.truth.shape[1]
        stop = int(torch.randint(self.walk.steps, (), generator=rng))
        start, noise = (torch.randn(batch.truth.shape, generator=rng).to(batch.truth) for _ in range(2))
        level = (0.02 + 0.96 * torch.rand(len(batch.truth), 1, generator=rng)).expand(-1, every).to(batch.truth)
        with torch.set_grad_enabled(is_student):
            made = roll_out(network.student, batch, start, self.walk, stop=stop).made
        if not is_student:
            clean = with_truth(batch, made.detach(), context)
            loss = flow_matching_loss(network.online, batch, clean, level, noise, context, every)
            return loss, {"online": loss.detach()}
        with torch.no_grad():
            inputs = noised(batch, with_truth(batch, made, context), level, noise, context)
            real, fake = (predict(score, inputs, context, every) for score in (self.teacher, network.online))
            weight = (inputs.sigma[:, context:] > 0.0).to(made)
            gradient = matching_gradient(made, real, fake, weight)
        loss = matching_loss(made, gradient, weight)
        return loss, {"student": loss.detach(), "apart": gradient.square().mean().sqrt()}

    def validate(self, network: Pair, folder: Path) -> dict[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of the student."""
        return super().validate(network.student, folder)

    def save(self, network: Pair, path: Path, notes: dict[str, str]) -> None:
        """Write the student's weights as the package holds them."""
        save_network(network.student, path, {**notes, "role": "student"})


def train_initial_student(run: TrainingRun, *, teacher: Path, trajectories: Path) -> None:
    """Initialise the student, a copy of the teacher made causal, on trajectories; clips are to validate on.

    Args:
        run: see `TrainingRun`.
        teacher: its weights.
        trajectories: shards that `record_trajectories` wrote.
    """
    run.train(partial(_initial_learner, run.data, teacher, list_shards(trajectories)), 3e-4, **PACE)


def train_student(run: TrainingRun, *, teacher: Path, start: Path, guides: Path | None = None) -> None:
    """Train the student by distribution matching; the steps are those of the online score too.

    Args:
        run: see `TrainingRun`.
        teacher: its weights.
        start: the student's first weights: initialized on trajectories, or the teacher's to leave that out.
        guides: guides recorded from the clips; ``data/guides`` when not given.
    """
    list_clips(run.data, "train")
    run.train(partial(_matching_learner, run.data, teacher, start, guides), 2e-4, **PACE)


def _initial_learner(data: Path, teacher: Path, shards: list[Path], device: torch.device) -> Learner:  # noqa: ARG001
    return Learner(begin(teacher), TrajectoryTask(data, shards, STUDENT))


def _matching_learner(data: Path, teacher: Path, start: Path, guides: Path | None, device: torch.device) -> Learner:
    task = MatchingTask(data, guides, load_network(teacher).to(device), STUDENT)
    # The student moves more slowly than the score that follows it.
    shares = {"student": 0.5, "online": 1.0}
    return Learner(Pair(begin(start), begin(teacher)), task, lambda name: shares[name.partition(".")[0]])
