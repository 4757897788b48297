"""Former names in configurations: targets in stored worlds, and options on the command line."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

# Former to present path of moved classes, for worlds stored under the former one; keep every entry.
RENAMED_TARGETS = {
    "cache3d.gaussians.GaussianCache": "cache3d.gaussian_cache.GaussianCache",
    "cache3d.points.PointCache": "cache3d.point_cache.PointCache",
    "diffusion.generator.EmbeddedGenerator": "diffusion.retouch.generator.RetouchGenerator",
    "diffusion.noise.NoiseConfig": "diffusion.noise_map.NoiseConfig",
}

RENAMED_OPTIONS = {"generator=embedded": "generator=retouch"}

_log = logging.getLogger(__name__)


def current_targets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with every ``_target_`` replaced by the present path of its class.

    Args:
        config: the configuration of a stored world, as plain JSON values; left unchanged.
    """

    def renamed(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return current_targets(value)
        return RENAMED_TARGETS.get(value, value) if key == "_target_" else value

    return {key: renamed(key, value) for key, value in config.items()}


def current_options(overrides: Sequence[str]) -> list[str]:
    """Command-line overrides with renamed options replaced; each replacement logs one warning."""
    for old in set(overrides) & RENAMED_OPTIONS.keys():
        _log.warning("%s is called %s now", old, RENAMED_OPTIONS[old])
    return [RENAMED_OPTIONS.get(text, text) for text in overrides]
