"""Depth from any Hugging Face depth-estimation model."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from geometry.depth.estimate import DepthMap, far_sky

SKY_BELOW = 1e-3  # relative models: inverse depth under this share of the median is sky


class TransformersDepth:
    """A model for ``AutoModelForDepthEstimation``, by id or local folder.

    Args:
        checkpoint: model id or folder.
        metric: whether it gives metres; None asks the model's configuration (relative ones give inverse depth).
        device: where to run.
    """

    def __init__(self, checkpoint: str, metric: bool | None = None, device: str = "cpu") -> None:
        try:
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation
        except ImportError as error:
            raise ImportError("depth=transformers needs the extra: pip install 'worldwarp[transformers]'") from error
        try:
            self.model: Any = AutoModelForDepthEstimation.from_pretrained(checkpoint).eval().to(device)
            self.processor: Any = AutoImageProcessor.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"depth.checkpoint: '{checkpoint}' cannot be loaded as a depth model: {reason}") from error
        stated = getattr(self.model.config, "depth_estimation_type", None)
        self.metric = (stated == "metric" or self.model.config.model_type == "zoedepth") if metric is None else metric
        self.device = torch.device(device)

    @torch.no_grad()
    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:  # noqa: ARG002
        """Depth of colours in 0..1."""
        images = [(image.permute(1, 2, 0) * 255.0).round().byte().cpu().numpy() for image in rgb]
        inputs = self.processor(images=images, return_tensors="pt").to(self.device)
        predicted = self.model(**inputs).predicted_depth[:, None].float().cpu()
        values = interpolate(predicted, rgb.shape[-2:], mode="bilinear", align_corners=False)
        if self.metric:
            valid = torch.isfinite(values) & (values > 0.0)
            return DepthMap(values, valid, torch.zeros_like(valid), metric=True)
        median = values.flatten(1).median(1).values.clamp_min(1e-8)[:, None, None, None]
        sky = values < SKY_BELOW * median
        depth = 1.0 / torch.where(sky, median, values)
        valid = torch.ones_like(sky)
        return DepthMap(far_sky(depth, sky, valid), valid, sky, metric=False)
