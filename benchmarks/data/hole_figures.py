"""Figures of filled holes against the truth, summed per clip, so that intervals can be drawn over clips.

A *wide* hole is what is left of the holes without their parts narrower than 8 px (`worldwarp.training.samples.thin`).

* Depth: δ1 and AbsRel in all holes, sky left out. PSNR: in thin holes, and in all.
* Seam: mean color step from known pixels to those of wide holes over that of the truth (1 = no seam).
* Contrast: local root mean square of what is finer than 3 px, in wide holes, over that of the truth.
* Patches of texture: 32 px wide, nothing but wide hole, on a grid of 16 px, gray; the same places for every method.
  - Repetition: each patch without what is coarser than 9 px; its autocorrelation (per overlapping pixel, over that at
    lag 0) at the highest local maximum more than 6 px from lag 0; mean over patches, over that of the truth. A lattice
    has 1, noise about .13. Ripples below one gray level of 255 do not count.
  - Spectrum: power of the windowed patches by spatial frequency in four octaves (the last with the corners of the
    plane), mean over patches; mean over octaves of the absolute logarithm of its ratio to the truth's (0 = same;
    log 1.25 = .22).

Every ratio is one of sums over clips, so that clips with small holes weigh little.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from diffusion.inpainting.masks import thin
from geometry.frame import Frame

PATCH_PX = 48
PATCH_HOLE = 0.6  # share of a patch that must lie in a wide hole
TEXTURE_PX = 32
COARSE_PX = 9
MIN_LAG_PX = 6
MIN_OVERLAP = 0.4  # of a patch with its shifted self; fewer pixels correlate by chance
BANDS = (
    (1 / 32, 1 / 16),
    (1 / 16, 1 / 8),
    (1 / 8, 1 / 4),
    (1 / 4, 3 / 4),
)  # cycles per pixel; the last has the corners
GREY_LEVEL = 1.0 / 255.0


class Tally:
    """The sums of one method, a row per clip, and its patches."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.patches: list[Tensor] = []

    def add(self, truth: Frame, hole: Tensor, rgb: Tensor, depth: Tensor) -> None:
        """Count one clip."""
        self.rows.append(sums(truth, hole, rgb, depth))
        self.patches.append(patches(rgb, hole & ~thin(hole)))

    def figures(self) -> dict[str, float]:
        """The figures over all clips."""
        return {name: round(float(value[0]), 3) for name, value in figures(total(self.rows)).items()}


def sums(
    truth: Frame,
    hole: Bool[Tensor, "t 1 h w"],
    rgb: Float[Tensor, "t 3 h w"],
    depth: Float[Tensor, "t 1 h w"],
) -> dict[str, float]:
    """What `figures` needs of one clip: sums over pixels or patches, which may be added up over clips."""
    narrow = thin(hole)
    wide, ground = hole & ~narrow, hole & ~truth.sky
    ratio = (depth / truth.depth).clamp(1e-3, 1e3)
    error = (rgb - truth.rgb).square().mean(1, keepdim=True)
    inside = avg_pool2d(wide.float(), 8) > 0.5
    found = {
        "ground": ground.sum(),
        "near": ((torch.maximum(ratio, 1 / ratio) < 1.25) & ground).sum(),
        "relative": ((ratio - 1).abs().clamp(max=20.0) * ground).sum(),
        "hole": hole.sum(), "hole_error": (error * hole).sum(),
        "thin": narrow.sum(), "thin_error": (error * narrow).sum(),
    }  # fmt: skip
    for prefix, picture in (("", rgb), ("true_", truth.rgb)):
        found[prefix + "step"] = _step(picture, wide, hole)
        found[prefix + "contrast"] = (contrast(picture) * inside).sum()
        found[prefix + "peak"] = repetition(texture(picture - _coarse(picture), wide).mean(1)).sum()
        for band, power in enumerate(spectrum(texture(picture, wide).mean(1)).sum(0)):
            found[f"{prefix}power{band}"] = power
    return {name: float(value) for name, value in found.items()}


def total(rows: list[dict[str, float]], weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Sums over clips, once plainly or for each of ``weights [draws, clips]``: ``[draws]`` each."""
    weights = np.ones((1, len(rows))) if weights is None else weights
    return {name: weights @ np.array([row[name] for row in rows]) for name in rows[0]}


def figures(s: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The figures that sums amount to; NaN where nothing was counted. ``octaveN`` are ratios of power, coarse first."""
    with np.errstate(divide="ignore", invalid="ignore"):
        octaves = [s[f"power{band}"] / s[f"true_power{band}"] for band in range(len(BANDS))]
        return {
            "hole_delta1": s["near"] / s["ground"],
            "hole_absrel": s["relative"] / s["ground"],
            "thin_psnr": -10.0 * np.log10(s["thin_error"] / s["thin"]),
            "hole_psnr": -10.0 * np.log10(s["hole_error"] / s["hole"]),
            "seam": s["step"] / s["true_step"],
            "contrast": s["contrast"] / s["true_contrast"],
            "repetition": s["peak"] / s["true_peak"],
            "spectrum": np.abs(np.log(octaves)).mean(0),
            **{f"octave{band}": ratio for band, ratio in enumerate(octaves)},
        }


def patches(rgb: Float[Tensor, "t 3 h w"], wide: Bool[Tensor, "t 1 h w"]) -> Float[Tensor, "n 3 48 48"]:
    """Patches of which enough lies in a wide hole, on a grid of half their size."""
    share = avg_pool2d(wide.float(), PATCH_PX, stride=PATCH_PX // 2)[:, 0] > PATCH_HOLE
    return _grid(rgb, PATCH_PX)[share]


def texture(rgb: Float[Tensor, "t 3 h w"], wide: Bool[Tensor, "t 1 h w"]) -> Float[Tensor, "n 3 32 32"]:
    """Patches that are nothing but wide hole, on a grid of half their size."""
    share = avg_pool2d(wide.float(), TEXTURE_PX, stride=TEXTURE_PX // 2)[:, 0] > 0.999
    return _grid(rgb, TEXTURE_PX)[share]


def contrast(rgb: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 1 h8 w8"]:
    """Local root mean square of what is finer than 3 px, over squares of 8 px."""
    fine = rgb - avg_pool2d(rgb, 3, stride=1, padding=1, count_include_pad=False)
    return avg_pool2d(fine.square().mean(1, keepdim=True), 8).sqrt()


def repetition(gray: Float[Tensor, "n s s"]) -> Float[Tensor, "n"]:
    """The highest autocorrelation of each patch at a local maximum beyond ``MIN_LAG_PX``, 0..1 or a little above."""
    size = gray.shape[-1]
    if len(gray) == 0:
        return gray.new_zeros(0)

    def correlate(x: Tensor) -> Tensor:
        power = torch.fft.rfft2(x, s=(2 * size, 2 * size)).abs().square()
        return torch.fft.fftshift(torch.fft.irfft2(power), dim=(-2, -1))

    overlap = correlate(torch.ones_like(gray[:1])) / size**2
    found = correlate(gray - gray.mean((1, 2), keepdim=True)) / size**2
    found = found / overlap.clamp_min(1e-3) / (found[:, size, size, None, None] + GREY_LEVEL**2)
    lag = torch.arange(2 * size) - size
    beyond = (lag[:, None] ** 2 + lag**2 > MIN_LAG_PX**2) & (overlap[0] > MIN_OVERLAP)
    peak = (found == max_pool2d(found[:, None], 3, stride=1, padding=1)[:, 0]) & beyond
    return torch.where(peak, found, 0.0).amax((1, 2)).clamp_min(0.0)


def spectrum(gray: Float[Tensor, "n s s"]) -> Float[Tensor, "n bands"]:
    """Mean power of each patch in octaves of spatial frequency, under a Hann window."""
    size = gray.shape[-1]
    if len(gray) == 0:
        return gray.new_zeros(0, len(BANDS))
    window = torch.hann_window(size, periodic=False)
    window = window[:, None] * window
    mean = (gray * window).sum((1, 2), keepdim=True) / window.sum()
    power = torch.fft.fft2((gray - mean) * window).abs().square()
    frequency = torch.fft.fftfreq(size)
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    bands = [(radius >= low) & (radius < high) for low, high in BANDS]
    return torch.stack([power[:, band].mean(1) for band in bands], 1)


def _step(rgb: Tensor, wide: Tensor, hole: Tensor) -> Tensor:
    """Sum of color steps between known pixels and those of wide holes."""
    found = torch.zeros(())
    for axis in (-1, -2):
        count = hole.shape[axis] - 1
        wide_here, hole_here = (torch.narrow(mask, axis, 0, count) for mask in (wide, hole))
        wide_next, hole_next = (torch.narrow(mask, axis, 1, count) for mask in (wide, hole))
        border = (wide_here & ~hole_next) | (~hole_here & wide_next)
        found = found + (rgb.diff(dim=axis).abs().mean(1, keepdim=True) * border).sum()
    return found


def _coarse(rgb: Tensor) -> Tensor:
    return avg_pool2d(rgb, COARSE_PX, stride=1, padding=COARSE_PX // 2, count_include_pad=False)


def _grid(rgb: Tensor, size: int) -> Tensor:
    """All patches, ``[t rows columns c size size]``, on a grid of half their size."""
    return rgb.unfold(2, size, size // 2).unfold(3, size, size // 2).permute(0, 2, 3, 1, 4, 5)
