"""`diffusion.generator.Generator` for published video diffusion models of the Wan family.

A chunk: its guide is encoded, noised token by token, denoised under what the model attends to besides the chunk, and
decoded. The past reaches a chunk in one of three ways (`Line.attention`):

* ``causal``: keys and values of remembered latents (`diffusion.wan.memory`);
* ``reference``: one pass over a still clip of the photo and the chunk before, whose keys and values it reads;
* ``bidirectional``: no memory. Each chunk is a clip of its own that begins with the last frames of the world, encoded
  again and held at level 0, as the programs of these models do it.

The first two decode one endless clip, whose guide is one endless clip too: the photo, then the frames of each chunk
(`WanSettings.guide_history`).
What is remembered are the latents that the model made, rounded to bfloat16 as they are stored, never the frames.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion.condition import Condition, Prior
from diffusion.flow import add_noise
from diffusion.generator import Cadence, Capabilities, Made
from diffusion.memory_plan import MemoryPlan
from diffusion.noise_map import NoiseConfig
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.files import stored_tensors
from diffusion.wan.lines import PRECISIONS, VAES, Line, Precision
from diffusion.wan.load import (
    Checkpoint,
    find_checkpoint,
    load_transformer,
    load_vae,
    packaged_model,
    stored_vae_config,
    streaming,
)
from diffusion.wan.memory import Context, LatentBank, LatentPolicy
from diffusion.wan.offload import Offloading, Placement
from diffusion.wan.patch_vae import PatchVAE
from diffusion.wan.plan import WanSetup, plan_wan
from diffusion.wan.prompts import (
    CachedTextEncoder,
    Captioner,
    NoPrompts,
    Prompts,
    PromptSource,
    clean_prompt,
    read_prompts,
)
from diffusion.wan.sampling import sample
from diffusion.wan.schedule import draw
from diffusion.wan.settings import Recipe, WanSettings
from diffusion.wan.tiny import TinyDecoder, load_tiny
from diffusion.wan.tokens import FRAMES_PER_LATENT, expanded, mask_channels, padded, token_levels
from diffusion.wan.vae import StreamingVAE, StreamState
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

_log = logging.getLogger(__name__)

EASE_PX = 8.0  # see `over_seen`; as the outpainted sides of a photo have it
TINY = {"2.1": "taew2_1.safetensors", "2.2": "taew2_2.safetensors"}  # weights of the tiny decoder, by VAE
TEXT_ENCODER_BYTES = 2 * 5_680_910_336  # of UMT5-XXL in bfloat16


@runtime_checkable
class PromptEmbeddings(Protocol):
    """Where prompts come from (`diffusion.wan.prompts.PromptSource`)."""

    def at(self, chunk: int) -> Float[Tensor, "n d"]:
        """Embedded prompt of a chunk."""
        ...

    def negative(self) -> Float[Tensor, "n d"] | None:
        """Embedded negative prompt, for guidance."""
        ...


@dataclass(frozen=True)
class Streams:
    """How far the guide is encoded and the video is decoded."""

    encoder: StreamState
    decoder: StreamState


@dataclass(frozen=True)
class WanMemory:
    """What is known after a chunk; a later one changes nothing in it.

    Attributes:
        chunks: finished chunks, the photo included.
        latents: latent frames of the walk.
        text: embedded prompt under which ``bank`` was made, and the negative one with guidance, ``[b n d]``.
        streams: None for lines without memory.
        bank: of causal lines.
        seen: of ``reference`` lines: the still clip ``[f c h w]`` and, after the first chunk, the chunk before.
        overlap: of lines without memory: the last frames of the world, ``[t 3 h w]``.
    """

    chunks: int
    latents: int
    text: Float[Tensor, "b n d"]
    streams: Streams | None = None
    bank: LatentBank | None = None
    seen: tuple[Tensor, ...] = ()
    overlap: Float[Tensor, "t 3 h w"] | None = None


@dataclass(frozen=True)
class WanMade(Made):
    """A chunk with what `WanGenerator.remember` would otherwise compute again.

    Attributes:
        before: the memory it was made from, under the chunk's prompt.
        streams: after it.
    """

    before: WanMemory | None = None
    streams: Streams | None = None


@dataclass(frozen=True)
class Parts:
    """The loaded models of a line.

    Attributes:
        denoiser: with the guidance of the recipe.
        vae: of the latents of the line.
        prompts: replaced by others when a user changes the prompt.
        tiny: decodes instead of the VAE.
    """

    denoiser: WanDenoiser
    vae: StreamingVAE | PatchVAE
    prompts: PromptEmbeddings
    tiny: TinyDecoder | None = None

    @property
    def decoder(self) -> StreamingVAE | PatchVAE | TinyDecoder:
        """What makes frames of latents."""
        return self.vae if self.tiny is None else self.tiny

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        if self.vae.channels != self.denoiser.channels:
            raise ValueError(
                f"VAE: want one of {self.denoiser.channels} channels, as the transformer has, got "
                f"{self.vae.channels}; take the VAE that belongs to the model"
            )
        if self.denoiser.guidance != 1.0 and self.prompts.negative() is None:
            raise ValueError(f"guidance: want a negative prompt for a scale of {self.denoiser.guidance}, got none")


class WanGenerator:
    """A published Wan-class model as a generator; nothing large is loaded before it is used.

    Attributes:
        recipe: the line and how it is run.
    """

    _captioner: Captioner | None = None

    def __init__(
        self,
        pretrained: str | Path | None = None,
        line: str = "auto",
        prompt: str | Mapping[str, str] | None = None,
        negative: str = "",
        device: str = "cpu",
        offload: str = "none",
        precision: str | None = None,
        attention: str = "native",
        decoder: str = "full",
        steps: int | str | Sequence[float] | None = None,
        shift: float | None = None,
        lag: float = 0.0,
        guidance: float | None = None,
        mode: str | None = None,
        pooling: str = "max",
        chunk: int | None = None,
        overlap: int | None = None,
        smoothing: float = 0.0,
        memory: LatentPolicy | None = None,
        guide_history: str | None = None,
        captioner: Captioner | None = None,
    ) -> None:
        """Find the model and check the settings.

        Args:
            pretrained: folder, file or Hugging Face id (`diffusion.wan.load.find_checkpoint`); None: the small model
                that comes with the package.
            line: a name in `diffusion.wan.lines.LINES`, or ``auto``.
            prompt: text, or a YAML file of texts by chunk or frame (`diffusion.wan.prompts.read_prompts`), or texts by
                chunk; None: the captioner's text for the photo, or the empty one.
            negative: prompt that guidance leads away from.
            device: where to run.
            offload: what waits in main memory while it does not run on a GPU (`Placement`); the text encoder runs on
                the CPU then, unless this is ``none``.
            precision: profile of the transformer; None: that of the checkpoint.
            attention: backend of diffusers' attention.
            decoder: ``full``: the VAE's; ``tiny``: TAEHV's, a file of the model's folder (`TINY`); or such a file.
            steps: as in `WanSettings`, like all that follow.
            shift: of the schedule.
            lag: of each latent frame behind the one before.
            guidance: scale.
            mode: of noise levels.
            pooling: of noise levels.
            chunk: latents.
            overlap: latents.
            smoothing: level.
            memory: policy.
            guide_history: what a guide is encoded after.
            captioner: describes the photo where no prompt is given.

        Raises:
            ValueError: there is no such model, line or file of prompts, or the line cannot have these settings.
        """
        profile: Precision | None = next((name for name in PRECISIONS if name == precision), None)
        if precision is not None and profile is None:
            raise ValueError(f"precision: want one of {', '.join(PRECISIONS)}, got '{precision}'")
        offloading: Offloading | None = next((name for name in get_args(Offloading) if name == offload), None)
        if offloading is None:
            raise ValueError(f"offload: want one of {', '.join(get_args(Offloading))}, got '{offload}'")
        if offloading != "none" and device == "cpu":
            raise ValueError(
                f"offload: want a GPU whose memory is to be spared, got device=cpu and '{offload}'; leave "
                "generator.offload out, or set device=cuda"
            )
        self._checkpoint = find_checkpoint(packaged_model() if pretrained is None else pretrained, line)
        policy = memory or LatentPolicy()
        sampling = (steps, shift, lag, guidance, mode, pooling)
        settings = WanSettings(*sampling, chunk, overlap, smoothing, policy, guide_history)
        self.recipe = settings.of(self._checkpoint.line)
        self._tiny = None if decoder == "full" else _tiny_file(decoder, self._checkpoint)
        _check_text(self.recipe.line, prompt)
        self._captioner = captioner if prompt is None and self.recipe.line.reads_text else None
        if isinstance(prompt, Mapping):
            self._prompts = Prompts.of({int(chunk): text for chunk, text in prompt.items()})
        else:
            self._prompts = read_prompts(prompt or "", self.recipe.frames)
        self._negative, self._device, self._attention = negative, device, attention
        self._offload: Offloading = offloading
        self._precision: Precision | None = profile
        self._loaded: Parts | None = None

    @classmethod
    def of(cls, parts: Parts, recipe: Recipe) -> WanGenerator:
        """A generator of models in memory (for training and tests)."""
        self = cls.__new__(cls)
        self._loaded, self.recipe = parts, recipe
        return self

    @property
    def parts(self) -> Parts:
        """The models, loaded when they are first asked for: prompts are encoded before the transformer is there."""
        if self._loaded is None:
            checkpoint, recipe = self._checkpoint, self.recipe
            prompts: PromptEmbeddings = NoPrompts(checkpoint.config["text_dim"])
            if recipe.line.reads_text:
                negative = None if recipe.guidance == 1.0 else self._negative
                prompts = PromptSource.of(self._prompts, self._text_encoder, negative)
            placement = Placement(self._device, self._offload)
            vae = streaming(load_vae(checkpoint, placement.home), self._decoder_dtype, placement)
            model = load_transformer(checkpoint, self._precision, placement.home)
            whole = not recipe.line.warped
            denoiser = WanDenoiser(model, recipe.guidance, whole_timesteps=whole, placement=placement)
            if self._attention != "native":
                _set_attention(model, self._attention)
            tiny = None if self._tiny is None else load_tiny(self._tiny, vae.channels, placement, self._decoder_dtype)
            self._loaded = Parts(denoiser, vae, prompts, tiny)
        return self._loaded

    def plan(self, size: tuple[int, int], frames: int) -> MemoryPlan:
        """The memory of the models and of what is remembered, by stage; loads nothing.

        Args:
            size: frame size ``(H, W)``.
            frames: frames of the path, the photo included: a short walk remembers less.

        Raises:
            ValueError: a size that the model cannot take.
        """
        checkpoint, recipe, line = self._checkpoint, self.recipe, self.recipe.line
        walk = 1 + recipe.chunk * -(-max(frames - 1, 0) // recipe.frames)
        context = bank = 2 * recipe.chunk if line.attention == "reference" else 0
        recent = 0
        if (bounds := recipe.bounds) is not None:
            context, bank = min(bounds.sink + bounds.recent + bounds.nearest, walk), min(bounds.bank, walk)
            recent = max(context - bounds.sink - bounds.nearest, 0)
        held = recipe.overlap if line.attention == "bidirectional" else 0
        stored = None if checkpoint.folder is None else checkpoint.folder / "vae"
        return plan_wan(
            WanSetup(
                transformer=checkpoint.config,
                vae=stored_vae_config(stored, line) if stored and stored.is_dir() else VAES[line.vae],
                size=size,
                chunk=recipe.chunk + held,
                context=context,
                recent=recent,
                bank=bank,
                rows=1 if recipe.guidance == 1.0 else 2,
                per_token=recipe.mixes or held > 0,
                encodes_generated=recipe.guide_history == "generated" and line.attention != "bidirectional",
                precision=self._precision or checkpoint.precision,
                decoder_dtype=self._decoder_dtype,
                tiny=self._tiny is not None,
                text_encoder=self._text_encoder_bytes,
                offload=None if self._device == "cpu" else self._offload,
            )
        )

    @property
    def _text_encoder_bytes(self) -> int:
        """Bytes of the text encoder while it runs; 0 where the prompts were encoded before.

        Of a Hugging Face id nothing is fetched to find out: what is not in its cache was not encoded here.
        """
        if not self.recipe.line.reads_text:
            return 0
        folder = self._checkpoint.folder_at_hand_with("text_encoder", "tokenizer")
        if folder is None:
            return TEXT_ENCODER_BYTES
        negative = [] if self.recipe.guidance == 1.0 else [clean_prompt(self._negative)]
        encoder = CachedTextEncoder(folder, device=self._device)
        try:
            if self._captioner is None and encoder.has([*self._prompts.texts, *negative]):
                return 0
            shapes = stored_tensors(folder / "text_encoder").shapes.values()
        except ValueError:  # half a download: the rest comes, or loading says what is missing
            return TEXT_ENCODER_BYTES
        return encoder.dtype.itemsize * sum(prod(shape) for shape in shapes)

    @property
    def _decoder_dtype(self) -> torch.dtype:
        """bfloat16 where it is fast; errors of the decoder do not add up, as those of the encoder would."""
        return torch.bfloat16 if torch.device(self._device).type == "cuda" else torch.float32

    @property
    def _text_encoder(self) -> CachedTextEncoder:
        folder = self._checkpoint.folder_with("text_encoder", "tokenizer")
        return CachedTextEncoder(folder, device=self._device if self._offload == "none" else "cpu")

    @property
    def prompts(self) -> Mapping[int, str]:
        """Texts by the chunk at which each begins."""
        return self._prompts.by_chunk()

    def prompted(self, text: str, from_chunk: int) -> WanGenerator:
        """The generator with another text, or file of texts, from a chunk on.

        Its models are shared, this one does not change.

        Raises:
            ValueError: the line reads no text.
        """
        _check_text(self.recipe.line, text)
        if not self.recipe.line.reads_text:
            return self
        changed = copy.copy(self)
        changed._prompts = self._prompts.then(read_prompts(text, self.recipe.frames), from_chunk)
        if self._loaded is not None:
            negative = None if self.recipe.guidance == 1.0 else self._negative
            source = PromptSource.of(changed._prompts, self._text_encoder, negative)
            changed._loaded = replace(self._loaded, prompts=source)
        return changed

    @property
    def terms(self) -> str:
        """The line, with the license of its weights."""
        return f"{self.recipe.line.name}, {self.recipe.line.terms}"

    @property
    def cadence(self) -> Cadence:
        """Frames of a chunk; sides are whole tokens; the line's training size."""
        line = self.recipe.line
        frames = self.recipe.frames
        return Cadence(frames, frames, line.size_multiple, line.size[0] * line.size[1])

    @property
    def capabilities(self) -> Capabilities:
        """No depth, no single wide views; the noise levels of the line."""
        line, kind = self.recipe.line, "regions" if self.recipe.mixes else "confidence"
        return Capabilities(False, False, NoiseConfig(kind, line.seen, line.copied, line.unknown))

    def start(self, seed: Chunk) -> WanMemory:
        """The memory after the photo.

        Raises:
            ValueError: a size that the model cannot take.
        """
        photo = seed.frames.rgb
        if any(side % self.cadence.size_multiple for side in photo.shape[-2:]):
            multiple = self.cadence.size_multiple
            nearest = "x".join(str(max(1, round(side / multiple)) * multiple) for side in photo.shape[-2:])
            raise ValueError(
                f"size: want height and width in multiples of {multiple}, got "
                f"{photo.shape[-2]}x{photo.shape[-1]}; take {nearest}"
            )
        if self._captioner is not None:
            self._prompts, self._captioner = Prompts.of({0: self._captioner.caption(photo[0])}), None
        text = self._text(0, None)
        if self.recipe.line.attention == "bidirectional":
            return WanMemory(1, 1, text, overlap=photo)
        latent, encoder = self.parts.vae.encode(photo)
        latent = _stored(latent).to(latent)
        _, decoder = self.parts.decoder.decode(latent)
        memory = WanMemory(1, 1, text, Streams(encoder, decoder))
        if (bounds := self.recipe.bounds) is None:
            still, _ = self.parts.vae.encode(photo.expand(self.recipe.frames, -1, -1, -1), encoder)
            return replace(memory, seen=(still,))
        bank = LatentBank((), seed.frames.camera[:0], seed.frames.median_depth())
        return replace(memory, bank=self.parts.denoiser.extend(bank, latent, seed.frames.camera, 0, 0, text, bounds))

    def make(
        self, condition: Condition, sigma: Float[Tensor, "t 1 h w"], memory: WanMemory, rng: torch.Generator
    ) -> WanMade:
        """The frames of the chunk that ``condition`` describes; ``sigma`` is the noise level of each pixel."""
        recipe, count = self.recipe, recipe_frames(self.recipe, len(sigma))
        # 1. The prompt of the chunk, and the memory under it.
        memory = self._prompted(memory)
        # 2. Guide and noise levels of a whole chunk; a short one stands still at its end.
        shown, known = self._guide(condition)
        held, streams = self._clip(memory)
        guide, encoder = self.parts.vae.encode(_colors(padded(shown, count)), streams.encoder)
        pooled = token_levels(padded(sigma, count), self.parts.vae.factor, self.parts.denoiser.patch, recipe.pooling)
        level = expanded(pooled, self.parts.denoiser.patch).to(guide)
        extra = None
        if known is not None:
            extra = torch.cat([mask_channels(padded(known, count), self.parts.vae.factor).to(guide), guide], 1)
        # 3. Denoise.
        camera = _latent_camera(condition.guide.camera, count)
        context, text = self._context(memory, camera, len(held)), memory.text

        def predict(noisy: Tensor, now: Tensor) -> Tensor:
            return self.parts.denoiser.predict(noisy, now, text, context, extra)

        latents = sample(predict, recipe, held, guide, level, rng)
        # 4. Decode what will be stored.
        stored = _stored(latents)
        frames, decoder = self.parts.decoder.decode(stored.to(guide), streams.decoder)
        carried = {}
        if memory.streams is not None:
            carried["latents"] = stored.cpu()
            if recipe.guide_history == "own":
                carried["guide"] = shown.cpu()
            else:
                _, encoder = self.parts.vae.encode(frames, streams.encoder)
        rgb = frames[: len(sigma)].to(sigma.device)
        if recipe.line.keeps_seen:
            rgb = over_seen(rgb, condition, sigma, recipe.line.seen)
        return WanMade(rgb, None, None, carried, memory, Streams(encoder, decoder))

    def remember(self, chunk: Chunk, made: Made, memory: WanMemory) -> WanMemory:
        """The memory after a chunk; frames of another generator are encoded first (`_encoded`)."""
        recipe = self.recipe
        counted = replace(memory, chunks=memory.chunks + 1, latents=memory.latents + recipe.chunk)
        if memory.streams is None:
            assert memory.overlap is not None
            frames = torch.cat([memory.overlap, chunk.frames.rgb.to(memory.overlap)])
            return replace(counted, overlap=frames[-recipe.overlap_frames(len(frames)) :])
        if not self._has_latents(made.carried):
            return self._encoded(chunk, memory)
        count = recipe_frames(recipe, len(chunk.frames))
        latents = made.carried["latents"].to(self.parts.vae.device, torch.float32)
        if isinstance(made, WanMade) and made.before is not None and made.streams is not None:
            before, streams = made.before, made.streams
        else:
            before = self._prompted(memory)
            frames, decoder = self.parts.decoder.decode(latents, memory.streams.decoder)
            if recipe.guide_history == "own":
                frames = _colors(padded(made.carried["guide"], count))
            streams = Streams(self.parts.vae.encode(frames, memory.streams.encoder)[1], decoder)
        after = replace(counted, text=before.text, streams=streams)
        if before.bank is None or recipe.bounds is None:
            return replace(after, seen=(memory.seen[0], latents))
        noised, level = None, recipe.bounds.context_noise
        if level > 0.0:
            noise = draw(latents, torch.Generator().manual_seed(chunk.index))
            noised = add_noise(latents, noise, torch.full_like(latents[:, :1], level)), level
        camera = _latent_camera(chunk.frames.camera, count)
        place = (before.bank, latents, camera, memory.latents, chunk.index, before.text, recipe.bounds)
        return replace(after, bank=self.parts.denoiser.extend(*place, noised))

    def rebuild(self, chunks: Iterable[tuple[Chunk, dict[str, Tensor]]]) -> WanMemory:
        """The memory after stored chunks, the photo first: the same bits as of the walk that made them.

        Raises:
            ValueError: there is no chunk.
        """
        memory, foreign = None, 0
        for chunk, carried in chunks:
            if memory is None:
                memory = self.start(chunk)
            else:
                foreign += memory.streams is not None and not self._has_latents(carried)
                memory = self.remember(chunk, Made(chunk.frames.rgb, None, None, carried), memory)
        if memory is None:
            raise ValueError("memory: want at least the photo to rebuild it from, got no chunk")
        if foreign:
            _log.warning(
                "%d chunks of this world have no latents of this model: their frames were encoded again, which is "
                "close to what it would remember of its own",
                foreign,
            )
        return memory

    def _has_latents(self, carried: Mapping[str, Tensor]) -> bool:
        """Whether a chunk was stored by a generator of these latents and chunks."""
        shape, own = (self.recipe.chunk, self.parts.vae.channels), self.recipe.guide_history == "own"
        wanted = {"latents", "guide"} if own else {"latents"}
        return wanted <= carried.keys() and carried["latents"].shape[:2] == shape

    def _encoded(self, chunk: Chunk, memory: WanMemory) -> WanMemory:
        """The memory after a chunk that another generator made: its frames stand for guide and latents.

        A longer chunk than this generator makes becomes several of its own, under one prompt.
        """
        chunks, frames = memory.chunks, self.recipe.frames
        for first in range(0, len(chunk.frames), frames):
            assert memory.streams is not None
            part = replace(
                chunk,
                frames=chunk.frames[first : first + frames],
                confidence=chunk.confidence[first : first + frames],
            )
            shown = _colors(padded(_bytes(part.frames.rgb), frames))
            latents, encoder = self.parts.vae.encode(shown, memory.streams.encoder)
            stored = _stored(latents)
            _, decoder = self.parts.decoder.decode(stored.to(latents), memory.streams.decoder)
            carried = {"latents": stored, "guide": shown}
            made = WanMade(part.frames.rgb, None, None, carried, self._prompted(memory), Streams(encoder, decoder))
            memory = replace(self.remember(part, made, memory), chunks=chunks)
        return replace(memory, chunks=chunks + 1)

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Make and remember one blank chunk of ``frames`` frames of ``size = (H, W)``: warm-up, and for timing."""
        camera = Camera.from_fov(60.0, size, torch.eye(4).repeat(frames, 1, 1))
        rgb, one = torch.full((frames, 3, *size), 0.5), torch.ones(frames, 1, *size)
        shown = Frame(rgb, one, one > 0.0, one < 0.0, camera)
        guide = Guide(rgb, one, 0.0 * one, 0.0 * one, 0.0 * one, camera)
        condition = Condition(guide, Prior(rgb, one, one, rgb, one, one < 0.0))
        memory = self.start(Chunk(shown[:1], 0, observed=True, confidence=one[:1]))
        made = self.make(condition, one, memory, torch.Generator().manual_seed(0))
        self.remember(Chunk(shown, 1, observed=False, confidence=one), made, memory)

    def _text(self, chunk: int, before: Tensor | None) -> Float[Tensor, "b n d"]:
        """The prompt of a chunk; the very tensor ``before`` where it is the same, which attention goes by."""
        rows = [self.parts.prompts.at(chunk)]
        if self.recipe.guidance != 1.0 and (negative := self.parts.prompts.negative()) is not None:
            rows.append(negative)
        text = torch.stack(rows)
        return before if before is not None and torch.equal(text, before) else text

    def _prompted(self, memory: WanMemory) -> WanMemory:
        """The memory under the prompt of the chunk that comes."""
        text = self._text(memory.chunks, memory.text)
        if text is memory.text:
            return memory
        if memory.bank is None or self.recipe.bounds is None:
            return replace(memory, text=text)
        return replace(memory, text=text, bank=self.parts.denoiser.recached(memory.bank, text, self.recipe.bounds))

    def _guide(self, condition: Condition) -> tuple[UInt8[Tensor, "t 3 h w"], Float[Tensor, "t 1 h w"] | None]:
        """What is encoded as guide, and for models that read a mask the pixels that are known."""
        covered = condition.guide.covered
        if self.recipe.mode == "mask":
            return _bytes(torch.where(covered, condition.guide.rgb, 0.0)), covered.float()
        return _bytes(condition.prior.rgb), covered.float() if self.recipe.line.extra_channels else None

    def _clip(self, memory: WanMemory) -> tuple[Float[Tensor, "o c h w"], Streams]:
        """Latents that come before the chunk in its pass and are held, and the streams after them."""
        if memory.streams is not None:
            height, width = memory.streams.encoder.size
            return torch.zeros(0, self.parts.vae.channels, height, width, device=self.parts.vae.device), memory.streams
        assert memory.overlap is not None
        held, encoder = self.parts.vae.encode(memory.overlap[:1])
        _, decoder = self.parts.decoder.decode(held)
        if len(memory.overlap) > 1:
            more, encoder = self.parts.vae.encode(memory.overlap[1:], encoder)
            _, decoder = self.parts.decoder.decode(more, decoder)
            held = torch.cat([held, more])
        return held, Streams(encoder, decoder)

    def _context(self, memory: WanMemory, camera: Camera, held: int) -> Context:
        """What the chunk attends to besides itself."""
        chunk, bounds = self.recipe.chunk, self.recipe.bounds
        if memory.bank is not None and bounds is not None:
            return memory.bank.context(camera, memory.latents, bounds)
        if not memory.seen:
            return Context.none(held + chunk)
        seen = torch.cat(memory.seen)
        slots = self.parts.denoiser.record(seen, memory.text, Context.none(len(seen)))
        return Context(slots, tuple(range(len(seen))), tuple(range(2 * chunk, 3 * chunk)))


def _check_text(line: Line, prompt: str | Mapping[str, str] | None) -> None:
    """Refuse a prompt that nothing would read; a resumed walk brings an empty one."""
    texts = [prompt or ""] if not isinstance(prompt, Mapping) else [*prompt.values()]
    if not line.reads_text and any(texts):
        raise ValueError(f"prompt: want none for {line.name}, which reads no text, got {prompt!r}; leave it out")


def _set_attention(model: WanTransformer3DModel, backend: str) -> None:
    """Choose a backend of diffusers' attention.

    Raises:
        ValueError: there is none of that name, or it is not installed.
    """
    try:
        model.set_attention_backend(backend)
    except (ValueError, RuntimeError):
        raise ValueError(
            f"attention: want native or another backend of diffusers that is installed, got '{backend}'"
        ) from None


def _tiny_file(decoder: str, checkpoint: Checkpoint) -> Path:
    """The file of a tiny decoder.

    Raises:
        ValueError: it is not there.
    """
    name = TINY.get(checkpoint.line.vae)
    if name is None:
        raise ValueError(f"decoder: want full for {checkpoint.line.name}, whose VAE is small, got '{decoder}'")
    path = Path(decoder).expanduser() if decoder != "tiny" else (checkpoint.folder or Path()) / name
    if not path.is_file():
        raise ValueError(
            f"decoder: want full, or the file {name} of madebyollin/taehv, got none at {path}; download it and set "
            "decoder to its path"
        )
    return path


def over_seen(
    rgb: Float[Tensor, "t 3 h w"], condition: Condition, sigma: Float[Tensor, "t 1 h w"], seen: float
) -> Float[Tensor, "t 3 h w"]:
    """Generated colors where the level is above ``seen``, elsewhere those of the guide.

    Over `EASE_PX` from the border the generated colors take the place of the prior's, which continue the guide.
    """
    from scipy.ndimage import distance_transform_edt

    made = []
    for one, prior, kept in zip(rgb, condition.prior.rgb, condition.guide.covered & (sigma <= seen), strict=True):
        if kept.any():
            distance = torch.from_numpy(np.asarray(distance_transform_edt(~kept.cpu().numpy()))).to(one)
            made.append(torch.lerp(prior.to(one), one, (distance / EASE_PX).clamp_max(1.0)))
        else:
            made.append(one)
    return torch.stack(made)


def recipe_frames(recipe: Recipe, given: int) -> int:
    """Frames of a whole chunk, of which ``given`` are wanted."""
    if not 1 <= given <= recipe.frames:
        raise ValueError(f"chunk: want 1 to {recipe.frames} frames, got {given}")
    return recipe.frames


def _latent_camera(camera: Camera, count: int) -> Camera:
    """Cameras of the latents of ``count`` frames: each that of its last frame; the last one stays to the end."""
    last = len(camera) - 1
    return camera[[min(k, last) for k in range(FRAMES_PER_LATENT - 1, count, FRAMES_PER_LATENT)]]


def _bytes(rgb: Float[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t 3 h w"]:
    return (255.0 * rgb).round().clamp(0.0, 255.0).to(torch.uint8)


def _colors(rgb: UInt8[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
    return rgb.float() / 255.0


def _stored(latents: Float[Tensor, "f c h w"]) -> Tensor:
    return latents.to(torch.bfloat16)
