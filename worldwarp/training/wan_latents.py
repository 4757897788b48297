"""Clips and their guides as latents: encoded once, before a diffuser is trained on them.

A guide is what the loop would show of the clip: renders of the actual cache, completed by the actual inpainting. In
half of the takes the cache holds the first frame alone, so that holes grow wide; in the others it grows by the clip's
own frames chunk after chunk, as on a walk. Half of the holes are filled with copies, half smoothly.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from cache3d.cache import WorldCache
from cache3d.gaussian_cache import GaussianCache
from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.prior import inpaint_prior
from diffusion.wan.fresh import read_vae
from diffusion.wan.lines import LINES, Line, line_named
from diffusion.wan.patch_vae import PatchVAE
from diffusion.wan.tokens import FRAMES_PER_LATENT, mask_channels, token_levels
from diffusion.wan.vae import StreamingVAE
from geometry.frame import Chunk, Frame
from scenes.dataset.clips import MANIFEST, list_clips, read_clip
from worldwarp.training.augmentation import smooth_noise

WORST_DEPTH = 0.05  # relative error of an estimated depth, smooth over the frame


def record_latents(data: Path, vae: Path, out: Path, takes: int = 1, seed: int = 0, line: str = "tiny") -> int:
    """Write a file for each clip; those that are there are kept. Returns how many there are.

    Every file has rows of takes: ``clean`` and ``guide`` float16 ``[k f c h w]``, ``known`` uint8 ``[k f 4 h w]``
    (share of a latent pixel that the cache shows, 0..255, by frame), ``hole`` bool ``[k f 1 ht wt]`` (tokens with
    a pixel that it does not show) and ``copied`` bool ``[k]`` (holes hold copies). Odd takes are mirrored.

    Args:
        data: folder of clips; of those of panoramas only the ones without invalid pixels are taken.
        vae: folder with ``vae/`` in it.
        out: folder, made when missing; gets the manifest of ``data`` too.
        takes: guides of each clip.
        seed: of depth errors and inpainting, combined with the clip's name.
        line: name of the line that will be trained on them: whose latents, and how many a chunk has.

    Raises:
        ValueError: no clips, or no VAE there.
    """
    clips = [path for split in ("heldout", "train", "estimated") for path in list_clips(data, split)]
    count = record_clips(clips, vae, out, takes, seed, line_named(line))
    shutil.copy(data / MANIFEST, out / MANIFEST)
    return count


def record_clips(
    clips: Sequence[Path],
    vae: Path,
    out: Path,
    takes: int = 1,
    seed: int = 0,
    line: Line = LINES["tiny"],
    make_cache: Callable[[], WorldCache] = GaussianCache,
) -> int:
    """`record_latents` of these clips, in any kind of cache; without a manifest.

    The draws of a clip's first take are the same whatever cache shows it.
    """
    stream = read_vae(vae, line)
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for path in tqdm(clips, desc="latents", unit="clip", mininterval=5.0):
        if not (out / path.name).exists():
            clip = read_clip(path)
            if len(clip) % FRAMES_PER_LATENT != 1 or not clip.valid.all():
                continue
            # By name: a clip's guides do not depend on which clips were recorded before.
            rng = np.random.default_rng([seed, *path.name.encode()])
            parts = [_take(clip, take, stream, line.chunk, rng, make_cache()) for take in range(takes)]
            rows = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
            partial = out / f".{path.name}.partial"
            save_file(rows, partial)
            partial.replace(out / path.name)
        count += 1
    return count


def _take(
    clip: Frame,
    take: int,
    stream: StreamingVAE | PatchVAE,
    chunk: int,
    rng: np.random.Generator,
    cache: WorldCache,
) -> dict[str, Tensor]:
    far, copies = rng.random(2) < 0.5
    wrong = torch.exp(float(rng.uniform(0.0, WORST_DEPTH)) * smooth_noise((len(clip), 1, *clip.camera.size), 4, rng))
    seen = replace(clip, depth=torch.where(clip.sky, clip.depth, clip.depth * wrong))
    config = InpaintConfig(fill="copy" if copies else "smooth")
    draws = torch.Generator().manual_seed(int(rng.integers(2**31)))
    frames = len(clip) - 1 if far else FRAMES_PER_LATENT * chunk
    colors, covered = [clip.rgb[:1]], [torch.ones_like(clip.depth[:1])]
    cache.integrate(_chunk(seen[:1], 0))
    for number, first in enumerate(range(1, len(clip), frames), 1):
        guide = cache.render(clip.camera[first : first + frames])
        prior = inpaint_prior(guide, seen[[0] if first == 1 else [0, first - 1]], draws, config)
        colors.append((255.0 * prior.rgb).round() / 255.0)
        covered.append(guide.covered.float())
        if first + frames < len(clip):
            cache.integrate(_chunk(seen[first : first + frames], number))
    rows = [clip.rgb, torch.cat(colors), torch.cat(covered)]
    rgb, shown, known = (row.flip(-1) for row in rows) if take % 2 else rows
    return {
        "clean": encoded(stream, rgb).half(),
        "guide": encoded(stream, shown).half(),
        "known": (255.0 * mask_channels(known, stream.factor)).round().to(torch.uint8),
        "hole": token_levels(1.0 - known, stream.factor) > 0.0,
        "copied": torch.tensor(bool(copies)),
    }


def _chunk(frames: Frame, index: int) -> Chunk:
    return Chunk(frames, index, observed=index == 0, confidence=torch.ones_like(frames.depth))


def encoded(stream: StreamingVAE | PatchVAE, rgb: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "f c hl wl"]:
    """Latents of a whole clip, its first frame's first."""
    first, state = stream.encode(rgb[:1])
    return torch.cat([first, stream.encode(rgb[1:], state)[0]])
