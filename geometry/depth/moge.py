"""Metric depth from MoGe-2 (Wang et al. 2025), a package that is not on the package index."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.depth.estimator import DepthMap, far_sky, load_model

INSTALL = "pip install git+https://github.com/microsoft/MoGe.git"


class MogeDepth:
    """MoGe-2: metric depth, the sky as what has no finite depth, and the field of view unless it is given.

    Args:
        checkpoint: model id, a ``model.pt``, or the folder that holds it.
        device: device of the model; half precision on CUDA.

    Raises:
        ImportError: the package is missing; the message has the install line.
        ValueError: the checkpoint cannot be loaded; one sentence.
    """

    def __init__(self, checkpoint: str, device: str = "cpu") -> None:
        try:
            from moge.model.v2 import MoGeModel  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(f"depth=moge needs MoGe: {INSTALL}") from error
        self.model = load_model(lambda name: MoGeModel.from_pretrained(_file(name)), checkpoint, "MoGe-2", device)
        self.device = torch.device(device)

    @torch.no_grad()
    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:
        """Depth in meters of colors in 0..1; ``focal_px`` fixes the field of view, which is found otherwise."""
        width = rgb.shape[-1]
        fov = None
        if focal_px is not None:
            fov = torch.rad2deg(2.0 * torch.atan(0.5 * width / focal_px[:, 0])).to(self.device)
        made = self.model.infer(rgb.to(self.device), fov_x=fov, use_fp16=self.device.type == "cuda")
        depth = made["depth"].float().cpu()[:, None]
        # MoGe is trained to mask out what is infinitely far, and gives it infinite depth.
        sky = ~made["mask"].cpu()[:, None]
        valid = sky | (torch.isfinite(depth) & (depth > 0.0))
        found_px = made["intrinsics"][:, 0, 0].float().cpu() * width if focal_px is None else None
        return DepthMap(far_sky(depth, sky, valid), valid, sky, metric=True, focal_px=found_px)


def _file(checkpoint: str) -> str:
    """The package takes a file or a model id, and no folder."""
    return str(Path(checkpoint) / "model.pt") if Path(checkpoint).is_dir() else checkpoint
