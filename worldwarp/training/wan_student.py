"""Training of the causal few-step student: first on the teacher's trajectories, then by distribution matching.

After CausVid (Yin et al., arXiv 2412.07772): the student attends to finished chunks and its own, teacher and critic to
all frames. In the second stage it is conditioned on its own chunks (Self Forcing, arXiv 2506.08009).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion.flow import clean_to_velocity, velocity_to_clean
from diffusion.wan.lines import Line, line_named
from diffusion.wan.masked import block_causal
from diffusion.wan.schedule import shifted
from diffusion.wan.tokens import expanded
from worldwarp.training.accelerated import Pace, train
from worldwarp.training.wan_diffuser import (
    SOFT,
    DiffuserStage,
    is_photo,
    on_the_way,
    start_levels,
    usual_start,
    write_diffuser,
)
from worldwarp.training.wan_rollout import chunk_of, roll_out, student_levels
from worldwarp.training.wan_trajectories import STUDENT, list_trajectories

CRITIC_UPDATES = 5  # updates of the critic for each of the student (DMD2, arXiv 2405.14867, section 4.2)
MEASURED = 8  # held-out clips of a validation


class InitialStudentStage(DiffuserStage):
    """Causal regression from a state on the teacher's trajectory to its end."""

    def __init__(self, latents: Path, trajectories: Path, teacher: Path, student: Line) -> None:
        """A copy of the teacher.

        Args:
            latents: for validation.
            trajectories: folder of `worldwarp.training.wan_trajectories.record_trajectories`.
            teacher: model folder.
            student: the line that it becomes, a causal one of few steps.
        """
        super().__init__(latents, start=teacher, line=student)
        self.paths = list_trajectories(trajectories)

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A trajectory, its first chunks finished and each of the others at a level of its own."""
        rows = load_file(self.paths[rng.integers(len(self.paths))])
        states, clean, start = rows["states"].float(), rows["clean"].float(), rows["start"]
        frames, levels = len(clean), torch.tensor(student_levels(self.line)[:-1])
        blocks = torch.tensor(chunk_of(frames, self.line.chunk))
        finished = blocks <= int(rng.integers(blocks.max()))
        step = torch.from_numpy(rng.integers(len(levels), size=int(blocks.max()) + 1))[blocks]
        later = ~finished.reshape(-1, 1, 1, 1)
        level = torch.where(later, torch.minimum(start, levels[step].reshape(-1, 1, 1, 1)), 0.0)
        noisy = torch.where(later, states[step, torch.arange(frames)], clean)
        return {
            "noisy": torch.cat([noisy, rows["extra"].float() * later], 1),
            "clean": clean,
            "level": level,
            "sees": block_causal(blocks.tolist()),
        }

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of the clean latents of what is not finished."""
        level, clean = batch["level"], batch["clean"]
        state = batch["noisy"][:, :, : clean.shape[2]]
        text = self.text.to(clean).expand(len(clean), -1, -1)
        velocity = self.attention.velocity(network, batch["noisy"], level, text, batch["sees"])
        moving = (level > 0.0).float()
        error = (velocity_to_clean(state, velocity, level) - clean).square().mean(2, keepdim=True) * moving
        return {"loss": (error.flatten(1).sum(1) / moving.flatten(1).sum(1).clamp_min(1.0)).mean()}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:  # noqa: ARG002
        """Squared error of held-out clips as the student samples them."""
        return rolled_out_errors(self, partial(clean_end, self, network))


class Pair(nn.Module):
    """Student and critic, trained in turns."""

    def __init__(self, student: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.student, self.critic = student, critic

    def forward(self, *args: Any, part: str, **kwargs: Any) -> Any:
        """A pass of one of the two, through what wraps the pair for several devices."""
        return getattr(self, part)(*args, **kwargs)


class StudentStage(DiffuserStage):
    """Asymmetric distribution matching on the student's own clips.

    For the same noised sample the teacher predicts the clean end under the real distribution, the critic under the
    student's; the student moves along the difference (DMD2, arXiv 2405.14867, sections 3 and 4).
    """

    network: Pair  # pyright: ignore[reportIncompatibleVariableOverride] (two models in place of one)

    def __init__(self, latents: Path, teacher: Path, start: Path, student: Line) -> None:
        """Read teacher and student.

        Args:
            latents: folder of guides.
            teacher: model folder.
            start: model folder of the student; the critic starts as the teacher.
            student: its line.
        """
        super().__init__(latents, start=start, line=student)
        self.of_student = self.attention
        frozen, critic = (DiffuserStage(latents, start=teacher) for _ in range(2))
        self.teacher, self.of_teacher = frozen.network.eval().requires_grad_(False), frozen.attention
        self.of_critic = critic.attention
        self.student = self.network
        self.network = Pair(self.network, critic.network)
        self.is_students_turn = False

    def set_step(self, step: int) -> None:
        """Every sixth step is the student's."""
        self.is_students_turn = (step + 1) % (CRITIC_UPDATES + 1) == 0

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A take with its start levels, the noise of a rollout and that of a judgment of it."""
        take = self.takes[rng.integers(len(self.takes))]
        clean = take["clean"].float()
        photo = is_photo(len(clean))
        start = torch.where(photo, 0.0, expanded(start_levels(take["hole"], bool(take["copied"]), rng, self.line)))
        steps = len(student_levels(self.line)) - 1
        noise = torch.from_numpy(rng.standard_normal((steps + 1, *clean.shape), np.float32))
        level = shifted(torch.tensor(float(rng.uniform(0.02, 0.98))), self.line.shift)
        return {
            "guide": torch.where(photo, clean, take["guide"].float()),
            "extra": torch.where(photo, 0.0, self.extra(take)),
            "start": start,
            "noise": noise,
            "row": torch.where(photo, 0.0, level),
            "stop": torch.tensor(int(rng.integers(steps))),
        }

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Matching loss in updates of the student; else flow matching of the critic on the student's clips."""
        is_student = self.is_students_turn
        teacher, student, critic = self.teacher, partial(network, part="student"), partial(network, part="critic")
        guide, start, noise = batch["guide"], batch["start"], batch["noise"]
        # One step for the whole batch, so that it is sampled in one pass.
        stop = int(batch["stop"][0])
        with torch.set_grad_enabled(is_student):
            predict = partial(clean_end, self, student)
            made = roll_out(predict, self.line, guide, batch["extra"], start, noise[:, :-1], stop)
        noised = [
            on_the_way(*each) for each in zip(made.detach(), guide, start, batch["row"], noise[:, -1], strict=True)
        ]
        state, level = (torch.stack(part) for part in zip(*noised, strict=True))
        everything = torch.cat([state, batch["extra"]], 2)
        text = self.text.to(made).expand(len(made), -1, -1)
        moving = (level > 0.0).to(made)
        count = moving.sum((1, 2, 3, 4), keepdim=True).clamp_min(1.0)
        if not is_student:
            velocity = self.of_critic.velocity(critic, everything, level, text)
            weight = level.square() / (level.square() + SOFT) * moving / count
            error = (velocity - clean_to_velocity(state, made.detach(), level)).square().mean(2, keepdim=True)
            loss = (weight * error).flatten(1).sum(1).mean()
            return {"loss": loss, "critic": loss.detach(), "student": torch.zeros(()), "apart": torch.zeros(())}
        with torch.no_grad():
            real = velocity_to_clean(state, self.of_teacher.velocity(teacher, everything, level, text), level)
            fake = velocity_to_clean(state, self.of_critic.velocity(critic, everything, level, text), level)
        gradient = matching_gradient(made.detach(), real, fake, moving)
        aim = (made - gradient).detach()
        loss = 0.5 * ((made - aim).square().mean(2, keepdim=True) * moving / count).flatten(1).sum(1).mean()
        apart = gradient.square().mean().sqrt()
        return {"loss": loss, "critic": torch.zeros(()), "student": loss.detach(), "apart": apart}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:  # noqa: ARG002
        """See `InitialStudentStage.validate`."""
        return rolled_out_errors(self, partial(clean_end, self, self.student))

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """The student as a model."""
        own = {name.removeprefix("student."): w for name, w in weights.items() if name.startswith("student.")}
        write_diffuser(folder, self.student, own, self.line, self.vae, self.texts)


def matching_gradient(
    made: Float[Tensor, "b f c h w"],
    real: Float[Tensor, "b f c h w"],
    fake: Float[Tensor, "b f c h w"],
    weight: Float[Tensor, "b f 1 h w"],
) -> Float[Tensor, "b f c h w"]:
    """Gradient of the divergence of the student's distribution from the teacher's, up to a positive factor.

    The difference of two scores is that of the clean ends, up to a factor of the level. It is replaced by one over the
    mean distance of the sample from the teacher's clean end, so that all levels weigh the same (DMD, arXiv 2311.18828,
    equation 8).

    Args:
        made: the student's latents.
        real: the teacher's prediction of the clean end of these, noised.
        fake: the critic's.
        weight: of each latent pixel, 0..1.
    """
    values = (weight.sum((1, 2, 3, 4), keepdim=True) * made.shape[2]).clamp_min(1e-6)
    distance = ((made - real).abs() * weight).sum((1, 2, 3, 4), keepdim=True) / values
    return (fake - real) / distance.clamp_min(1e-3) * weight


def clean_end(
    stage: DiffuserStage,
    network: Any,
    state: Float[Tensor, "b f c h w"],
    level: Float[Tensor, "b f 1 h w"],
    extra: Float[Tensor, "b f e h w"],
    sees: Tensor,
) -> Float[Tensor, "b f c h w"]:
    """What `roll_out` asks for, by a stage's attention."""
    text = stage.text.to(state).expand(len(state), -1, -1)
    velocity = stage.attention.velocity(network, torch.cat([state, extra], 2), level, text, sees[None])
    return velocity_to_clean(state, velocity, level)


@torch.no_grad()
def rolled_out_errors(stage: DiffuserStage, predict: Any) -> dict[str, float]:
    """Squared errors of the latents of held-out clips, as a student samples them, in holes and elsewhere."""
    errors: dict[str, list[float]] = {"in_holes": [], "elsewhere": []}
    for number, take in enumerate(stage.held_out[:MEASURED]):
        clean, photo = take["clean"].float(), is_photo(len(take["clean"]))
        guide = torch.where(photo, clean, take["guide"].float())
        extra = torch.where(photo, 0.0, stage.extra(take))
        start = torch.where(photo, 0.0, usual_start(take, stage.line))
        rng = torch.Generator().manual_seed(number)
        noise = torch.randn((len(student_levels(stage.line)) - 1, *clean.shape), generator=rng)
        made = roll_out(predict, stage.line, guide[None], extra[None], start[None], noise[None])[0]
        off = (made - clean).square().mean(1, keepdim=True)[1:]
        hole = expanded(take["hole"].float())[1:] > 0.0
        errors["elsewhere"].append(float(off[~hole].mean()))
        if hole.any():
            errors["in_holes"].append(float(off[hole].mean()))
    return {name: float(np.mean(values)) for name, values in errors.items()}


def train_initial_student(
    latents: Path,
    trajectories: Path,
    teacher: Path,
    out: Path,
    steps: int = 2000,
    batch: int = 4,
    learning_rate: float = 1e-4,
    minutes: float = 600.0,
    seed: int = 0,
    line: str = STUDENT,
) -> None:
    """Make a causal student of four steps of the teacher, or go on; ``out/model`` is a model.

    Args:
        latents: folder of `worldwarp.training.wan_latents.record_latents`, for validation.
        trajectories: folder of `worldwarp.training.wan_trajectories.record_trajectories`.
        teacher: model folder.
        out: folder of the run.
        steps: see `Pace`, as all that follow.
        batch: trajectories.
        learning_rate: peak.
        minutes: of this run.
        seed: of all draws.
        line: name of the student's line, as the trajectories were recorded for.
    """
    pace = Pace(steps, batch, learning_rate, ema=0.99, minutes=minutes, seed=seed)
    student = line_named(line)
    train(lambda: InitialStudentStage(latents, trajectories, teacher, student), pace, out)


def train_student(
    latents: Path,
    teacher: Path,
    start: Path,
    out: Path,
    steps: int = 3000,
    batch: int = 2,
    learning_rate: float = 2e-5,
    minutes: float = 600.0,
    seed: int = 0,
    line: str = STUDENT,
) -> None:
    """Train the student by distribution matching, or go on; ``out/model`` is a model.

    Args:
        latents: folder of `worldwarp.training.wan_latents.record_latents`.
        teacher: model folder.
        start: model folder of `train_initial_student`.
        out: folder of the run.
        steps: updates of student and critic together; see `Pace`, as all that follow.
        batch: clips.
        learning_rate: peak, of both.
        minutes: of this run.
        seed: of all draws.
        line: name of the student's line.

    Raises:
        ValueError: more than one process, whose gradients DDP could not match: half of the weights have none.
    """
    from accelerate import PartialState

    if (count := PartialState().num_processes) > 1:
        raise ValueError(f"student: want one process, got {count}; start it without `accelerate launch`")
    pace = Pace(steps, batch, learning_rate, ema=0.99, minutes=minutes, seed=seed)
    student = line_named(line)
    train(lambda: StudentStage(latents, teacher, start, student), pace, out)
