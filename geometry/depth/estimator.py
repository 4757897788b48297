"""The protocol of depth estimators, and their result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.input_files import reason_of


@dataclass(frozen=True)
class DepthMap:
    """Depth of a batch of images.

    Attributes:
        depth: z along the optical axis, positive where ``valid``; meters when ``metric``, else up to scale.
        valid: where depth is known, sky included.
        sky: mask of the sky, which has no parallax; ``depth`` is large there.
        metric: whether the unit is a meter.
        focal_px: horizontal focal length that the estimator found in each image, in pixels of the image; None if it
            finds none or was given one.
    """

    depth: Float[Tensor, "b 1 h w"]
    valid: Bool[Tensor, "b 1 h w"]
    sky: Bool[Tensor, "b 1 h w"]
    metric: bool
    focal_px: Float[Tensor, "b"] | None = None

    @staticmethod
    def concatenate(maps: list[DepthMap]) -> DepthMap:
        """Join batches; without a focal length unless each has one."""
        focal_px = [part.focal_px for part in maps if part.focal_px is not None]
        return DepthMap(
            torch.cat([part.depth for part in maps]),
            torch.cat([part.valid for part in maps]),
            torch.cat([part.sky for part in maps]),
            maps[0].metric,
            torch.cat(focal_px) if len(focal_px) == len(maps) else None,
        )


@runtime_checkable
class DepthEstimator(Protocol):
    """Estimates the depth of images."""

    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None) -> DepthMap:
        """Depth of colors in 0..1; ``focal_px`` is used by some estimators, of which some find one if it is None."""
        ...


def load_model(load: Callable[[str], Any], checkpoint: str, kind: str, device: str) -> Any:
    """The model that ``load`` makes of a checkpoint, on a device, for inference.

    Args:
        load: a foreign package's ``from_pretrained``.
        checkpoint: as the user wrote it: model id, file or folder.
        kind: of model, for the message.
        device: of the model.

    Raises:
        ValueError: the checkpoint cannot be loaded; one sentence.
    """
    try:
        return load(checkpoint).to(device).eval()
    except Exception as error:  # by package and version: OSError, RuntimeError, KeyError, those of HTTP and pickle
        raise ValueError(f"depth.checkpoint: {checkpoint!r} cannot be loaded as {kind}: {reason_of(error)}") from None


def far_sky(
    depth: Float[Tensor, "b 1 h w"],
    sky: Bool[Tensor, "b 1 h w"],
    valid: Bool[Tensor, "b 1 h w"],
    medians: float = 100.0,
) -> Float[Tensor, "b 1 h w"]:
    """Depth whose sky is set to ``medians`` times the median of the rest, per image."""
    far = depth.clone()
    for index in range(len(depth)):
        ground = valid[index] & ~sky[index]
        median = depth[index][ground].median() if ground.any() else depth.new_tensor(1.0)
        far[index][sky[index]] = medians * median
    return far


def depth_of_disparity(
    disparity: Float[Tensor, "b 1 h w"], valid: Bool[Tensor, "b 1 h w"], sky_below: float = 1e-3
) -> tuple[Float[Tensor, "b 1 h w"], Bool[Tensor, "b 1 h w"]]:
    """Depth from inverse depth, and the mask of the sky: at most ``sky_below`` times the image's median.

    Returns:
        ``1 / disparity``, set to a large depth in the sky, in the inverse unit of ``disparity``; and the sky mask.
    """
    known = torch.where(valid & (disparity > 0.0), disparity, torch.nan)
    median = known.flatten(1).nanmedian(1).values.nan_to_num(1.0)[:, None, None, None]
    sky = valid & (disparity <= sky_below * median)
    # The median where there is no surface: any value above 0, as `far_sky` replaces it.
    depth = 1.0 / torch.where(sky | ~valid, median, disparity)
    return far_sky(depth, sky, valid), sky
