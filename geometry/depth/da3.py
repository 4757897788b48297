"""Depth from Depth Anything 3 (Lin et al. 2025), whose package asks for versions that ours does not use."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from geometry.depth.estimator import DepthMap, far_sky, load_model

# Its requirements pin NumPy 1 and name packages that depth alone does not use.
INSTALL = "pip install --no-deps depth-anything-3; pip install einops omegaconf safetensors addict torchvision"
METRIC_FOCAL_PX = 300.0  # focal length at which the output of the metric model is in meters (its README)


class Da3Depth:
    """Depth Anything 3: images of one call are taken as views of one scene and get depths of one scale.

    Metric for the metric model where ``focal_px`` is given, and for the nested ones; up to scale for all others.

    Args:
        checkpoint: model id or local folder.
        device: device of the model.

    Raises:
        ImportError: the package is missing; the message has the install line.
        ValueError: the checkpoint cannot be loaded; one sentence.
    """

    def __init__(self, checkpoint: str, device: str = "cpu") -> None:
        try:
            from depth_anything_3.api import DepthAnything3  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(f"depth=da3 needs Depth Anything 3: {INSTALL} ({error})") from error
        self.model = load_model(DepthAnything3.from_pretrained, checkpoint, "DA3", device)
        self.scaled_by_focal = str(getattr(self.model, "model_name", "")).startswith("da3metric")

    @torch.no_grad()
    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:
        """Depth of colors in 0..1."""
        size = rgb.shape[-2:]
        images = [(image.permute(1, 2, 0) * 255.0).round().byte().cpu().numpy() for image in rgb]
        made = self.model.inference(images)
        depth = _tensor(made.depth)[:, None]
        shrunk = depth.shape[-1] / size[1]  # the model sees the images at about 504 pixels
        metric = bool(made.is_metric)
        if self.scaled_by_focal and focal_px is not None:
            depth = depth * (focal_px.mean(1).to(depth) * shrunk / METRIC_FOCAL_PX)[:, None, None, None]
            metric = True
        depth = interpolate(depth, size, mode="bilinear", align_corners=False)
        sky = torch.zeros_like(depth, dtype=torch.bool)
        if made.sky is not None:
            likely = _tensor(made.sky)[:, None]
            sky = interpolate(likely, size, mode="bilinear", align_corners=False) >= 0.5
        valid = sky | (torch.isfinite(depth) & (depth > 0.0))
        found_px = None
        if focal_px is None and made.intrinsics is not None:
            found_px = _tensor(made.intrinsics)[:, 0, 0] / shrunk
        return DepthMap(far_sky(depth, sky, valid), valid, sky, metric, found_px)


def _tensor(array: np.ndarray) -> Tensor:
    """A copy in single precision: the model's own arrays may be views or read-only."""
    return torch.from_numpy(np.array(array, dtype=np.float32))
