"""Record guides and priors for training from the actual cache and the actual inpainting.

The generator is trained on the inputs that it gets in use: holes, soft edges and confidences of the cache, and seams of
the exemplar-based prior. Both are too slow for a training step, so they are recorded once per clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from cache3d.gaussian_cache import GaussianCache
from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.prior import inpaint_prior
from diffusion.rgbd_state import encode
from geometry.frame import Chunk, Frame
from scenes.dataset.clips import read_clip
from worldwarp.training.augmentation import smooth_noise


def record_guides(clips: Iterable[Path], out: Path, takes: int = 2, seed: int = 0) -> None:
    """Record guides of clips, in one file per clip with the clip's name; existing files are skipped.

    Args:
        clips: clip files.
        out: folder, made when missing; training looks in ``guides`` inside the clips' folder.
        takes: source frames per clip; each is rendered to four other frames.
        seed: seed of depth errors and inpainting, combined with the clip's name.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in tqdm(list(clips), desc="guides", unit="clip"):
        if (out / path.name).exists():
            continue
        # By name: a clip's guides do not depend on which clips were recorded before.
        rng = np.random.default_rng([seed, *path.name.encode()])
        clip = read_clip(path)
        parts = [_take(clip, take, rng) for take in range(takes)]
        rows = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
        partial = out / f".{path.name}.partial"
        save_file(rows, partial)
        partial.replace(out / path.name)


def _take(clip: Frame, take: int, rng: np.random.Generator) -> dict[str, Tensor]:
    """Render one source frame to four other frames: even takes forward in time, odd takes backward.

    Targets must be valid everywhere; if they are not, the first frame is the only target and a later frame the source.
    """
    last = min(len(clip), 12) - 1
    source, targets = (0, [2, 5, 8, 11]) if take % 2 == 0 else (last, [9, 6, 3, 0])
    # Clips may be shorter than twelve frames.
    targets = [min(t, last) for t in targets]
    if not clip.valid[targets].all():
        source, targets = last - (take % 2) * (last // 2), [0]
    photo = clip[[source]]
    # In use the photo's depth is estimated: smooth relative errors of up to 5 %.
    wrong = torch.exp(float(rng.uniform(0.0, 0.05)) * smooth_noise((1, 1, *photo.camera.size), 4, rng))
    # The unit of the depth code, from the true depth, as training computes it.
    usable = photo.valid & ~photo.sky
    unit = photo.depth[usable].median().item() if usable.any() else 1.0
    photo = replace(photo, depth=torch.where(photo.sky, photo.depth, photo.depth * wrong))
    cache = GaussianCache()
    cache.integrate(Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth)))
    guide = cache.render(clip.camera[targets])
    draw = torch.Generator().manual_seed(int(rng.integers(2**31)))
    prior = inpaint_prior(guide, photo, draw, InpaintConfig())

    def whole(values: Tensor) -> Tensor:
        return (values * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)

    def code(rgb: Tensor, depth: Tensor) -> Tensor:
        return encode(rgb, depth, unit)[:, 3:].half()

    return {
        "source": torch.full((len(targets),), source),
        "target": torch.tensor(targets),
        "prior_rgb": whole(prior.rgb),
        "smooth_rgb": whole(prior.smooth_rgb),
        "prior_depth": code(prior.rgb, prior.depth),
        "smooth_depth": code(prior.smooth_rgb, prior.smooth_depth),
        "coverage": whole(guide.coverage),
        "confidence": whole(guide.confidence),
        "copied": whole(prior.copied),
    }
