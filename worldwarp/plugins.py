"""Protocols of the replaceable components, with their inputs; worked example: `examples/own_generator.py`.

Pass an object to `worldwarp.explore` (``explore(image=..., generator=MyGenerator())``), or set its class on the
command line (``generator._target_=my_package.MyGenerator generator.strength=0.5``; further keys are arguments of the
class).

| component | protocol | is given | returns |
|---|---|---|---|
| ``depth`` | `DepthEstimator` | the photo's colors and focal length | `DepthMap` |
| ``cache`` | `WorldCache` | `Chunk` to integrate, `Camera` to render | `Integration`, `Guide` |
| ``generator`` | `Generator` | `Condition`, noise map, its own memory | `Made`: frames, and what to store |
| ``recorder`` | `Recorder` | `StartEvent`, then one `ChunkEvent` per chunk | nothing; it must not raise |
"""

from cache3d.cache import Integration, WorldCache
from diffusion.condition import Condition, Prior
from diffusion.generator import Cadence, Capabilities, Generator, Made
from diffusion.memory_plan import MemoryPlan, Stage
from diffusion.passthrough import PassthroughGenerator
from geometry.camera import Camera
from geometry.depth import DepthEstimator, DepthMap
from geometry.frame import Chunk, Frame, Guide, Observation
from geometry.primitives import Change, Gaussians, Points
from viz.recorder import ChunkEvent, NullRecorder, Recorder, StartEvent

__all__ = [
    "Cadence",
    "Camera",
    "Capabilities",
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
    "Made",
    "MemoryPlan",
    "NullRecorder",
    "Observation",
    "PassthroughGenerator",
    "Points",
    "Prior",
    "Recorder",
    "Stage",
    "StartEvent",
    "WorldCache",
]
