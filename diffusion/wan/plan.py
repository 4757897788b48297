"""How much memory a Wan model will need, from its configuration alone.

The real classes run on tensors without storage while the storages that are alive at once are counted. What attends to
remembered frames adds their keys and values, which is arithmetic.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusion.memory_plan import Change, MemoryPlan, Stage
from diffusion.wan.attention import KVAttention
from diffusion.wan.lines import Config, Precision
from diffusion.wan.load import dtype_of, empty_transformer, empty_vae, is_patched, streaming
from diffusion.wan.offload import Offloading
from diffusion.wan.patch_vae import FACTOR
from diffusion.wan.tiny import TinyDecoder

ALLOCATOR = 0.05  # of all that is allocated: what allocators keep beyond it


class StorageTracker(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, while they are alive.

    Storages that exist before are not counted. What a kernel uses inside itself is not seen.

    Attributes:
        live: bytes now.
        peak: most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; count what is new in its results."""
        kwargs = kwargs or {}
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._add(leaf, counted=False)
        made = func(*args, **kwargs)
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._add(leaf, counted=True)
        return made

    def _add(self, tensor: Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)  # one Python object for a storage as long as it lives
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0
        self._known.add(key)
        weakref.finalize(storage, self._remove, key, size).atexit = False
        self.live += size
        self.peak = max(self.peak, self.live)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class _FusedAttention(TorchFunctionMode):
    """Attention as a fused kernel allocates it: the output, and a sum for each query.

    Without storage torch would take the unfused path, whose weights of all pairs no device ever holds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        query, value = named["query"], named["value"]
        out = torch.empty_like(query) if query.shape == (*query.shape[:-1], value.shape[-1]) else query @ value.mT
        query.new_empty(query.shape[:-1], dtype=torch.float32)  # the sums, freed with the call
        return out


@contextmanager
def tracked() -> Iterator[StorageTracker]:
    """Count what runs inside, on the meta device; attention counts as fused."""
    tracker = StorageTracker()
    with torch.no_grad(), _FusedAttention(), tracker:
        yield tracker


@dataclass(frozen=True)
class WanSetup:
    """What decides how much memory a Wan model needs.

    Attributes:
        transformer: arguments of ``WanTransformer3DModel``.
        vae: arguments of ``AutoencoderKLWan``, or of `PatchVAE`.
        size: of a frame, ``(H, W)``.
        chunk: latents of one pass.
        context: earlier latents that a pass attends to.
        recent: how many of these are the newest ones (``memory.recent``), the number that a user would lower.
        bank: latents remembered, 0 for models without memory.
        rows: of a pass: 1, with guidance 2.
        per_token: whether tokens of one pass have different levels, which takes more than twice the activations.
        encodes_generated: whether finished frames are encoded too (`WanSettings.guide_history`).
        precision: of the transformer.
        decoder_dtype: of the VAE's decoder, or of the tiny one.
        tiny: whether frames come from a `TinyDecoder`.
        text_encoder: bytes of its weights, 0 if the prompt's embedding is on disk. It is freed before the rest is
            loaded.
        offload: what waits in main memory while it does not run; None: the model runs in main memory.
        process: bytes in use before: of this process on a CPU, of the context on a GPU.
    """

    transformer: Config
    vae: Config
    size: tuple[int, int]
    chunk: int
    context: int = 0
    recent: int = 0
    bank: int = 0
    rows: int = 1
    per_token: bool = True
    encodes_generated: bool = False
    precision: Precision = "bf16"
    decoder_dtype: torch.dtype = torch.bfloat16
    tiny: bool = False
    text_encoder: int = 0
    offload: Offloading | None = None
    process: int = 0


@dataclass(frozen=True)
class _Measured:
    """Bytes that depend on sizes and models, not on how much is remembered.

    Attributes:
        transformer: weights.
        streamed: what of these waits while one of the blocks runs.
        slot: a remembered latent.
        prompt: keys and values of the prompt.
        predict: activations.
        record: activations of the pass that remembers.
        encoder: weights.
        encoder_state: kept.
        encode: activations.
        decoder: weights.
        tiny: weights of the decoder that takes its place; 0 if there is none.
        decoder_state: kept.
        decode: activations.
    """

    transformer: int
    streamed: int
    slot: int
    prompt: int
    predict: int
    record: int
    encoder: int
    encoder_state: int
    encode: int
    decoder: int
    tiny: int
    decoder_state: int
    decode: int


def plan_wan(setup: WanSetup) -> MemoryPlan:
    """The memory plan of a Wan model; nothing is loaded.

    Raises:
        ValueError: the model cannot take the size.
    """
    return _plan(setup, _measure(setup))


def _plan(setup: WanSetup, measured: _Measured) -> MemoryPlan:
    if setup.offload in ("stages", "blocks"):
        return _plan_offloaded(setup, measured)
    buffer = (setup.context + setup.chunk) * measured.slot if setup.context else 0
    held = {
        "process": setup.process,
        "transformer": measured.transformer,
        "VAE": measured.encoder + measured.decoder + measured.tiny,
        "keys and values of remembered latents": setup.bank * measured.slot,
        "keys and values that a pass attends to": buffer,
        "keys and values of the prompt": measured.prompt,
        "state of the VAE": measured.encoder_state + measured.decoder_state,
    }
    # A memory is not changed: the state after a chunk is made beside the one before it.
    encoded, decoded = (measured.encoder_state, measured.decoder_state) if setup.context else (0, 0)
    calls = {
        "encode": (measured.encode, encoded + decoded if setup.encodes_generated else 0),
        "denoise": (measured.predict, encoded),
        "decode": (measured.decode, encoded),
    }
    if setup.bank:
        calls["remember"] = (measured.record + setup.chunk * measured.slot, encoded + decoded)
    stages = [
        _with_slack(Stage(name, {**held, "state of the VAE after the chunk": state, "activations": size}))
        for name, (size, state) in calls.items()
    ]
    if setup.text_encoder:
        text = Stage("text", {"process": setup.process, "text encoder": setup.text_encoder})
        stages.insert(0, _with_slack(text))
    return MemoryPlan(tuple(stages), tuple(_changes(setup, measured)))


def _plan_offloaded(setup: WanSetup, measured: _Measured) -> MemoryPlan:
    """Each stage alone on the GPU; weights, memory and, to encode a prompt, the text encoder in main memory."""
    buffer = (setup.context + setup.chunk) * measured.slot if setup.context else 0
    attention = {
        "transformer": measured.transformer - (measured.streamed if setup.offload == "blocks" else 0),
        "keys and values that a pass attends to": buffer,
        "keys and values of the prompt": measured.prompt,
    }
    stages = {
        "encode": {"VAE": measured.encoder, "state of the VAE": measured.encoder_state, "activations": measured.encode},
        "denoise": {**attention, "activations": measured.predict},
        "decode": {
            "VAE": measured.tiny or measured.decoder,
            "state of the VAE": measured.decoder_state,
            "activations": measured.decode,
        },
    }
    made = setup.chunk * measured.slot
    if setup.bank:
        stages["remember"] = {**attention, "activations": measured.record + made}
    waiting = measured.transformer + measured.encoder + measured.decoder + measured.tiny
    waiting += measured.encoder_state + measured.decoder_state
    if setup.context:  # what is known after the chunk, beside what was known before it
        waiting += setup.bank * measured.slot + made + measured.encoder_state + measured.decoder_state
    planned = [_with_slack(Stage(name, {"process": setup.process, **parts})) for name, parts in stages.items()]
    changes = tuple(_changes(setup, measured))
    return MemoryPlan(tuple(planned), changes, max(waiting, setup.text_encoder))


def _with_slack(stage: Stage) -> Stage:
    allocated = stage.bytes - stage.parts["process"]
    return Stage(stage.name, {**stage.parts, "allocator": round(ALLOCATOR * allocated)})


def _changes(setup: WanSetup, measured: _Measured) -> Iterator[Change]:
    """From the least loss to the largest."""
    if setup.text_encoder and setup.offload in (None, "none"):
        without = replace(setup, text_encoder=0)
        yield Change("prompt= to a text that was encoded before", lambda: _plan(without, measured))
    if not setup.tiny:
        yield Change("generator.decoder=tiny", lambda: plan_wan(replace(setup, tiny=True)))
    further: dict[Offloading | None, tuple[Offloading, ...]] = {"none": ("stages", "blocks"), "stages": ("blocks",)}
    for offload in further.get(setup.offload, ()):
        more = replace(setup, offload=offload)
        yield Change(f"generator.offload={offload}", lambda more=more: _plan(more, measured))
    for recent in range(setup.recent - 1, 0, -1):
        less = _remembering(setup, recent)
        yield Change(f"generator.memory.recent={recent}", lambda less=less: _plan(less, measured))
    if setup.rows > 1:
        yield Change("generator.guidance=1", lambda: plan_wan(replace(setup, rows=1)))
    multiple = _size_multiple(setup)
    shares = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)  # sizes that are tried when nothing else is enough
    for share in shares:
        height, width = (max(1, round(share * side / multiple)) * multiple for side in setup.size)
        smaller = replace(setup, size=(height, width))
        yield Change(f"size=[{height},{width}]", lambda smaller=smaller: plan_wan(smaller))


def _remembering(setup: WanSetup, recent: int) -> WanSetup:
    fewer = setup.recent - recent
    return replace(setup, recent=recent, context=setup.context - fewer, bank=setup.bank - fewer)


def _size_multiple(setup: WanSetup) -> int:
    vae = setup.vae
    factor = FACTOR if is_patched(vae) else (vae.get("patch_size") or 1) * 2 ** (len(vae["dim_mult"]) - 1)
    return factor * setup.transformer["patch_size"][-1]


def _measure(setup: WanSetup) -> _Measured:
    multiple, (height, width) = _size_multiple(setup), setup.size
    if height % multiple or width % multiple:
        nearest = [max(1, round(side / multiple)) * multiple for side in setup.size]
        raise ValueError(
            f"size: want height and width in multiples of {multiple} for this model, got [{height},{width}]; "
            f"set size=[{nearest[0]},{nearest[1]}]"
        )
    # The number of context latents and what is held change no activations; a plan asks for the same ones again.
    same = replace(setup, context=min(setup.context, 1))
    models = json.dumps([dict(same.transformer), dict(same.vae)], sort_keys=True)
    measured = (
        _measured(measure, models, *(getattr(same, name) for name in names)) for measure, names in _DECIDING.items()
    )
    return _Measured(*chain.from_iterable(measured))


@cache  # a measurement takes 1 to 3 s
def _measured(measure: Callable[[WanSetup], tuple[int, ...]], models: str, *deciding: Any) -> tuple[int, ...]:
    transformer, vae = json.loads(models)
    return measure(WanSetup(transformer, vae, **dict(zip(_DECIDING[measure], deciding, strict=True))))


def _measure_transformer(setup: WanSetup) -> tuple[int, int, int, int, int, int]:
    """Of `_Measured`, ``transformer`` to ``record``."""
    model = empty_transformer(setup.transformer)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtype_of(name, setup.precision))
    config, dtype = setup.transformer, model.patch_embedding.weight.dtype
    factor = _size_multiple(setup) // config["patch_size"][-1]
    size = (setup.size[0] // factor, setup.size[1] // factor)
    grid = (size[0] // config["patch_size"][-2], size[1] // config["patch_size"][-1])
    tokens, attention = grid[0] * grid[1], KVAttention(model)
    text_tokens = 512
    text = torch.empty(setup.rows, text_tokens, config["text_dim"], dtype=dtype, device="meta")
    clip = torch.empty(setup.rows, config["in_channels"], setup.chunk, *size, dtype=dtype, device="meta")
    past = attention.record(1 if setup.context else 0, tokens, text)
    attention.stop_recording()
    shape = (setup.rows, setup.chunk * tokens) if setup.per_token else (setup.rows,)
    with tracked() as tracker:
        attention.load(past, range(len(past)), setup.chunk, grid)
        attention.rope.positions = tuple(range(len(past), len(past) + setup.chunk))
        attention.read(text)
        before = tracker.live
        model(clip, torch.empty(shape, device="meta"), text, return_dict=False)
        prompt = tracker.live - before
        predict = tracker.peak - tracker.live
        recorded = attention.record(setup.chunk, tokens, text)
        before = tracker.live
        tracker.peak = before
        model(clip, torch.empty(setup.rows, device="meta"), text, return_dict=False)
        record = tracker.peak - before
        slot = _bytes(recorded[:1])
    blocks = [_bytes(block.parameters()) for block in model.blocks]
    weights = _bytes(model.parameters()) + _bytes(model.buffers())
    return weights, sum(blocks) - max(blocks), slot, prompt, predict, record


def _measure_encoder(setup: WanSetup) -> tuple[int, int, int]:
    """Of `_Measured`, ``encoder`` to ``encode``."""
    vae = streaming(empty_vae(setup.vae))
    weights = sum(_bytes(module.parameters()) for module in vae.halves[0])
    frames = torch.empty(vae.frames_per_latent * setup.chunk, 3, *setup.size, device="meta")
    return weights, *_measure_stream(vae.encode, frames)


def _measure_decoder(setup: WanSetup) -> tuple[int, int, int, int]:
    """Of `_Measured`, ``decoder`` to ``decode``."""
    vae = streaming(empty_vae(setup.vae), setup.decoder_dtype)
    weights = sum(_bytes(module.parameters()) for module in vae.halves[1])
    small, decode = 0, vae.decode
    size = [side // vae.factor for side in setup.size]
    latents = torch.empty(setup.chunk, vae.channels, *size, device="meta")
    if setup.tiny:
        with torch.device("meta"):
            tiny = TinyDecoder(vae.channels, vae.factor // 8).to(setup.decoder_dtype)
        small, decode = _bytes(tiny.parameters()), tiny.decode
    return weights, small, *_measure_stream(decode, latents)


def _measure_stream(call: Callable[..., Any], clip: Tensor) -> tuple[int, int]:
    """Bytes of the state after the first of a clip, and of the call that continues from there."""
    with tracked() as tracker:
        _, state = call(clip[:1])
        kept = _bytes(entry for entry in state.cache if isinstance(entry, Tensor))
        tracker.peak = 0
        call(clip, state)
        return kept, tracker.peak - kept


# What decides each measurement, besides the configurations of the models: fields of `WanSetup`.
_DECIDING: dict[Callable[[WanSetup], tuple[int, ...]], tuple[str, ...]] = {
    _measure_transformer: ("size", "chunk", "context", "rows", "per_token", "precision"),
    _measure_encoder: ("size", "chunk"),
    _measure_decoder: ("size", "chunk", "decoder_dtype", "tiny"),
}


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
