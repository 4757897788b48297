"""Depth from any Hugging Face depth-estimation model."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.depth.estimator import DepthMap, depth_of_disparity

INVERSE = ("dpt", "depth_anything", "prompt_depth_anything")  # model types that predict inverse depth up to scale


class TransformersDepth:
    """A model for ``AutoModelForDepthEstimation``, by id or local folder.

    Args:
        checkpoint: model id or folder.
        metric: whether the model predicts meters; None reads its configuration (relative models predict inverse depth).
        device: device of the model.

    Raises:
        ImportError: the packages of the extra are missing.
        ValueError: the checkpoint is missing, unreachable or not a depth model; one sentence.
    """

    def __init__(self, checkpoint: str, metric: bool | None = None, device: str = "cpu") -> None:
        try:
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation
        except ImportError as error:
            raise ImportError("depth=transformers needs the extra: pip install 'worldwarp[transformers]'") from error
        try:
            self.model: Any = AutoModelForDepthEstimation.from_pretrained(checkpoint).eval().to(device)
            self.processor: Any = AutoImageProcessor.from_pretrained(checkpoint)
        except ImportError:
            raise
        except Exception as error:  # by package and version: OSError, ValueError, those of safetensors, JSON, HTTP
            raise ValueError(f"depth.checkpoint: {checkpoint!r} {_reason(error)}") from None
        config = self.model.config
        stated = getattr(config, "depth_estimation_type", None) == "metric" or config.model_type not in INVERSE
        self.metric = stated if metric is None else metric
        self.device = torch.device(device)

    @torch.no_grad()
    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:  # noqa: ARG002
        """Depth of colors in 0..1."""
        images = [(image.permute(1, 2, 0) * 255.0).round().byte().cpu().numpy() for image in rgb]
        inputs = self.processor(images=images, return_tensors="pt").to(self.device)
        outputs, sizes = self.model(**inputs), [tuple(rgb.shape[-2:])] * len(rgb)
        # The processor of the model crops padding, applies the focal length, inverts and resamples as the model needs.
        finish = self.processor.post_process_depth_estimation
        sources: dict[str, Any] = {}
        if "source_sizes" in inspect.signature(finish).parameters:
            if find_spec("torchvision") is None:  # transformers uses it there without asking
                raise ImportError("depth.checkpoint: this model needs torchvision: pip install torchvision")
            sources["source_sizes"] = sizes
        made = finish(outputs, target_sizes=sizes, **sources)
        values = torch.stack([one["predicted_depth"].reshape(sizes[0]) for one in made])[:, None].float().cpu()
        if self.metric:
            valid = torch.isfinite(values) & (values > 0.0)
            return DepthMap(values, valid, torch.zeros_like(valid), metric=True)
        valid = torch.isfinite(values)
        depth, sky = depth_of_disparity(values, valid)
        return DepthMap(depth, valid, sky, metric=False)


def _reason(error: Exception) -> str:
    """Reason why a checkpoint cannot be loaded, with the remedy."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "connect" in text.lower():
        return "is no local folder, and huggingface.co cannot be reached; check the name, or download it first"
    if "Unrecognized configuration class" in text:
        return "is another kind of model; want one for depth estimation, e.g. depth-anything/Depth-Anything-V2-Small-hf"
    return f"cannot be loaded as a depth model: {text}"
