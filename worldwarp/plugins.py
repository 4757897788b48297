"""Protocols of the replaceable components, with their inputs; worked example: `examples/own_generator.py`.

Pass an object to `worldwarp.explore` (``explore(image=..., generator=MyGenerator())``), or set its class on the
command line (``generator._target_=my_package.MyGenerator generator.strength=0.5``; further keys are arguments of the
class).

| component | protocol | is given | returns |
|---|---|---|---|
| ``depth`` | `DepthEstimator` | the photo's colors and focal length | `DepthMap` |
| ``cache`` | `WorldCache` | `Chunk` to integrate, `Camera` to render | `Integration`, `Guide` |
| ``generator`` | `Generator` | noisy state, sigma, `Condition`, `KVMemory` | clean state, see `encode`, `decode` |
| ``recorder`` | `Recorder` | `StartEvent`, then one `ChunkEvent` per chunk | nothing; it must not raise |
"""

from cache3d.cache import Integration, WorldCache
from diffusion.condition import Condition, Prior
from diffusion.generator import Generator, PassthroughGenerator
from diffusion.kv_memory import KVMemory
from diffusion.rgbd_state import decode, encode
from geometry.camera import Camera
from geometry.depth import DepthEstimator, DepthMap
from geometry.frame import Chunk, Frame, Guide, Observation
from geometry.primitives import Change, Gaussians, Points
from viz.recorder import ChunkEvent, NullRecorder, Recorder, StartEvent

__all__ = [
    "Camera",
    "Change",
    "Chunk",
    "ChunkEvent",
    "Condition",
    "DepthEstimator",
    "DepthMap",
    "Frame",
    "Gaussians",
    "Generator",
    "Guide",
    "Integration",
    "KVMemory",
    "NullRecorder",
    "Observation",
    "PassthroughGenerator",
    "Points",
    "Prior",
    "Recorder",
    "StartEvent",
    "WorldCache",
    "decode",
    "encode",
]
