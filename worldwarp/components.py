"""Builds the parts of the loop from a configuration, or takes them from the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cache3d.cache import WorldCache
from diffusion.generator import Generator, TakesPrompts
from diffusion.noise_map import NoiseConfig
from geometry.depth import DepthEstimator, EmbeddedDepth, FileDepth
from scenes.photos.clip import ClipReader
from worldwarp.arguments import BY_ITSELF
from worldwarp.autopilot import AutopilotPolicy
from worldwarp.config import ConfigError, Settings, build, escaped
from worldwarp.state import Components
from worldwarp.video_guide import VideoGuide
from worldwarp.working_size import samples_per_pixel, working_scale

PROTOCOLS = {"depth": DepthEstimator, "cache": WorldCache, "generator": Generator}  # of components given as objects


def build_cache(config: DictConfig) -> WorldCache:
    """The empty cache of a configuration."""
    return build(config, "cache")


def part(config: DictConfig, group: str, given: Mapping[str, Any] | None) -> Any:
    """The object given for a group, else the one that the configuration builds.

    Raises:
        ConfigError: an object without the methods of its group's protocol, or settings that its class refuses.
    """
    found = given[group] if given and group in given else build(config, group)
    check_part(group, found)
    return found


def check_part(group: str, part: object) -> None:
    """Refuse an object without the methods of its group's protocol.

    Raises:
        ConfigError: naming the protocol and the missing methods.
    """
    protocol = PROTOCOLS[group]
    methods = [name for name in vars(protocol) if not name.startswith("_") or name == "__len__"]
    missing = [name for name in methods if not hasattr(part, name)]
    if missing:
        raise ConfigError(
            f"{group}: want an object with the methods of worldwarp.plugins.{protocol.__name__}, "
            f"got {type(part).__name__} without {', '.join(missing)}"
        )


def components(
    config: DictConfig, generator: Generator, depth: DepthEstimator | None, size: tuple[int, int]
) -> Components:
    """The parts of the loop besides the cache.

    Args:
        config: a composed `explore` configuration.
        generator: of the chunks.
        depth: the estimator of the photo, if any; used for generated frames too, if it can.
        size: of the frames, ``(H, W)``.
    """
    of_frames = None if generator.capabilities.depth else depth
    if isinstance(of_frames, FileDepth):  # it shows the photo alone
        of_frames = EmbeddedDepth(device=config.device)
    scale = working_scale(size, generator, video=config.video is not None)
    return Components(
        generator=generator,
        noise=_noise(config, generator.capabilities.noise),
        prior=build(config, "prior"),
        depth=of_frames,
        scale=scale,
        samples=samples_per_pixel(config, scale),
    )


def autopilot_of(config: DictConfig) -> AutopilotPolicy | None:
    """How ``path=auto`` chooses its views; None for any other path."""
    return build(config, "auto") if config.path == BY_ITSELF else None


def keep_prompts(config: DictConfig, generator: Generator) -> None:
    """Write the texts of a generator into a configuration, by chunk: a resumed session needs no file of prompts."""
    if isinstance(generator, TakesPrompts):
        config.prompt = {str(chunk): escaped(text) for chunk, text in generator.prompts.items()}
        OmegaConf.update(config, "generator.prompt", "${prompt}", force_add=True)


def video_guide(settings: Settings, depth: DepthEstimator, done: int) -> VideoGuide | None:
    """The clip of ``video=`` as guide, from its frame ``done`` on; None without one.

    Raises:
        ConfigError: a depth file, which shows one frame alone.
        ValueError: a clip that cannot be read.
    """
    if settings.video is None:
        return None
    if isinstance(depth, FileDepth):
        raise ConfigError("depth: with video=, want an estimator for its frames, got a file; set depth=embedded")
    clip = ClipReader(settings.video, settings.size, settings.fps)
    clip.skip(done)
    return VideoGuide(clip, depth, settings.video_level)


def _noise(config: DictConfig, levels: NoiseConfig) -> NoiseConfig:
    """The noise map's settings; kind and levels that are not set are the generator's own."""
    noise = config.noise.copy()
    for key in ("kind", "seen", "copied", "unknown"):
        if key in noise and noise[key] is None:
            noise[key] = getattr(levels, key)
    return build({"noise": noise}, "noise")
