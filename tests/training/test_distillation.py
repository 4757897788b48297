"""From many steps to few: the teacher learns the velocity, matching moves distributions, the road runs and resumes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusion.condition import Condition, Prior
from diffusion.flow import clean_to_velocity
from diffusion.kv_memory import MemoryPolicy
from diffusion.noise_map import noise_map
from diffusion.retouch.generator import RetouchGenerator, load_network, save_network
from diffusion.retouch.network import DenoiserNetwork, Inputs, Past
from diffusion.rgbd_state import encode
from diffusion.sampler import SamplerConfig, sample
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from tests.helpers import TOY_NETWORK, cameras_along, write_clip
from worldwarp.commands.train import train_command
from worldwarp.config import ConfigError
from worldwarp.recording import TrainingWatch
from worldwarp.training.distributed import moved
from worldwarp.training.distribution_matching import matching_gradient, matching_loss
from worldwarp.training.flow_matching import (
    FULL_NOISE,
    chunk_indices,
    entry_level,
    flow_matching_loss,
    noised,
    predict,
    with_truth,
)
from worldwarp.training.generator_loss import generator_loss
from worldwarp.training.rollout import RolloutConfig, roll_out
from worldwarp.training.samples import Sample, SampleConfig
from worldwarp.training.train_student import ONLINE_UPDATES, MatchingTask, Pair, TrajectoryTask
from worldwarp.training.train_teacher import TeacherTask, frame_levels
from worldwarp.training.trainer import TrainConfig, Trainer
from worldwarp.training.trajectories import Trajectories, follow, list_shards

SIZE = (16, 16)
CHUNKED = RolloutConfig(context=1, chunk=2, steps=4)
WHOLE = RolloutConfig(context=1, chunk=4, steps=20)


def network(seed: int = 0) -> DenoiserNetwork:
    torch.manual_seed(seed)
    return DenoiserNetwork(TOY_NETWORK)


class PixelNetwork(DenoiserNetwork):
    """One pixel and its level to its clean end, affine in the pixel: enough for Gaussian pixels, and quick to train."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(TOY_NETWORK)
        torch.manual_seed(seed)
        self.gains = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.GELU(), torch.nn.Linear(64, 2))

    def forward(
        self, inputs: Inputs, past: Past | None = None, chunk_of_frame: Tensor | None = None, first: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert past is None or chunk_of_frame is None
        with torch.autocast("cpu", enabled=False):
            slope, offset = self.gains(inputs.sigma[:, first:].movedim(2, -1)).movedim(-1, 2).split(1, dim=2)
        clean = slope * inputs.state[:, first:] + offset
        nothing = inputs.state.new_zeros(*inputs.state.shape[:2], 1, 1, 1)
        return clean, nothing, nothing


def unseen(batch: int, frames: int, truth: Tensor, copied: float = 1.0) -> Sample:
    """A sample of which nothing was seen but one context frame, its prior gray."""
    shape = (batch, frames, 1, *SIZE)
    context = (torch.arange(frames) < 1)[None, :, None, None, None]
    seen = torch.where(context, 1.0, 1.0 - copied).expand(shape).clone()
    flat = torch.where(context, truth, torch.zeros_like(truth))
    camera = Camera.from_fov(60.0, SIZE, torch.eye(4).repeat(frames, 1, 1))
    return Sample(
        truth=truth, prior=flat, smooth=flat, coverage=seen, confidence=seen.clone(), copied=1.0 - seen,
        determined=seen, world_from_camera=camera.world_from_camera.repeat(batch, 1, 1, 1),
        intrinsics=camera.intrinsics.repeat(batch, 1, 1, 1), unit=torch.ones(batch),
    )  # fmt: skip


def gaussian_pixels(mean: float, spread: float, rng: torch.Generator, batch: int = 4, frames: int = 3) -> Sample:
    """Every pixel of every frame drawn alone."""
    return unseen(batch, frames, mean + spread * torch.randn(batch, frames, 4, *SIZE, generator=rng))


def taught(mean: float, spread: float, steps: int, seed: int = 0) -> DenoiserNetwork:
    """A small teacher of Gaussian pixels."""
    net, rng = PixelNetwork(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = gaussian_pixels(mean, spread, rng, batch=16)
        noise = torch.randn(batch.truth.shape, generator=rng)
        loss = flow_matching_loss(net, batch, batch.truth, frame_levels(batch, rng), noise, 1, 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def posterior(noisy: Tensor, sigma: float, mean: float, spread: float) -> Tensor:
    """Clean end expected of a noisy value, data and noise Gaussian."""
    rest = 1.0 - sigma
    return mean + rest * spread**2 / (rest**2 * spread**2 + sigma**2) * (noisy - rest * mean)


@pytest.mark.parametrize("sigma", [0.3, 0.6, 0.95])
def test_the_teachers_velocity_is_the_closed_form(sigma: float, teacher: DenoiserNetwork) -> None:
    rng = torch.Generator().manual_seed(9)
    batch = gaussian_pixels(0.5, 0.3, rng, batch=8)
    inputs = noised(batch, batch.truth, torch.full((8, 3), sigma), torch.randn(batch.truth.shape, generator=rng), 1)
    with torch.no_grad():
        clean = predict(teacher, inputs, 1, 2)
    noisy, level = inputs.state[:, 1:], inputs.sigma[:, 1:]
    learned = clean_to_velocity(noisy, clean, level)
    exact = clean_to_velocity(noisy, posterior(noisy, sigma, 0.5, 0.3), level)
    blind = clean_to_velocity(noisy, torch.full_like(noisy, 0.5), level)
    error = (learned - exact).square().mean().sqrt()
    assert error < 0.08 * exact.std()
    if sigma < 0.9:  # there the noisy state says something
        assert error < 0.5 * (blind - exact).square().mean().sqrt()


def textured_clip(folder: Path) -> None:
    """Four frames of a textured wall, passed sideways."""
    rgb = np.random.default_rng(0).integers(0, 255, (1, 3, 20, 40), dtype=np.uint8).repeat(4, 0)
    write_clip(folder, rgb, np.full((4, 1, 20, 40), 0.5), cameras_along(0.3, 4, (20, 40), fov_deg=70.0))


@pytest.fixture(scope="module")
def teacher() -> DenoiserNetwork:
    return taught(0.5, 0.3, 500)


def test_many_steps_of_the_teacher_give_the_data(teacher: DenoiserNetwork) -> None:
    rng = torch.Generator().manual_seed(3)
    batch = gaussian_pixels(0.5, 0.3, rng, batch=8)
    made = roll_out(teacher, batch, torch.randn(batch.truth.shape, generator=rng), RolloutConfig(1, 2, 30)).made
    assert made.mean().item() == pytest.approx(0.5, abs=0.05)
    assert made.std().item() == pytest.approx(0.3, abs=0.06)


def test_matching_moves_a_gaussian_onto_another() -> None:
    """Two dimensions, closed-form scores on both sides: mean and covariance arrive."""
    rng = torch.Generator().manual_seed(0)
    mean, factor = torch.tensor([0.6, -0.4]), torch.tensor([[0.5, 0.0], [0.3, 0.2]])
    shift, mix = torch.tensor([-0.5, 0.5], requires_grad=True), (0.8 * torch.eye(2)).requires_grad_()
    optimizer = torch.optim.Adam([shift, mix], lr=0.01)
    weight = torch.ones(512, 1, 1, 1, 1)

    def end(noisy: Tensor, sigma: Tensor, center: Tensor, spread: Tensor) -> Tensor:
        rest, covariance = 1.0 - sigma[:, :, None], spread @ spread.T
        gain = rest * covariance @ torch.linalg.inv(rest**2 * covariance + sigma[:, :, None] ** 2 * torch.eye(2))
        return center + (gain @ (noisy - (1.0 - sigma) * center)[..., None])[..., 0]

    for _ in range(400):
        made = shift + torch.randn(512, 2, generator=rng) @ mix.T
        sigma = 0.02 + 0.96 * torch.rand(512, 1, generator=rng)
        with torch.no_grad():
            noisy = (1.0 - sigma) * made + sigma * torch.randn(512, 2, generator=rng)
            real, fake = end(noisy, sigma, mean, factor), end(noisy, sigma, shift, mix)
        states = [x[:, None, :, None, None] for x in (made, real, fake)]
        gradient = matching_gradient(states[0].detach(), states[1], states[2], weight)
        optimizer.zero_grad()
        matching_loss(states[0], gradient, weight).backward()
        optimizer.step()
    torch.testing.assert_close(shift.detach(), mean, atol=0.05, rtol=0.0)
    torch.testing.assert_close((mix @ mix.T).detach(), factor @ factor.T, atol=0.05, rtol=0.0)


def test_the_matching_loss_has_the_matching_gradient() -> None:
    made = torch.randn(2, 1, 4, 3, 3, requires_grad=True)
    weight = (torch.rand(2, 1, 1, 3, 3) > 0.4).float()
    gradient = matching_gradient(made.detach(), torch.randn(made.shape), torch.randn(made.shape), weight)
    assert (gradient * (1.0 - weight) == 0.0).all()
    matching_loss(made, gradient, weight).backward()
    assert made.grad is not None
    torch.testing.assert_close(made.grad, gradient / (4.0 * weight.sum()))


def test_matching_gradient_is_normalized_per_sample() -> None:
    made, real, fake = (torch.randn(1, 1, 4, 3, 3) for _ in range(3))
    weight = torch.ones(1, 1, 1, 3, 3)
    near = matching_gradient(made, made + 0.1 * (real - made), made + 0.1 * (fake - made), weight)
    torch.testing.assert_close(near, matching_gradient(made, real, fake, weight), atol=1e-4, rtol=1e-3)


def test_the_student_is_moved_onto_the_teacher(teacher: DenoiserNetwork, tmp_path: Path) -> None:
    """Student and online score through the real task, on Gaussian pixels."""

    class Pixels(MatchingTask):
        def batch(self, progress: float, rng: np.random.Generator) -> Sample:  # noqa: ARG002
            return gaussian_pixels(0.5, 0.3, torch.Generator().manual_seed(int(rng.integers(2**31))))

        def validate(self, network: Pair, folder: Path) -> dict[str, float]:  # noqa: ARG002
            return {}

    student = PixelNetwork(1)
    rollout = RolloutConfig(1, 1, 2)
    rng = torch.Generator().manual_seed(5)
    batch = gaussian_pixels(0.5, 0.3, rng, batch=8)
    noise = torch.randn(batch.truth.shape, generator=rng)
    before = roll_out(student, batch, noise, rollout).made
    assert abs(before.mean().item() - 0.5) > 0.2
    online = PixelNetwork()
    online.load_state_dict(teacher.state_dict())
    pair = Pair(student, online)
    task = Pixels(tmp_path, None, teacher, rollout)
    config = TrainConfig(steps=360, learning_rate=4e-3, warmup=10, ema=0.9)
    Trainer(pair, task, config, tmp_path / "run").run()
    after = roll_out(student.eval(), batch, noise, rollout).made
    assert after.mean().item() == pytest.approx(0.5, abs=0.1)
    assert int(pair.turn) == 360


def test_entry_level_equals_the_noise_map() -> None:
    rng = torch.Generator().manual_seed(0)
    copied = (torch.rand(1, 3, 1, *SIZE, generator=rng) > 0.5).float()
    coverage = torch.rand(1, 3, 1, *SIZE, generator=rng)
    confidence = torch.rand(1, 3, 1, *SIZE, generator=rng)
    one = gaussian_pixels(0.0, 1.0, rng, batch=1)
    batch = Sample(one.truth, one.prior, one.smooth, coverage, confidence, copied, copied, one.world_from_camera,
                   one.intrinsics, one.unit)  # fmt: skip
    flat = torch.zeros(2, 3, *SIZE)
    ones = torch.ones(2, 1, *SIZE)
    camera = Camera(batch.world_from_camera[0, 1:], *camera_of(2), SIZE)
    guide = Guide(flat, ones, coverage[0, 1:], confidence[0, 1:], 0.0 * ones, camera)
    prior = Prior(flat, ones, copied[0, 1:], flat, ones, ones < 0.0)
    torch.testing.assert_close(entry_level(batch, 1)[0, 1:], noise_map(guide, prior, FULL_NOISE))
    assert (entry_level(batch, 1)[:, :1] == 0.0).all()
    noise = torch.randn(batch.truth.shape, generator=rng)
    inputs = noised(batch, batch.truth, torch.full((1, 3), 0.3), noise, 1)
    waiting = (entry_level(batch, 1) <= 0.3) & (entry_level(batch, 1) > 0.0)
    level = entry_level(batch, 1)
    expected = (1.0 - level) * batch.prior + level * noise
    torch.testing.assert_close(inputs.state[waiting.expand_as(noise)], expected[waiting.expand_as(noise)])


def camera_of(frames: int) -> tuple[Tensor, Tensor]:
    camera = Camera.from_fov(60.0, SIZE, torch.eye(4).repeat(frames, 1, 1))
    return camera.focal_px, camera.center_px


def test_kv_memory_equals_the_block_causal_mask() -> None:
    """One step of a rollout, its chunks remembered, equals one masked pass over finished frames."""
    net = network().eval()
    rng = torch.Generator().manual_seed(0)
    batch = gaussian_pixels(0.2, 0.4, rng, batch=2, frames=5)
    noise = torch.randn(batch.truth.shape, generator=rng)
    first = roll_out(net, batch, noise, RolloutConfig(1, 2, 1)).made
    other = Sample(**{**vars(batch), "truth": with_truth(batch, torch.randn(2, 4, 4, *SIZE, generator=rng), 1)})
    assert torch.equal(roll_out(net, other, noise, RolloutConfig(1, 2, 1)).made, first)  # the truth is not looked at
    changed = noise.clone()
    changed[:, 3:] += 1.0
    later = roll_out(net, batch, changed, RolloutConfig(1, 2, 1)).made
    assert torch.equal(later[:, :2], first[:, :2])  # the past does not see the future
    assert not torch.equal(later[:, 2:], first[:, 2:])
    changed = noise.clone()
    changed[:, 1] += 1.0
    earlier = roll_out(net, batch, changed, RolloutConfig(1, 2, 1)).made
    assert not torch.equal(earlier[:, 2:], first[:, 2:])  # chunk 2 remembers chunk 1
    whole = roll_out(net, batch, changed, RolloutConfig(1, 4, 1)).made
    changed[:, 4] += 1.0
    first_frame = roll_out(net, batch, changed, RolloutConfig(1, 4, 1)).made[:, 0]
    assert not torch.equal(first_frame, whole[:, 0])  # one chunk of all frames is bidirectional
    assert chunk_indices(5, 1, 2).tolist() == [0, 1, 1, 2, 2]


def test_rollout_equals_the_sampler() -> None:
    """Training samples as the program does: same network, same noise, same frames."""
    net = network().eval()
    rng = torch.Generator().manual_seed(0)
    frames = 3
    camera = Camera.from_fov(60.0, SIZE, torch.eye(4).repeat(frames, 1, 1))
    photo = Frame(torch.rand(1, 3, *SIZE, generator=rng), torch.ones(1, 1, *SIZE), *flags(1), camera[[0]])
    generator = RetouchGenerator.of(net, MemoryPolicy(bank=24))
    memory = generator.start(Chunk(photo, 0, observed=True, confidence=torch.ones(1, 1, *SIZE)))
    gray, ones = torch.full((2, 3, *SIZE), 0.5), torch.ones(2, 1, *SIZE)
    guide = Guide(gray, ones, 0.0 * ones, 0.0 * ones, 0.0 * ones, camera[[1, 2]])
    prior = Prior(gray, ones, ones, gray, ones, ones < 0.0)
    sigma = noise_map(guide, prior, FULL_NOISE)
    out = sample(generator, Condition(guide, prior), sigma, memory, torch.Generator().manual_seed(7), SamplerConfig(4))
    truth = torch.cat([encode(photo.rgb, photo.depth, 1.0), torch.zeros(2, 4, *SIZE)])[None]
    batch = unseen(1, frames, truth)
    noise = torch.zeros(1, frames, 4, *SIZE)
    noise[0, 1:] = torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(7))
    made = roll_out(net, batch, noise, RolloutConfig(1, 2, 4)).made[0]
    torch.testing.assert_close(2.0 * out.rgb - 1.0, made[:, :3].clamp(-1.0, 1.0), atol=0.05, rtol=0.0)


def flags(frames: int) -> tuple[Tensor, Tensor]:
    valid = torch.ones(frames, 1, *SIZE, dtype=torch.bool)
    return valid, ~valid


def test_only_the_stop_step_has_a_gradient() -> None:
    net = network()
    rng = torch.Generator().manual_seed(0)
    batch = gaussian_pixels(0.2, 0.4, rng, batch=1)
    noise = torch.randn(batch.truth.shape, generator=rng)
    assert not roll_out(net, batch, noise, CHUNKED).made.requires_grad
    made = roll_out(net, batch, noise, CHUNKED, stop=2).made
    made.square().mean().backward()
    assert net.head.weight.grad is not None
    assert net.head.weight.grad.abs().sum() > 0.0


def test_trajectories_start_at_noise_and_end_clean(tmp_path: Path) -> None:
    net = network().eval()
    rng = torch.Generator().manual_seed(0)
    batch = gaussian_pixels(0.2, 0.4, rng, batch=2, frames=5)
    noise = torch.randn(batch.truth.shape, generator=rng)
    found = follow(net, batch, noise, WHOLE, 4)
    assert found.levels.tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(found.states[:, 0], noise[:, 1:])
    assert (found.states[:, 3] - found.clean).abs().mean() < (found.states[:, 1] - found.clean).abs().mean()
    found.save(tmp_path / "trajectories_00000.safetensors")
    again = Trajectories.load(list_shards(tmp_path)[0])
    torch.testing.assert_close(again.states, found.states, atol=2e-3, rtol=1e-3)
    assert torch.equal(again.sample.unit, batch.unit)
    (tmp_path / "trajectories_00000.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="record it again"):
        Trajectories.load(tmp_path / "trajectories_00000.safetensors")
    with pytest.raises(ValueError, match="worldwarp train trajectories"):
        list_shards(tmp_path / "none")


def test_a_student_learns_the_trajectories(teacher: DenoiserNetwork, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    for index in range(4):
        batch = gaussian_pixels(0.5, 0.3, rng, batch=4, frames=3)
        noise = torch.randn(batch.truth.shape, generator=rng)
        follow(teacher, batch, noise, RolloutConfig(1, 2, 12), 4).save(tmp_path / f"trajectories_{index}.safetensors")
    task = TrajectoryTask(tmp_path, list_shards(tmp_path), RolloutConfig(1, 1, 4))
    net, numbers = network(2), np.random.default_rng(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    losses = []
    for _ in range(60):
        loss, _ = task.loss(net, task.batch(0.0, numbers), rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:5])
    task.save(net, tmp_path / "ema.safetensors", {"steps": "60"})
    with safe_open(tmp_path / "ema.safetensors", "pt") as file:
        assert file.metadata()["role"].startswith("student")
    assert load_network(tmp_path / "ema.safetensors").config == TOY_NETWORK


def pair() -> Pair:
    return Pair(network(1), network(2))


def test_distillation_runs_on_clips_and_resumes_exactly(tmp_path: Path) -> None:
    textured_clip(tmp_path)
    shape = SampleConfig((16, 32), halved=False, context=1, targets=2)
    rollout = RolloutConfig(context=1, chunk=1, steps=2)
    config = TrainConfig(steps=8, learning_rate=1e-3, warmup=2, ema=0.9)
    task = MatchingTask(tmp_path, None, network(0), rollout, shape, batch=1)
    whole = pair()
    figures = Trainer(whole, task, config, tmp_path / "whole").run()
    assert set(figures) == {"made_color", "made_depth", "prior_color", "prior_depth"}
    first = Trainer(pair(), task, config, tmp_path / "parts")
    for _ in range(5):
        first._advance()
    first._save_and_validate()
    rest = pair()
    Trainer(rest, task, config, tmp_path / "parts").run()
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True))
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    assert "validation" in json.loads(lines[-1])
    with safe_open(tmp_path / "whole" / "ema.safetensors", "pt") as file:
        assert file.metadata()["role"] == "student"


def test_two_time_scales(tmp_path: Path) -> None:
    """The online score moves in its turns, the student in its own, and neither drifts in the other's."""
    textured_clip(tmp_path)
    task = MatchingTask(
        tmp_path, None, network(0), RolloutConfig(1, 1, 2), SampleConfig((16, 32), False, context=1, targets=2), batch=1
    )
    both = pair()
    trainer = Trainer(both, task, TrainConfig(steps=40, learning_rate=1e-2, warmup=1), tmp_path / "run")
    for turn in range(1, 2 * (ONLINE_UPDATES + 1) + 1):
        before = {name: value.clone() for name, value in both.state_dict().items()}
        trainer._advance()
        moved = {name for name, value in both.state_dict().items() if not torch.equal(value, before[name])}
        whose = "student." if turn % (ONLINE_UPDATES + 1) == 0 else "online."
        assert moved - {"turn"}
        assert all(name.startswith(whose) for name in moved - {"turn"})


def test_a_teacher_trains_on_clips(tmp_path: Path) -> None:
    textured_clip(tmp_path)
    shape = SampleConfig((16, 32), halved=False, context=1, targets=2)
    task = TeacherTask(tmp_path, None, RolloutConfig(1, 2, 3), shape, batch=1)
    Trainer(network(), task, TrainConfig(steps=2, learning_rate=1e-3), tmp_path / "run").run()
    with safe_open(tmp_path / "run" / "ema.safetensors", "pt") as file:
        assert file.metadata()["role"] == "teacher"
    trained = load_network(tmp_path / "run" / "ema.safetensors")
    save_network(trained, tmp_path / "again.safetensors")
    assert trained.config == TOY_NETWORK


def test_stages_report_missing_inputs(tmp_path: Path) -> None:
    textured_clip(tmp_path)
    with pytest.raises(ConfigError, match="initial-student"):
        train_command(["pupil"])
    with pytest.raises(ValueError, match="worldwarp train trajectories"):
        train_command(["initial-student", f"data={tmp_path}", f"trajectories={tmp_path}/none"])
    with pytest.raises(ConfigError, match="ranks"):
        train_command(["trajectories", "ranks=2"])
    with pytest.raises(ConfigError, match="viewer: want none or file"):
        train_command(["teacher", "viewer=native"])
    for stage in ("depth", "generator", "teacher", "trajectories", "initial-student", "student"):
        with pytest.raises(ValueError, match="device: want cpu or cuda, got 'gpu'"):
            train_command([stage, f"data={tmp_path}", "device=gpu"])


def test_a_watched_training_is_recorded_in_its_folder(tmp_path: Path) -> None:
    textured_clip(tmp_path)
    shape = SampleConfig((16, 32), halved=False, context=1, targets=2)
    task = TeacherTask(tmp_path, None, RolloutConfig(1, 2, 3), shape, batch=1)
    for name, steps in (("training.rrd", 1), ("training-2.rrd", 2)):
        watch = pickle.loads(pickle.dumps(TrainingWatch(tmp_path / "run")))  # as it travels to another process
        Trainer(network(), task, TrainConfig(steps=steps, learning_rate=1e-3, watch=watch), tmp_path / "run").run()
        assert (tmp_path / "run" / name).stat().st_size > 1000


def test_losses_are_on_the_device_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors that only know shape and device: those of two devices do not mix there, as on a GPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_: nullcontext())  # has no such device
    elsewhere = torch.device("meta")
    net = network().to(elsewhere)
    sample = unseen(2, 3, torch.rand(2, 3, 4, *SIZE))
    ends = sample.truth[:, 1:]
    shard = Trajectories(sample, torch.tensor([1.0, 0.5]), torch.stack([ends, ends], dim=1), ends)
    teacher, student = TeacherTask(Path(), None, CHUNKED), TrajectoryTask(Path(), [], CHUNKED)
    losses: dict[str, Callable[[torch.Generator], Tensor]] = {
        "generator": lambda rng: generator_loss(net, moved(sample, elsewhere), 1, rng)[0],
        "teacher": lambda rng: teacher.loss(net, moved(sample, elsewhere), rng)[0],
        "student": lambda rng: student.loss(net, moved(shard, elsewhere), rng)[0],
    }
    for name, loss in losses.items():
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert loss(torch.Generator().manual_seed(0)).device == elsewhere, name
