"""Can a model of the Wan class fill holes through the whole loop? `python -m benchmarks.quality.overfitted_wan
[--size HxW] [--frames N] [--decoder-steps N] [--transformer-steps N] [--out FOLDER]`.

No published weights run on a CPU in minutes, and a random model shows only that nothing breaks. So a toy of the real
classes is overfitted to one clip, a pillar before a wall past which the camera moves, and then given the first frame,
its true depth and the cameras: what the first frame does not show, it must draw. The true depth of each frame stands in
for an estimate, so that the colors of holes are all that differs.

The line is ``causal-forcing-frame``: it has the most parts of its own (two endless streams of the VAE, keys and values
of remembered latents, fresh noise after each step), its photo is latent 0, and a chunk of one latent gives the most
chunks per frame. Its published noise mode gives all tokens one level; here it is ``hold``, a level per token.

* The VAE keeps its random encoder, whose last layer is scaled so that the clip's latents have the published statistics;
  only its decoder is trained. It learns the clip by heart in part: of an untrained transformer's latents it draws
  something like it. What the transformer does is therefore measured in latents too.
* The transformer learns to denoise all chunks at once, each under a mask that shows it the clean latents before it and
  its own (teacher forcing), with levels, masks and guides that differ from draw to draw.

PSNR of the pixels that show what the first frame does not (by the true geometry), for: `prior`, the guide with holes
filled by copies, without a network; `untrained`, the toy; `untrained transformer`, with the trained decoder; `trained`;
`memory alone`, the trained toy with all tokens at level 1: nothing but its memory tells it which chunk it draws; and
`a chunk late`, the true clip four frames later, to compare with. `..., latents`: signal-to-noise ratio of the latents
that were made, all tokens, against those of the true clip. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.data.walks import determined
from diffusion.flow import add_noise, clean_to_velocity
from diffusion.wan.fresh import write_part
from diffusion.wan.generator import WanGenerator
from diffusion.wan.lines import LINES
from diffusion.wan.load import find_checkpoint, load_transformer, load_vae
from diffusion.wan.masked import MaskedAttention
from diffusion.wan.schedule import shifted
from diffusion.wan.tokens import FRAMES_PER_LATENT, expanded, token_levels
from diffusion.wan.toy import make_toy
from diffusion.wan.vae import StreamingVAE
from geometry.depth import DepthMap
from geometry.frame import Frame
from scenes.io.png import to_bytes
from tests.helpers import cameras_along, pillar_before_wall
from worldwarp import explore
from worldwarp.state import Step
from worldwarp.training.accelerated import MODEL, Pace, train

LINE = LINES["causal-forcing-frame"]
REACH = 0.8  # of the camera over the whole clip, scene units; the wall is at 2.5
DRAWS = 8  # of noise, levels and masks in one step of training, all of the same clip
WAN = ("generator=wan", "generator.mode=hold", "generator.chunk=1")
PRIOR = ("generator=passthrough", "noise=regions")


class TrueDepth:
    """The depth of a clip's frames, asked for in their order: of the photo, then of each chunk."""

    def __init__(self, clip: Frame) -> None:
        self._rest = clip

    def estimate(self, rgb: Tensor, focal_px: Tensor | None = None) -> DepthMap:  # noqa: ARG002
        """That of the next frames."""
        now, self._rest = self._rest[: len(rgb)], self._rest[len(rgb) :]
        return DepthMap(now.depth, now.valid, now.sky, metric=True)


def film(frames: int, size: tuple[int, int]) -> Frame:
    """The clip ``[frames]`` with its true depth; colors of 8 bits."""
    cameras = cameras_along(REACH / (frames - 1), frames, size)
    clip = Frame.concatenate([pillar_before_wall(cameras[k : k + 1])[0] for k in range(frames)])
    return Frame((255.0 * clip.rgb).round() / 255.0, clip.depth, clip.valid, clip.sky, cameras)


def walked(clip: Frame, photo: Path, *settings: str) -> list[Step]:
    """What `worldwarp.explore` makes of the photo along the clip's cameras."""
    words = [f"chunk={FRAMES_PER_LATENT}", "prior=copy", *settings]
    return list(explore(image=photo, path=clip.camera, depth=TrueDepth(clip), viewer="none", overrides=words))


def train_decoder(vae: Any, clip: Frame, steps: int, rate: float = 5e-3) -> None:
    """Scale the encoder to the published statistics on ``clip``, then fit the decoder to it, in place."""
    mean, std = (torch.tensor(numbers) for numbers in (vae.config.latents_mean, vae.config.latents_std))
    latents = encoded(vae, clip.rgb[:1], clip.rgb[1:]).transpose(0, 1).flatten(1)
    shift, scale = latents.mean(1), 1.0 / latents.std(1)
    with torch.no_grad():  # a channel (z - mean) / std becomes ((z - mean) / std - shift) * scale
        last, own = vae.quant_conv, slice(len(mean))
        last.weight[own] *= scale.reshape(-1, 1, 1, 1, 1)
        last.bias[own] = (last.bias[own] - mean - std * shift) * scale + mean
        clean = vae.encode(2.0 * clip.rgb.transpose(0, 1)[None] - 1.0).latent_dist.mode()
    half = nn.ModuleList([vae.decoder, vae.post_quant_conv]).requires_grad_(True)
    noise, rng = 0.1 * std.reshape(1, -1, 1, 1, 1), torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        spoiled = clean + noise * torch.randn(clean.shape, generator=rng)  # the transformer will not be exact
        return (0.5 * vae.decode(spoiled).sample[0].transpose(0, 1) + 0.5 - clip.rgb).square().mean()

    _fit(half, loss, steps, rate, "decoder")
    half.requires_grad_(False)


def encoded(vae: Any, photo: Float[Tensor, "1 3 h w"], rgb: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "f c hl wl"]:
    """Latents of one stream, the photo's first."""
    stream = StreamingVAE(vae)
    first, state = stream.encode(photo)
    return torch.cat([first, stream.encode(rgb, state)[0]])


Taught = Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor]


def teach(model: Any, count: int, draws: int) -> Taught:
    """One pass of a model for all chunks of a clip, each with the clean clip before it: teacher forcing.

    Attention of the model is replaced. The pass takes the model (as a trainer wraps it), ``count`` clean latents
    ``[f c h w]``, noisy ones of the ``count`` places after the photo, ``draws`` times ``[df c h w]``, their levels
    ``[df 1 h w]`` and the text ``[1 512 d]``; it returns the velocities of the noisy ones. Clean latents see themselves
    and those before them, as when they are remembered; noisy ones see the clean ones before their place, and
    themselves.

    Args:
        model: with its stock attention.
        count: chunks of one latent.
        draws: of noise.
    """
    draw = torch.cat([torch.zeros(count, dtype=torch.int64), torch.arange(1, draws + 1).repeat_interleave(count)])
    place = torch.cat([torch.arange(count), torch.arange(1, count + 1).repeat(draws)])
    sees = ((draw == 0) & (place < place[:, None])) | ((draw == draw[:, None]) & (place == place[:, None]))
    attention, positions = MaskedAttention(model), place.tolist()

    def taught(network: Any, clean: Tensor, noisy: Tensor, level: Tensor, text: Tensor) -> Tensor:
        clip, levels = torch.cat([clean, noisy])[None], torch.cat([torch.zeros_like(clean[:, :1]), level])[None]
        return attention.velocity(network, clip, levels, text, sees[None], positions)[0, count:]

    return taught


class Forcing:
    """A stage of the trainer: one clip by flow matching, a chunk of one latent at a time."""

    def __init__(
        self,
        model: Any,
        text: Float[Tensor, "1 512 d"],
        clean: Float[Tensor, "f c h w"],
        guide: Float[Tensor, "f c h w"],
        level: Float[Tensor, "f 1 ht wt"],
    ) -> None:
        """What there is to learn.

        Args:
            model: with its stock attention.
            text: embedded prompt.
            clean: latents of the clip, the photo's first.
            guide: what the loop shows of it, encoded in the same stream.
            level: at which each token of the guide starts, 1 in holes.
        """
        self.network, self.text, self.clean = model.requires_grad_(True), text, clean
        self.taught = teach(model, len(clean) - 1, DRAWS)
        self.hole = level[1:].eq(1.0).repeat(DRAWS, 1, 1, 1)
        self.truth, self.shown = (latents[1:].repeat(DRAWS, 1, 1, 1) for latents in (clean, guide))
        self.patch: int = model.config.patch_size[-1]

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Noise, levels and masks of all draws of one pass."""
        frames = len(self.truth)

        def uniform(*shape: int) -> Tensor:
            return torch.from_numpy(rng.random(shape, np.float32))

        # Holes of the walk in half of the draws, any tokens in the others; what is known starts at any level up to .8.
        anywhere = uniform(*self.hole.shape) < uniform(frames, 1, 1, 1)
        start = torch.where(
            torch.where(uniform(frames, 1, 1, 1) < 0.5, self.hole, anywhere), 1.0, 0.8 * uniform(frames, 1, 1, 1)
        )
        row = shifted(uniform(frames, 1, 1, 1), LINE.shift)
        sigma, waits = (expanded(value, self.patch) for value in (torch.minimum(start, row), (row >= start).float()))
        # A token that waits is a noised guide, which is right or wrong in part; one on its way is the noised truth.
        base = torch.lerp(self.truth, self.shown, waits * uniform(frames, 1, 1, 1))
        noise = torch.from_numpy(rng.standard_normal(self.truth.shape, np.float32))
        return {"noisy": add_noise(base, noise, sigma), "level": sigma}

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of the clean latents; a batch is one pass."""
        noisy, sigma = batch["noisy"][0], batch["level"][0]
        error = self.taught(network, self.clean[:-1], noisy, sigma, self.text) - clean_to_velocity(
            noisy, self.truth, sigma
        )
        return {"loss": (error.square() * sigma.square()).mean()}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:  # noqa: ARG002
        """Nothing: the walks measure it."""
        return {}

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """In place of what was written there before."""
        write_part(folder, self.network, self.network.config, weights)


def _fit(network: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float, name: str) -> None:
    """Adam with a short warm-up and a cosine schedule."""
    parameters = [*network.parameters()]
    optimizer = torch.optim.Adam(parameters, rate, betas=(0.9, 0.98))
    bar = tqdm(range(steps), desc=name, mininterval=10.0)
    for k in bar:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (k + 1) / 10) * (0.5 + 0.5 * math.cos(math.pi * k / steps) + 0.01)
        optimizer.zero_grad()
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{value.item():.5f}", refresh=False)


def overfit(folder: Path, clip: Frame, photo: Path, decoder_steps: int, transformer_steps: int) -> dict[str, Path]:
    """Write three models below ``folder``: `untrained`, `untrained transformer` (with the decoder) and `trained`."""
    models = {name: folder / name for name in ("untrained", "untrained transformer", "trained")}
    make_toy(models["untrained"], LINE)
    toy = find_checkpoint(models["untrained"])
    vae, transformer = load_vae(toy), load_transformer(toy)
    assert isinstance(vae, AutoencoderKLWan)
    train_decoder(vae, clip, decoder_steps)
    for name in ("untrained transformer", "trained"):
        shutil.copytree(models["untrained"], models[name], ignore=shutil.ignore_patterns("vae"))
        write_part(models[name] / "vae", vae, vae.config, vae.state_dict())
    shutil.rmtree(models["trained"] / "transformer")
    steps = walked(clip, photo, *PRIOR)
    prior, sigma = torch.cat([step.prior.rgb for step in steps]), torch.cat([step.sigma for step in steps])
    clean, guide = (encoded(vae, clip.rgb[:1], rgb) for rgb in (clip.rgb[1:], prior))
    level = token_levels(torch.cat([torch.zeros_like(sigma[:1]), sigma]), StreamingVAE(vae).factor)
    text = WanGenerator(models["untrained"]).parts.prompts.at(0)[None].float()  # embeddings are bfloat16
    pace = Pace(transformer_steps, 1, 2e-3, warmup=10, ema=0.98, weight_decay=0.0)
    train(lambda: Forcing(transformer, text, clean, guide, level), pace, folder / "run")
    (folder / "run" / MODEL).rename(models["trained"] / "transformer")
    return models


def measured(
    size: tuple[int, int], frames: int, decoder_steps: int, transformer_steps: int, folder: Path
) -> dict[str, float]:
    """Overfit and walk: figures in dB (see above; `decoder`: the clip, encoded and decoded), and CPU seconds."""
    clip, photo, begun = film(frames, size), folder / "photo.png", time.process_time()
    Image.fromarray(to_bytes(clip.rgb[0]).permute(1, 2, 0).numpy()).save(photo)
    models = overfit(folder, clip, photo, decoder_steps, transformer_steps)
    trained = time.process_time() - begun
    return compared(clip, photo, models) | {"trained_cpu_s": trained, "cpu_s": time.process_time() - begun}


def compared(clip: Frame, photo: Path, models: dict[str, Path]) -> dict[str, float]:
    """The walks of each model; figures as in `measured`."""
    settings: dict[str, tuple[str, ...]] = {
        name: (*WAN, "noise=regions", f"generator.pretrained={model}") for name, model in models.items()
    }
    settings["memory alone"] = (*WAN, "noise=uniform", "noise.copied=1.0", f"generator.pretrained={models['trained']}")
    walks = {name: walked(clip, photo, *words) for name, words in {"prior": PRIOR, **settings}.items()}
    made = {name: torch.cat([step.chunk.frames.rgb for step in steps]) for name, steps in walks.items()}
    made["a chunk late"] = clip.rgb[[max(k - FRAMES_PER_LATENT, 0) for k in range(1, len(clip))]]
    hidden = ~determined(clip)[1:]
    figures = {
        name: decibels((rgb - clip.rgb[1:]).square().mean(1, keepdim=True)[hidden]) for name, rgb in made.items()
    }
    vae = load_vae(find_checkpoint(models["trained"]))
    assert isinstance(vae, AutoencoderKLWan)
    (latent,) = vae.encode(2.0 * clip.rgb.transpose(0, 1)[None] - 1.0, return_dict=False)
    (again,) = vae.decode(latent.mode(), return_dict=False)
    figures["decoder"] = decibels((0.5 * again[0].transpose(0, 1) + 0.5 - clip.rgb).square())
    figures["hidden_share"] = float(hidden.float().mean())
    truth = encoded(vae, clip.rgb[:1], clip.rgb[1:])
    late, truth = truth[:-1], truth[1:]
    latents = {name: torch.cat([step.carried["latents"].float() for step in walks[name]]) for name in settings}
    del latents["untrained"]  # of another encoder
    for name, made_latents in {**latents, "a chunk late": late}.items():
        figures[f"{name}, latents"] = decibels((made_latents - truth).square() / truth.var())
    return figures


def decibels(squared_error: Tensor) -> float:
    """PSNR, for errors over the peak; signal-to-noise ratio, for errors over the deviation."""
    return float(-10.0 * squared_error.mean().log10())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="32x48")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--decoder-steps", type=int, default=70)
    parser.add_argument("--transformer-steps", type=int, default=500)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    height, width = (int(side) for side in given.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        steps = (given.decoder_steps, given.transformer_steps)
        figures = measured((height, width), given.frames, *steps, folder)
    setting = {
        "size": [height, width],
        "frames": given.frames,
        "decoder_steps": steps[0],
        "transformer_steps": steps[1],
    }
    print(json.dumps({"benchmark": "overfitted_wan", **setting, **{k: round(v, 2) for k, v in figures.items()}}))


if __name__ == "__main__":
    main()
