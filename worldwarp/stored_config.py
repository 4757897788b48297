"""Former forms of configurations: targets and settings in stored worlds, and options on the command line."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

# Former to present path of moved classes, for worlds stored under the former one; keep every entry.
RENAMED_TARGETS = {
    "cache3d.gaussians.GaussianCache": "cache3d.gaussian_cache.GaussianCache",
    "cache3d.points.PointCache": "cache3d.point_cache.PointCache",
    "diffusion.generator.EmbeddedGenerator": "diffusion.retouch.generator.RetouchGenerator",
    "diffusion.generator.PassthroughGenerator": "diffusion.passthrough.PassthroughGenerator",
    "diffusion.noise.NoiseConfig": "diffusion.noise_map.NoiseConfig",
}

RETOUCH = "diffusion.retouch.generator.RetouchGenerator"

RENAMED_OPTIONS = {"generator=embedded": "generator=retouch", "prior=inpainting": "prior=copy"}

_log = logging.getLogger(__name__)


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a stored world in its present form.

    Args:
        config: plain JSON values; left unchanged.
    """
    current = _current_targets(config)
    generator = current.get("generator", {})
    if generator.get("_target_") == RETOUCH and "sampler" in current:  # the loop had the sampler before
        current["generator"] = {"sampler": current["sampler"]} | generator
    sky = current.get("prior", {}).get("sky", {})
    if "sideways" in sky:  # the sky was extended by another solver, whose numbers mean nothing to this one
        current["prior"]["sky"] = {"_target_": sky["_target_"]}
    return current


def _current_targets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with every ``_target_`` replaced by the present path of its class."""

    def renamed(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _current_targets(value)
        return RENAMED_TARGETS.get(value, value) if key == "_target_" else value

    return {key: renamed(key, value) for key, value in config.items()}


def current_options(overrides: Sequence[str]) -> list[str]:
    """Command-line overrides with renamed options replaced; each replacement logs one warning."""
    for old in set(overrides) & RENAMED_OPTIONS.keys():
        _log.warning("%s is called %s now", old, RENAMED_OPTIONS[old])
    return [RENAMED_OPTIONS.get(text, text) for text in overrides]
