"""Depth from any Hugging Face depth-estimation model."""

from __future__ import annotations

import inspect
import math
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.depth.estimator import DepthMap, depth_of_disparity, far_sky
from geometry.input_files import reason_of

INVERSE = ("dpt", "depth_anything", "prompt_depth_anything")  # model types that predict inverse depth up to scale
WANTED = "want one for depth estimation, e.g. depth-anything/Depth-Anything-V2-Small-hf"
NO_DEPTH = {"chmv2": "the height of trees"}  # of the automatic class all the same
TORCHVISION = "depth.checkpoint: this model needs torchvision, as built for the torch that is installed"
# Metric models predict no sky: they place it at the end of their range, or very far if they have none.
OUTDOORS_M = 40.0  # ranges from here on are for outdoors (80 m); indoors (10 and 20 m) a wall is at the end
AT_THE_END = 0.95  # share of the range from which on it is sky
SKY_M = 1000.0  # without a range: 1 km and more has no parallax in a walk of meters


class TransformersDepth:
    """A model for ``AutoModelForDepthEstimation``, by id or local folder.

    Args:
        checkpoint: model id or folder.
        metric: whether the model predicts meters; None reads its configuration (relative models predict inverse depth).
            A DPT that was trained on NYU or KITTI does not say so in it.
        sky_m: distance in meters from which on a metric model's depth is sky; None takes the end of an outdoor model's
            range, and 1 km for a model without a range.
        device: device of the model.

    Raises:
        ImportError: the packages of the extra are missing, or torchvision for the models that need it.
        ValueError: the checkpoint is missing, unreachable or not a depth model; one sentence.
    """

    def __init__(
        self, checkpoint: str, metric: bool | None = None, sky_m: float | None = None, device: str = "cpu"
    ) -> None:
        if sky_m is not None and not sky_m > 0.0:
            raise ValueError(f"depth.sky_m: want a positive distance in meters, got {sky_m}")
        try:
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation
        except ImportError as error:
            raise ImportError("depth=transformers needs the extra: pip install 'worldwarp[transformers]'") from error
        try:
            self.model: Any = AutoModelForDepthEstimation.from_pretrained(checkpoint).eval().to(device)
            self.processor: Any = AutoImageProcessor.from_pretrained(checkpoint)
        except ImportError as error:
            if find_spec("torchvision") is None:
                raise ImportError(f"{TORCHVISION}: pip install torchvision") from error
            raise
        except Exception as error:  # by package and version: OSError, ValueError, those of safetensors, JSON, HTTP
            raise ValueError(f"depth.checkpoint: {checkpoint!r} {_reason(error)}") from None
        config = self.model.config
        if config.model_type in NO_DEPTH:
            raise ValueError(f"depth.checkpoint: {checkpoint!r} predicts {NO_DEPTH[config.model_type]}; {WANTED}")
        stated = getattr(config, "depth_estimation_type", None) == "metric" or config.model_type not in INVERSE
        self.metric = stated if metric is None else metric
        self.sky_m = _sky_m(config) if sky_m is None else sky_m
        self.device = torch.device(device)

    @torch.no_grad()
    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:
        """Depth of colors in 0..1; DepthPro finds the focal length if it is not given, and its depth scales with it."""
        images = [(image.permute(1, 2, 0) * 255.0).round().byte().cpu().numpy() for image in rgb]
        inputs = self.processor(images=images, return_tensors="pt").to(self.device)
        outputs, sizes = self.model(**inputs), [tuple(rgb.shape[-2:])] * len(rgb)
        metric, found_px = self.metric, None
        if hasattr(outputs, "field_of_view"):
            if focal_px is not None:
                fov = 2.0 * torch.atan(0.5 * rgb.shape[-1] / focal_px[:, 0])
                outputs.field_of_view = torch.rad2deg(fov).to(self.device)
            elif outputs.field_of_view is not None:
                found_px = 0.5 * rgb.shape[-1] / torch.tan(0.5 * torch.deg2rad(outputs.field_of_view.float().cpu()))
            metric &= outputs.field_of_view is not None  # a DepthPro without the part that finds it is up to scale
        # The processor of the model crops padding, applies the focal length, inverts and resamples as the model needs.
        finish = self.processor.post_process_depth_estimation
        sources: dict[str, Any] = {}
        if "source_sizes" in inspect.signature(finish).parameters:
            if find_spec("torchvision") is None:  # transformers uses it there without asking
                raise ImportError(f"{TORCHVISION}: pip install torchvision")
            sources["source_sizes"] = sizes
        made = finish(outputs, target_sizes=sizes, **sources)
        values = torch.stack([one["predicted_depth"].reshape(sizes[0]) for one in made])[:, None].float().cpu()
        if self.metric:
            valid = torch.isfinite(values) & (values > 0.0)
            sky = valid & (values >= self.sky_m)
            return DepthMap(far_sky(values, sky, valid), valid, sky, metric, found_px)
        valid = torch.isfinite(values)
        depth, sky = depth_of_disparity(values, valid)
        return DepthMap(depth, valid, sky, metric=False)


def _sky_m(config: Any) -> float:
    """Distance from which on a metric model of this configuration shows sky; infinite for indoor models."""
    bins = getattr(config, "bin_configurations", None)  # ZoeDepth
    range_m = max(one["max_depth"] for one in bins) if bins else getattr(config, "max_depth", None)
    if range_m is None:
        return SKY_M
    return AT_THE_END * range_m if range_m >= OUTDOORS_M else math.inf


def _reason(error: Exception) -> str:
    """Reason why a checkpoint cannot be loaded, with the remedy."""
    text = reason_of(error)
    if "connect" in text.lower():
        return "is no local folder, and huggingface.co cannot be reached; check the name, or download it first"
    if "Unrecognized configuration class" in text:
        return f"is another kind of model; {WANTED}"
    return f"cannot be loaded as a depth model: {text}"
