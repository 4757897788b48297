"""Training samples, the loss that keeps texture, and a toy run of the real trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import default_collate

from diffusion.inpainting.masks import thin
from diffusion.noise_map import NoiseConfig
from diffusion.retouch.generator import load_network, save_network
from diffusion.retouch.network import DenoiserNetwork
from diffusion.rgbd_state import encode
from scenes.dataset.clips import read_clip
from tests.helpers import TOY_NETWORK, cameras_along, write_clip
from worldwarp.training import samples as guides
from worldwarp.training import train_generator as generator_training
from worldwarp.training.accelerated import CHECKPOINT, Pace, train
from worldwarp.training.augmentation import copy_far, copy_near, hairlines, spoil_seen
from worldwarp.training.generator_loss import loss_terms, noisy_inputs
from worldwarp.training.record_guides import record_guides
from worldwarp.training.samples import Sample, SampleConfig, recorded_sample, warped_sample
from worldwarp.training.train_generator import WEIGHTS, GeneratorStage, train_generator

SHAPE = SampleConfig((32, 48), halved=False, context=1, targets=2)


def _clip(folder: Path, frames: int = 6) -> Path:
    """A textured wall with a nearer box, passed sideways."""
    rng = np.random.default_rng(0)
    size = (36, 56)
    rgb = np.repeat(rng.integers(0, 255, (1, 3, *size), dtype=np.uint8), frames, 0)
    inverse = np.full((frames, 1, *size), 0.5, np.float16)
    inverse[..., 10:24, 20:34] = 1.0
    inverse[..., :4, :] = 0.0
    return write_clip(folder, rgb, inverse, cameras_along(0.15, frames, size, fov_deg=70.0))


@pytest.mark.parametrize("seed", range(6))
def test_samples_are_complete_and_faithful_where_seen(tmp_path: Path, seed: int) -> None:
    sample = warped_sample(read_clip(_clip(tmp_path)), SHAPE, np.random.default_rng(seed))
    again = warped_sample(read_clip(tmp_path / "clip.safetensors"), SHAPE, np.random.default_rng(seed))
    assert sample.truth.shape == (3, 4, 32, 48)
    for name in ("truth", "prior", "smooth", "coverage", "confidence", "copied", "determined"):
        value = getattr(sample, name)
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, getattr(again, name)), name
    assert torch.equal(sample.prior[:1], sample.truth[:1])
    torch.testing.assert_close(sample.coverage + sample.copied, torch.ones_like(sample.copied))
    assert (sample.confidence[sample.copied > 0] == 0).all()


def test_guides_are_recorded_once_and_serve_as_samples(tmp_path: Path) -> None:
    path = _clip(tmp_path)
    record_guides([path], tmp_path / "guides")
    written = tmp_path / "guides" / path.name
    first = written.read_bytes()
    record_guides([path], tmp_path / "guides")
    assert written.read_bytes() == first
    written.unlink()
    record_guides([path], tmp_path / "guides")
    assert written.read_bytes() == first
    sample = recorded_sample(read_clip(path), written, SHAPE, np.random.default_rng(0))
    assert sample.truth.shape == (3, 4, 32, 48)
    assert (sample.copied[SHAPE.context :] > 0.5).any()
    assert (sample.coverage[SHAPE.context :] > 0.5).any()


def test_half_size_and_bad_sizes(tmp_path: Path) -> None:
    clip = read_clip(_clip(tmp_path))
    sample = warped_sample(clip, replace(SHAPE, size=(16, 16), halved=True), np.random.default_rng(0))
    assert sample.truth.shape == (3, 4, 16, 16)
    with pytest.raises(ValueError, match="at least"):
        warped_sample(clip, replace(SHAPE, size=(64, 64)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="frames"):
        warped_sample(clip, replace(SHAPE, targets=9), np.random.default_rng(0))


def test_recorded_guides_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = read_clip(_clip(tmp_path))
    targets = [1, 3]
    state = encode(clip.rgb[targets], clip.depth[targets], clip.depth[0][~clip.sky[0]].median().item())
    whole = (clip.rgb[targets] * 255).round().to(torch.uint8)
    hole = torch.zeros(2, 1, 36, 56, dtype=torch.uint8)
    hole[..., 20:] = 255
    rows = {
        "source": torch.zeros(2, dtype=torch.int64),
        "target": torch.tensor(targets),
        "prior_rgb": whole,
        "smooth_rgb": whole.clone(),
        "prior_depth": state[:, 3:].half(),
        "smooth_depth": state[:, 3:].half().clone(),
        "coverage": 255 - hole,
        "confidence": (255 - hole).clone(),
        "copied": hole,
    }
    save_file({k: v.contiguous() for k, v in rows.items()}, tmp_path / "guide.safetensors")
    monkeypatch.setattr(guides, "SPOILED_SHARE", 0.0)
    sample = recorded_sample(clip, tmp_path / "guide.safetensors", SHAPE, np.random.default_rng(0))
    torch.testing.assert_close(sample.prior, sample.truth, atol=0.02, rtol=0.0)  # the guide was the truth
    assert 0.2 < sample.copied[1:].mean() < 0.9
    monkeypatch.setattr(guides, "SPOILED_SHARE", 1.0)
    spoiled = recorded_sample(clip, tmp_path / "guide.safetensors", SHAPE, np.random.default_rng(0))
    seen = (spoiled.copied[1:] < 0.5).expand(-1, 4, -1, -1)
    assert torch.equal(spoiled.prior[1:][~seen], sample.prior[1:][~seen])
    assert not torch.allclose(spoiled.prior[1:][seen], sample.prior[1:][seen], atol=0.05)
    assert (spoiled.confidence <= sample.confidence).all()


def test_copies_keep_to_their_part() -> None:
    rng = np.random.default_rng(0)
    truth = torch.rand(2, 4, 32, 48) * 2 - 1
    near = copy_near(truth, rng)
    assert near.shape == truth.shape
    assert near.abs().max() <= 1.0
    known = torch.ones(2, 1, 32, 48, dtype=torch.bool)
    known[..., 30:] = False
    seen = torch.where(known, 0.25, 9.0).expand(2, 4, 32, 48)
    far, copied = copy_far(seen, known, rng)
    assert not (copied & known).any()
    assert copied.any()
    assert (far[copied.expand_as(far)] == 0.25).all()  # never copied from a hole
    lined = hairlines(torch.zeros(2, 3, 32, 48), ~known, rng)
    assert (lined[known.expand_as(lined)] == 0).all()


def test_thin_parts_of_holes() -> None:
    hole = torch.zeros(1, 1, 40, 60, dtype=torch.bool)
    hole[..., 5:9] = True
    hole[..., 30:55] = True
    narrow = thin(hole)
    assert narrow[..., 5:9].all()
    assert not narrow[..., 12:28, 34:50].any()


def _sample(tmp_path: Path) -> Sample:
    return Sample.stack([warped_sample(read_clip(_clip(tmp_path)), SHAPE, np.random.default_rng(3))])


def test_blur_costs_more_than_texture(tmp_path: Path) -> None:
    """Where nothing is determined, the texture that was copied beats the blurred truth."""
    sample = _sample(tmp_path)
    open_ = replace(sample, copied=torch.ones_like(sample.copied), determined=torch.zeros_like(sample.determined))
    texture = sample.truth[:, 1:].flip(-1)
    open_ = replace(open_, prior=torch.cat([sample.truth[:, :1], texture], 1))
    fog = torch.nn.functional.avg_pool2d(sample.truth[:, 1:].flatten(0, 1), 9, 1, 4).unflatten(0, (1, 2))
    fog[:, :, 3:] = texture[:, :, 3:]
    kept, lost = (loss_terms(made, open_, 1) for made in (texture, fog))
    assert kept["keep"] < 1e-6
    assert lost["keep"] > 0.01
    assert kept["strength"] < 1e-5
    assert lost["strength"] > 0.5


def test_blind_sample_has_only_the_noise_level(tmp_path: Path) -> None:
    sample = _sample(tmp_path)
    sample = Sample.stack([Sample(*(getattr(sample, f.name)[0] for f in fields(Sample)))] * 16)
    told, untold = (noisy_inputs(sample, 1, torch.Generator().manual_seed(0), blind=share) for share in (0.0, 1.0))
    assert torch.equal(told.coverage, sample.coverage)
    assert torch.equal(untold.coverage[:, :1], sample.coverage[:, :1])  # the context is always known
    assert not untold.coverage[:, 1:].any()
    assert (untold.copied[:, 1:] == 1).all()
    even = untold.sigma[:, 1:].flatten(1).std(1) == 0
    assert 0 < even.sum() < 16
    assert torch.equal(untold.sigma[~even], told.sigma[~even])
    assert torch.equal(told.prior, untold.prior)


@pytest.mark.parametrize("seed", range(8))
def test_covered_pixels_are_corrupted_as_confidence_falls(seed: int) -> None:
    rgb = torch.rand(2, 3, 30, 40) * 2 - 1
    worse, trust = spoil_seen(rgb, np.random.default_rng(seed))
    assert worse.shape == rgb.shape
    assert worse.abs().max() <= 1.0
    assert trust.shape == (2, 1, 30, 40)
    assert 0.0 <= trust.min() <= trust.max() <= 1.0
    assert (worse - rgb).abs().mean() > 0.01


def test_thin_holes_are_regressed_and_seams_are_counted(tmp_path: Path) -> None:
    sample = _sample(tmp_path)
    truth = sample.truth[:, 1:]
    assert all(value < 1e-3 for name, value in loss_terms(truth, sample, 1).items() if name != "keep")
    hole = torch.zeros_like(sample.copied)
    hole[:, 1:, :, 10:14, :20] = 1.0
    hole[:, 1:, :, 4:30, 28:] = 1.0
    holed = replace(sample, copied=hole, determined=1.0 - hole)
    thin_off, wide_off = truth.clone(), truth.clone()
    thin_off[..., :3, 10:14, :20] += 0.5
    wide_off[..., :3, 4:30, 28:] += 0.5
    assert loss_terms(thin_off, holed, 1)["thin"] > 0.1
    assert loss_terms(wide_off, holed, 1)["thin"] < 1e-6
    assert loss_terms(wide_off, holed, 1)["seam"] > loss_terms(thin_off, holed, 1)["seam"]


def test_loss_of_wrong_depth_saturates(tmp_path: Path) -> None:
    sample = _sample(tmp_path)
    holed = replace(sample, copied=torch.ones_like(sample.copied))
    flat = torch.zeros_like(sample.truth)
    wrong = []
    for code in (0.0, 0.06, 0.5, 0.8):
        made = flat[:, 1:].clone()
        made[:, :, 3:] = code
        wrong.append(loss_terms(made, replace(holed, truth=flat), 1)["wrong"].item())
    assert wrong[0] == 0.0
    assert wrong[1] / 0.06 > 5 * (wrong[3] - wrong[2]) / 0.3


def test_noise_levels_are_those_of_the_sampler(tmp_path: Path) -> None:
    sample = _sample(tmp_path)
    inputs = noisy_inputs(sample, 1, torch.Generator().manual_seed(0))
    assert (inputs.sigma[:, 0] == 0).all()
    assert torch.equal(inputs.state[:, 0], sample.truth[:, 0])
    sure = (inputs.uncertainty == 0).expand_as(inputs.sigma)
    assert (inputs.sigma[sure] == 0).all()
    assert inputs.sigma[sample.copied == 1].min() > 0
    start = noisy_inputs(sample, 1, torch.Generator().manual_seed(0), at_start=1.0)
    config = NoiseConfig()
    entry = config.copied * sample.copied + config.seen * (1.0 - sample.copied) * (1.0 - sample.confidence)
    torch.testing.assert_close(start.sigma[:, 1:], entry[:, 1:])


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], GeneratorStage]:
    """Makes a small stage, in a folder with a clip; its first two steps are at half size."""
    monkeypatch.setattr(generator_training, "FULL", SHAPE)
    monkeypatch.setattr(generator_training, "HALF", replace(SHAPE, size=(16, 16), halved=True))
    _clip(tmp_path / "data")
    torch.manual_seed(0)
    save_network(DenoiserNetwork(TOY_NETWORK), tmp_path / "start.safetensors")

    def make() -> GeneratorStage:
        made = GeneratorStage(tmp_path / "data", tmp_path / "start.safetensors")
        made.halved_steps = 2
        return made

    return make


def _batch(stage: GeneratorStage) -> dict[str, Tensor]:
    return default_collate([stage.draw(np.random.default_rng(number)) for number in range(2)])


def test_a_few_steps_lower_the_loss(stage: Callable[[], GeneratorStage]) -> None:
    small = stage()
    batch = _batch(small)
    optimizer = torch.optim.Adam(small.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = small.loss(small.network, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0]
    assert all(parameter.grad is not None for parameter in small.network.parameters())  # as DDP wants it


def test_a_training_that_was_interrupted_goes_on_to_the_bit(
    stage: Callable[[], GeneratorStage], tmp_path: Path
) -> None:
    def stopped() -> GeneratorStage:
        made = stage()

        def set_step(step: int) -> None:
            if step == 2:
                raise KeyboardInterrupt
            GeneratorStage.set_step(made, step)

        made.set_step = set_step  # type: ignore[method-assign]  # of this one stage
        return made

    pace = Pace(steps=4, batch=2, learning_rate=3e-3, warmup=1)
    figures = train(stage, pace, tmp_path / "whole")
    assert set(figures) == {"made_color", "made_depth", "prior_color", "prior_depth"}
    assert (tmp_path / "whole" / "sheet.png").is_file()
    assert load_network(tmp_path / "whole" / "model" / WEIGHTS).config == TOY_NETWORK
    with pytest.raises(KeyboardInterrupt):
        train(stopped, replace(pace, checkpoint_s=0.0), tmp_path / "parts")
    train(stage, pace, tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_training_records_guides_and_starts_from_given_weights(
    stage: Callable[[], GeneratorStage], tmp_path: Path
) -> None:
    start, out = tmp_path / "start.safetensors", tmp_path / "out"
    stage()
    train_generator(tmp_path / "data", out, start, steps=1, batch=1)
    assert (tmp_path / "data" / "guides" / "clip.safetensors").is_file()
    kept, given = (load_file(path) for path in (out / "model" / WEIGHTS, start))
    assert load_network(out / "model" / WEIGHTS).config == TOY_NETWORK
    for name, value in given.items():  # one step of the warm-up
        torch.testing.assert_close(kept[name], value, rtol=0.0, atol=1e-4)
    assert any(not torch.equal(kept[name], value) for name, value in given.items())


def test_the_loss_is_on_the_device_of_the_batch(stage: Callable[[], GeneratorStage]) -> None:
    """On tensors that only know shape and device: those of two devices do not mix there, as on a GPU."""
    small, elsewhere = stage(), torch.device("meta")
    batch = {name: value.to(elsewhere) for name, value in _batch(small).items()}
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert small.loss(small.network.to(elsewhere), batch)["loss"].device == elsewhere
