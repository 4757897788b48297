"""The packaged generator: one pass of a small network that retouches the inpainted prior. It is not a diffusion model.

On the default walk it changes 5 to 7 % of the pixels by more than 1 of 255 and at most 1 % by more than 16, against
``generator=passthrough`` (the prior): it smooths seams, scales the detail of copies and corrects their depth. Holes
start at noise level .3 (``noise.copied``), never at 1, and the network reads little of the noisy state: two draws of
noise give the same colors to 51 dB, another shape of the noise map or no memory changes no figure
(``docs/results.md``, Ablations). What is in a hole comes from `diffusion.inpainting`. A generator that makes content
from noise is `diffusion.wan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.condition import Condition
from diffusion.flow import add_noise
from diffusion.generator import Cadence, Capabilities, Made, MadeRGBD
from diffusion.kv_memory import KVMemory, MemoryPolicy
from diffusion.memory_plan import MemoryPlan, Stage
from diffusion.retouch.network import STRIDE, DenoiserNetwork, Inputs, NetworkConfig, Past
from diffusion.rgbd_state import SKY_BELOW, SKY_CODE, encode
from diffusion.sampler import SamplerConfig, sample
from geometry.camera import Camera
from geometry.frame import Chunk

FORMAT = "worldwarp-generator-1"
DEPTH_MEDIAN_PX, DEPTH_MEDIAN_PASSES = 5, 3  # removes depth specks smaller than a patch of the prior


class RetouchGenerator:
    """`DenoiserNetwork` as a `Generator`; the weights come with the package."""

    cadence = Cadence(frames=8, size_multiple=16, pixels=192 * 320)
    capabilities = Capabilities(per_view=True)

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str = "cpu",
        policy: MemoryPolicy = MemoryPolicy(),  # noqa: B008 (frozen)
        sampler: SamplerConfig = SamplerConfig(),  # noqa: B008 (frozen)
    ) -> None:
        """Load weights.

        Args:
            weights: a safetensors file that `worldwarp train` wrote; None takes the one in the package.
            device: where to run.
            policy: bounds of the key/value memory; off by default.
            sampler: steps and spacing of the noise levels.

        Raises:
            ValueError: when the file is missing, damaged, or holds another architecture.
        """
        network = load_network(package_weights() if weights is None else Path(weights))
        for parameter in network.parameters():
            if parameter.ndim == 4:  # a third faster on a CPU
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.network = network.to(device)
        self.policy, self.sampler = policy, sampler
        self._device = torch.device(device)

    @classmethod
    def of(cls, network: DenoiserNetwork, policy: MemoryPolicy = MemoryPolicy()) -> RetouchGenerator:  # noqa: B008
        """A generator of a network in memory, on the network's device (for training and tests)."""
        self = cls.__new__(cls)
        self.network, self.policy, self.sampler = network.eval(), policy, SamplerConfig()
        self._device = network.stem.weight.device
        return self

    @property
    def _dtype(self) -> torch.dtype:
        return self.network.stem.weight.dtype

    def start(self, seed: Chunk) -> KVMemory:
        """The memory after the photo (chunk 0), whose median valid depth becomes the unit."""
        if self.policy.bank == 0:
            return KVMemory.empty(seed)
        height, width = seed.frames.camera.size
        config = self.network.config
        tokens = -(-height // STRIDE) * -(-width // STRIDE)
        return self.extended(seed, KVMemory.empty(seed, (config.blocks, tokens, config.dim), self._dtype))

    @torch.no_grad()
    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],
        sigma: Float[Tensor, "t 1 h w"],
        condition: Condition,
        memory: KVMemory,
    ) -> Float[Tensor, "t 4 h w"]:
        """Predict the clean state; attends to the remembered frames nearest in view. No gradient."""
        guide, prior = condition.guide, condition.prior
        known = encode(prior.rgb, prior.depth, memory.unit)
        smooth = encode(prior.smooth_rgb, prior.smooth_depth, memory.unit)
        maps = (guide.coverage, guide.confidence, prior.copied, sigma)
        inputs = self._inputs(x, known, smooth, maps, guide.camera, memory.unit)
        with self._precision():
            made, _, _ = self.network(inputs, self._recall(guide.camera, memory))
        clean = made[0].to(x)
        # Depth that varies from patch to patch would scatter the colors of a surface as soon as the camera moves.
        calm = median_filtered(clean[:, 3:])
        solid = (clean[:, 3:] >= SKY_BELOW) & (calm >= SKY_BELOW)
        clean[:, 3:] = torch.where((prior.copied > 0.5) & solid, calm, clean[:, 3:])
        # Copied sky is kept: trained on rendered skies, the network draws rings into photographed ones.
        return torch.where(known[:, 3:] <= SKY_CODE, known, clean)

    def make(
        self, condition: Condition, sigma: Float[Tensor, "t 1 h w"], memory: KVMemory, rng: torch.Generator
    ) -> MadeRGBD:
        """Sample the chunk from the noised prior, see `diffusion.sampler.sample`."""
        return sample(self, condition, sigma, memory, rng, self.sampler)

    def remember(self, chunk: Chunk, made: Made, memory: KVMemory) -> KVMemory:  # noqa: ARG002
        """Run every second finished frame once, generated ones at ``policy.context_noise``; keep keys and values.

        With the memory off nothing is run. No gradient.
        """
        return memory if self.policy.bank == 0 else self.extended(chunk.every_second(), memory)

    def rebuild(self, chunks: Iterable[tuple[Chunk, dict[str, Tensor]]]) -> KVMemory:
        """The memory after stored chunks; one pass for each."""
        stored = iter(chunks)
        memory = self.start(next(stored)[0])
        if self.policy.bank:
            for chunk, _ in stored:
                memory = self.extended(chunk.every_second(), memory)
        return memory

    @torch.no_grad()
    def extended(self, chunk: Chunk, memory: KVMemory) -> KVMemory:
        """The memory with the keys and values of all frames of a chunk."""
        frames, level = chunk.frames, 0.0 if chunk.observed else self.policy.context_noise
        depth = torch.where(frames.valid, frames.depth, torch.full_like(frames.depth, memory.unit))
        state = encode(frames.rgb, depth, memory.unit)
        one, none = torch.ones_like(chunk.confidence), torch.zeros_like(chunk.confidence)
        noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(chunk.index)).to(state)
        sigma = torch.full_like(none, level)
        noised = add_noise(state, noise, sigma)
        inputs = self._inputs(noised, state, state, (one, one, none, sigma), frames.camera, memory.unit)
        with self._precision():
            _, keys, values = self.network(inputs, self._recall(frames.camera, memory), first=len(frames))
        return memory.extended(keys[0], values[0], frames.camera, self.policy)

    def plan(self, size: tuple[int, int], frames: int) -> MemoryPlan:
        """Keys and values of the remembered frames; what a pass takes is counted with the loop."""
        remembered = min(self.policy.bank, 1 + frames // 2)
        # Per pixel of a remembered frame: keys and values, and the copies made to extend them.
        remembered_bytes = 48.0 * 2.5
        kept = int(remembered_bytes * size[0] * size[1] * remembered)
        return MemoryPlan((Stage("denoise", {"memory of past frames": kept}),))

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Denoise a blank chunk of ``frames`` frames of ``size = (H, W)``, seen from one place, in all its steps."""
        camera = Camera.from_fov(60.0, size, torch.eye(4).repeat(frames, 1, 1))
        blank, map_ = torch.zeros(frames, 4, *size), torch.ones(frames, 1, *size)
        with torch.no_grad(), self._precision():
            inputs = self._inputs(blank, blank, blank, (map_, map_, map_, map_), camera, 1.0)
            for _ in range(self.sampler.steps or 1):
                self.network(inputs)

    def _precision(self) -> torch.autocast:
        """bfloat16 autocast where the hardware multiplies in it: a third faster, within 1/255 of float32."""
        kind = self._device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or torch.cpu._is_avx512_bf16_supported())

    def _inputs(
        self,
        state: Tensor,
        prior: Tensor,
        smooth: Tensor,
        maps: tuple[Tensor, Tensor, Tensor, Tensor],
        camera: Camera,
        unit: float,
    ) -> Inputs:
        """Network inputs of one chunk, as a batch of one on the network's device; maps as in `Inputs`."""
        pose, intrinsics = camera.world_from_camera, camera.intrinsics
        scale = torch.tensor(unit)
        return Inputs(*(self._batch(t) for t in (state, prior, smooth, *maps, pose, intrinsics, scale)))

    def _recall(self, camera: Camera, memory: KVMemory) -> Past | None:
        if self.policy.bank == 0 or len(memory) == 0:
            return None
        recalled = memory.recall(camera, self.policy)
        past = recalled.camera
        parts = (recalled.keys, recalled.values, past.world_from_camera, past.intrinsics)
        return Past(*(self._batch(t) for t in parts))

    def _batch(self, tensor: Tensor) -> Tensor:
        return tensor[None].to(self._device, self._dtype)


def median_filtered(code: Float[Tensor, "t 1 h w"]) -> Float[Tensor, "t 1 h w"]:
    """Depth code after `DEPTH_MEDIAN_PASSES` medians over `DEPTH_MEDIAN_PX` pixels square."""
    maps = code.cpu().numpy().astype(np.float32)
    for _ in range(DEPTH_MEDIAN_PASSES):
        maps = np.stack([cv2.medianBlur(one[0], DEPTH_MEDIAN_PX)[None] for one in maps])
    return torch.from_numpy(maps).to(code)


def package_weights() -> Path:
    """The weights file in the package."""
    return Path(str(resources.files("diffusion"))) / "weights" / "generator.safetensors"


def load_network(path: Path) -> DenoiserNetwork:
    """Read a network in evaluation mode, float32, from a safetensors file.

    Raises:
        ValueError: when the file is missing, damaged, or holds another architecture.
    """
    if not path.is_file():
        raise ValueError(f"weights: want a safetensors file, there is none at {path}; run `worldwarp train generator`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"weights: {path} is not a readable safetensors file ({error}); fetch it again") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"weights: want format '{FORMAT}', got '{metadata.get('format')}' in {path}")
    try:
        network = DenoiserNetwork(NetworkConfig.from_text(metadata))
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"weights: {path} holds another architecture than its metadata says ({error})") from error
    return network.eval()


def save_network(network: DenoiserNetwork, path: Path, notes: dict[str, str] | None = None) -> None:
    """Write a network as float16 safetensors, its sizes and ``notes`` as metadata."""
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={"format": FORMAT, **network.config.to_text(), **(notes or {})})
