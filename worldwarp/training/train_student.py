"""Training of the causal few-step student: first on the teacher's trajectories, then by distribution matching.

After Yin et al., "From Slow Bidirectional to Fast Autoregressive Video Diffusion Models" (CausVid), section 4: the
student attends to earlier chunks only, teacher and online score attend to all frames. The student is conditioned on
its own earlier chunks (Huang et al., "Self Forcing").
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
from worldwarp.training.rollout import RolloutConfig, roll_out
from worldwarp.training.run import Learner, TrainingRun
from worldwarp.training.samples import Sample, SampleConfig
from worldwarp.training.train_teacher import PACE, SHAPE, ClipTask, SampledTask, begin
from worldwarp.training.trajectories import Trajectories, list_shards

STUDENT = RolloutConfig(context=SHAPE.context, chunk=2, steps=4)
ONLINE_UPDATES = 5  # updates of the online score per update of the student (DMD2, section 4.2)


class TrajectoryTask(SampledTask):
    """Causal regression from a state on the teacher's trajectory to its clean end."""

    def __init__(self, data: Path, shards: list[Path], rollout: RolloutConfig, shape: SampleConfig = SHAPE) -> None:
        """Train on ``shards``; clips of ``data`` are used only for validation."""
        super().__init__(data, rollout, shape)
        self.shards = shards

    def batch(self, progress: float, rng: np.random.Generator) -> Trajectories:  # noqa: ARG002
        """Load a random shard."""
        return Trajectories.load(self.shards[int(rng.integers(len(self.shards)))])

    def frames(self, batch: Trajectories) -> int:
        """Number of frames that the teacher sampled."""
        return batch.clean.shape[0] * batch.clean.shape[1]

    def loss(
        self, network: DenoiserNetwork, batch: Trajectories, rng: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Squared error of the clean end; every chunk has its own random level."""
        sample, context, chunk = batch.sample, self.rollout.context, self.rollout.chunk
        entry = entry_level(sample, context)
        many, frames = batch.clean.shape[:2]
        # A level per chunk: while the student samples a chunk, those before it are finished.
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
        """Write the weights in the format of the package."""
        save_network(network, path, {**notes, "role": "student, from trajectories"})


class Pair(nn.Module):
    """Student and online score, trained alternately; ``turn`` counts updates and decides which one is next."""

    def __init__(self, student: DenoiserNetwork, online: DenoiserNetwork) -> None:
        """Pair a student with an online score, initially a copy of the teacher."""
        super().__init__()
        self.student, self.online = student, online
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    def next_is_student(self) -> bool:
        """Count an update; whether it is the student's, which follows `ONLINE_UPDATES` of the online score."""
        self.turn += 1
        return int(self.turn) % (ONLINE_UPDATES + 1) == 0


class MatchingTask(ClipTask):
    """Asymmetric distribution matching on the student's own rollouts."""

    def __init__(
        self,
        data: Path,
        guides: Path | None,
        teacher: DenoiserNetwork,
        rollout: RolloutConfig,
        shape: SampleConfig = SHAPE,
        batch: int = 2,
    ) -> None:
        """Match the frozen ``teacher``, which attends to all frames of a sample and is on the training device."""
        super().__init__(data, guides, rollout, shape, batch)
        self.teacher = teacher.eval().requires_grad_(False)

    def loss(self, network: Pair, batch: Sample, rng: torch.Generator) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Matching loss in updates of the student; else flow matching of the online score on the student's frames."""
        is_student = network.next_is_student()
        context, every = self.rollout.context, batch.truth.shape[1]
        # A random last step, so that every step of the sampler is trained at the cost of one.
        stop = int(torch.randint(self.rollout.steps, (), generator=rng))
        start, noise = (torch.randn(batch.truth.shape, generator=rng).to(batch.truth) for _ in range(2))
        level = (0.02 + 0.96 * torch.rand(len(batch.truth), 1, generator=rng)).expand(-1, every).to(batch.truth)
        with torch.set_grad_enabled(is_student):
            made = roll_out(network.student, batch, start, self.rollout, stop=stop).made
        if not is_student:
            clean = with_truth(batch, made.detach(), context)
            # The online score has to follow the student's distribution as it changes.
            loss = flow_matching_loss(network.online, batch, clean, level, noise, context, every)
            return loss, {"online": loss.detach()}
        with torch.no_grad():
            # Both scores judge the same noised sample, or their difference would be noise.
            inputs = noised(batch, with_truth(batch, made, context), level, noise, context)
            real, fake = (predict(score, inputs, context, every) for score in (self.teacher, network.online))
            weight = (inputs.sigma[:, context:] > 0.0).to(made)
            gradient = matching_gradient(made, real, fake, weight)
        loss = matching_loss(made, gradient, weight)
        return loss, {"student": loss.detach(), "apart": gradient.square().mean().sqrt()}

    def validate(self, network: Pair, folder: Path) -> dict[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Validate the student."""
        return super().validate(network.student, folder)

    def save(self, network: Pair, path: Path, notes: dict[str, str]) -> None:
        """Write the student's weights in the format of the package."""
        save_network(network.student, path, {**notes, "role": "student"})


def train_initial_student(run: TrainingRun, *, teacher: Path, trajectories: Path) -> None:
    """Initialize the student, a causal copy of the teacher, on trajectories; clips are used for validation.

    Args:
        run: see `TrainingRun`.
        teacher: weights of the teacher.
        trajectories: folder of the shards that `record_trajectories` wrote.
    """
    run.train(partial(_initial_learner, run.data, teacher, list_shards(trajectories)), 3e-4, **PACE)


def train_student(run: TrainingRun, *, teacher: Path, start: Path, guides: Path | None = None) -> None:
    """Train the student by distribution matching; steps count updates of both student and online score.

    Args:
        run: see `TrainingRun`.
        teacher: weights of the teacher.
        start: initial weights of the student: from `train_initial_student`, or the teacher's to skip that stage.
        guides: folder of the guides recorded from the clips; ``data/guides`` when None.
    """
    list_clips(run.data, "train")
    run.train(partial(_matching_learner, run.data, teacher, start, guides), 2e-4, **PACE)


def _initial_learner(data: Path, teacher: Path, shards: list[Path], device: torch.device) -> Learner:  # noqa: ARG001
    return Learner(begin(teacher), TrajectoryTask(data, shards, STUDENT))


def _matching_learner(data: Path, teacher: Path, start: Path, guides: Path | None, device: torch.device) -> Learner:
    task = MatchingTask(data, guides, load_network(teacher).to(device), STUDENT)
    # The student learns more slowly than the online score, which has to track it.
    shares = {"student": 0.5, "online": 1.0}
    return Learner(Pair(begin(start), begin(teacher)), task, lambda name: shares[name.partition(".")[0]])
