"""Lines of published Wan checkpoints, as data: architecture, schedule, attention, license. Imports nothing heavy.

A line is a family of checkpoints that is run in one way. Two lines often share every tensor shape and differ only in
how they were trained, so that a checkpoint does not tell its line by itself: `diffusion.wan.load.detect_line`.

Sources: the programs named in `Line.code`, their published configuration files and model cards. No published weights
of any line have been run with this program yet (`Line.verified`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

Stepper = Literal["euler", "renoise"]
Attention = Literal["causal", "bidirectional", "reference"]
Rotary = Literal["absolute", "relative", "fixed"]
NoiseMode = Literal["hold", "scale", "uniform", "blend", "mask"]
First = Literal["own", "inside", "reference"]
Precision = Literal["wan", "bf16", "float32"]
PRECISIONS: tuple[Precision, ...] = ("wan", "bf16", "float32")
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Base:
    """An architecture that lines share.

    Attributes:
        config: arguments of diffusers' ``WanTransformer3DModel``, as in its ``config.json``; a line may add input
            channels.
        vae: ``2.1`` (16 channels, 8 pixels), ``2.2`` (48 channels, 16 pixels) or ``tiny`` (as 2.1, far fewer weights).
        repository: Hugging Face id of a diffusers folder with the text encoder, the tokenizer and the VAE; empty where
            these come with the transformer.
        parameters: of the transformer.
    """

    config: Config
    vae: Literal["2.1", "2.2", "tiny"]
    repository: str
    parameters: int

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.config["num_attention_heads"] * self.config["attention_head_dim"]


def _transformer(heads: int, ffn: int, layers: int, channels: int) -> Config:
    return MappingProxyType(
        {
            "patch_size": [1, 2, 2],
            "num_attention_heads": heads,
            "attention_head_dim": 128,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": 4096,
            "freq_dim": 256,
            "ffn_dim": ffn,
            "num_layers": layers,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "eps": 1e-6,
            "image_dim": None,
            "added_kv_proj_dim": None,
            "rope_max_seq_len": 1024,
            "pos_embed_seq_len": None,
        }
    )


BASES: Mapping[str, Base] = MappingProxyType(
    {
        "1.3B": Base(_transformer(12, 8960, 30, 16), "2.1", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 1_418_996_800),
        "5B": Base(_transformer(24, 14336, 30, 48), "2.2", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", 4_999_787_712),
        "14B": Base(_transformer(40, 13824, 40, 16), "2.1", "Wan-AI/Wan2.1-T2V-14B-Diffusers", 14_288_491_584),
        # Our own: a size that a CPU trains and runs. Its text is one constant token (`diffusion.wan.fresh`).
        "tiny": Base(
            MappingProxyType(
                {
                    **_transformer(4, 768, 10, 16),
                    "attention_head_dim": 64,
                    "text_dim": 16,
                    "freq_dim": 64,
                }
            ),
            "tiny",
            "",
            9_817_408,
        ),
    }
)

# Means and deviations of the latents on which the transformers were trained, per channel.
_MEAN_21 = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508)
_MEAN_21 += (0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
_STD_21 = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743)
_STD_21 += (3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
_MEAN_22 = (-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891)
_MEAN_22 += (0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502)
_MEAN_22 += (-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723)
_MEAN_22 += (-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667)
_STD_22 = (0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901)
_STD_22 += (0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659)
_STD_22 += (0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944)
_STD_22 += (0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744)

# Arguments of diffusers' ``AutoencoderKLWan``.
VAES: Mapping[str, Config] = MappingProxyType(
    {
        "2.1": MappingProxyType(
            {
                "base_dim": 96,
                "z_dim": 16,
                "dim_mult": [1, 2, 4, 4],
                "num_res_blocks": 2,
                "temperal_downsample": [False, True, True],
                "latents_mean": list(_MEAN_21),
                "latents_std": list(_STD_21),
            }
        ),
        "2.2": MappingProxyType(
            {
                "base_dim": 160,
                "decoder_base_dim": 256,
                "z_dim": 48,
                "dim_mult": [1, 2, 4, 4],
                "num_res_blocks": 2,
                "temperal_downsample": [False, True, True],
                "latents_mean": list(_MEAN_22),
                "latents_std": list(_STD_22),
                "is_residual": True,
                "in_channels": 12,
                "out_channels": 12,
                "patch_size": 2,
                "scale_factor_spatial": 16,
            }
        ),
        # Not of that class: `diffusion.wan.patch_vae.PatchVAE`.
        "tiny": MappingProxyType({"z_dim": 16, "width": 192, "blocks": 8, "fine_width": 64, "fine_blocks": 2}),
    }
)


@dataclass(frozen=True)
class Line:
    """One line of checkpoints.

    Attributes:
        name: as in ``line=``.
        title: what it is, in a few words.
        bases: names in `BASES` of the architectures it is published for.
        code: repository of the program that the weights were made for.
        weights: Hugging Face id that holds them.
        files: files in it; empty for a diffusers folder.
        top_keys: where a pickled checkpoint keeps the weights, in order of preference.
        license: of the weights.
        commercial: whether the license allows commercial use; None where it is not stated or depends on terms.
        download_gb: size of the transformer's files, 10^9 bytes; None if not known.
        vram_gib: expected peak at 480x832 (`ti2v`: 704x1280) with prompts encoded beforehand, by the memory plan,
            or as published; None if not known.
        verified: whether published weights have been run with this program.
        chunk: new latents of one chunk. A latent stands for 4 frames, the first one of a video for 1.
        overlap: latents of the chunk before that are put before a chunk and held at level 0 (lines without memory).
        trained_span: latents of the longest clip it was trained on; positions beyond are out of distribution.
        steps: published timesteps (0..1000), or the number of even steps from 1000 down to 0 (which is left out).
        shift: of the schedule, ``shift * sigma / (1 + (shift - 1) * sigma)``.
        table_end: place of the last of even ``steps`` before the shift; 0: one step short of 0. The default scheduler
            of diffusers shifts its 1000 levels, and then even steps between the first and the last of them.
        warped: whether ``steps`` are places in the shifted table (a step of 750 becomes 937.5 for shift 5); if not,
            they are timesteps as they are.
        stepper: ``euler`` along the velocity; ``renoise``: predict the clean latents, then noise them afresh.
        guidance: scale of classifier-free guidance; 1 is none.
        fps: frames per second of its training clips.
        size: height and width of its training clips, pixels.
        attention: ``causal``: a chunk sees itself and remembered chunks; ``bidirectional``: one clip, no memory;
            ``reference``: a chunk sees itself, the reference and the chunk before, no more.
        window: latents that attention may see at once, the chunk included; None: all of `trained_span`.
        sink: of those, how many stay from the beginning.
        rotary: positions are ``absolute`` in the video, ``relative`` (counted inside the window), or ``fixed``
            (``reference``: context at 0 to 5, the chunk at 6 to 8).
        first: the photo is latent 0 by itself (``own``), latent 0 of the first chunk held at level 0 (``inside``), or
            the reference (``reference``).
        noise_mode: what a noise level per token does: ``hold``: a token waits until the schedule reaches its level;
            ``scale``: its schedule is scaled to start there; ``uniform``: ignored; ``blend``: after each prediction the
            guide replaces the share of 1 - level; ``mask``: all tokens start at 1, and the model reads guide and
            coverage as input channels.
        seen: default noise level of a pixel that the world shows, as `diffusion.noise_map.NoiseConfig` has it.
        copied: of a pixel that the prior fills.
        unknown: of any other.
        extra_channels: input channels after the noisy latents: 4 of what the guide covers, then 16 of the guide.
        keeps_seen: whether pixels at a level of at most ``seen`` are shown as the guide has them: for an autoencoder
            that loses more than the guide lacks.
        precision: ``wan``: bfloat16, float32 where the original program computes in it; ``bf16``: all bfloat16, as
            students were trained to run.
        lora_alpha: scale of a published LoRA that does not carry it; None: its rank.
    """

    name: str
    title: str
    bases: tuple[str, ...]
    code: str
    weights: str
    license: str
    commercial: bool | None
    chunk: int
    trained_span: int
    steps: tuple[float, ...] | int
    shift: float
    stepper: Stepper
    attention: Attention
    noise_mode: NoiseMode
    files: tuple[str, ...] = ()
    top_keys: tuple[str, ...] = ("generator_ema", "generator", "model", "state_dict")
    download_gb: float | None = None
    vram_gib: float | None = None
    verified: bool = False
    overlap: int = 0
    table_end: float = 0.0
    warped: bool = True
    guidance: float = 1.0
    fps: int = 16
    size: tuple[int, int] = (480, 832)
    window: int | None = None
    sink: int = 0
    rotary: Rotary = "absolute"
    first: First = "own"
    seen: float = 0.4
    copied: float = 1.0
    unknown: float = 1.0
    extra_channels: int = 0
    keeps_seen: bool = False
    precision: Precision = "bf16"
    lora_alpha: float | None = None

    @property
    def vae(self) -> str:
        """Key in `VAES`."""
        return BASES[self.bases[0]].vae

    @property
    def reads_text(self) -> bool:
        """Whether it was trained with prompts; if not, it is given one constant token."""
        return bool(BASES[self.bases[0]].repository)

    @property
    def size_multiple(self) -> int:
        """What height and width of a frame are multiples of: the pixels of a token, 16 or 32."""
        return VAES[self.vae].get("scale_factor_spatial", 8) * BASES[self.bases[0]].config["patch_size"][-1]

    @property
    def latent_channels(self) -> int:
        """Channels of its latents."""
        return VAES[self.vae]["z_dim"]

    @property
    def in_channels(self) -> int:
        """Input channels of its transformer."""
        return self.latent_channels + self.extra_channels

    @property
    def terms(self) -> str:
        """The license of the weights, and whether it allows commercial use."""
        use = {True: "allowed", False: "not allowed", None: "unclear, read the license"}[self.commercial]
        return f"license of the weights: {self.license}; commercial use: {use}"

    def transformer_config(self, base: str | None = None) -> dict[str, Any]:
        """Arguments of ``WanTransformer3DModel`` for one of its `bases`; by default the first."""
        return {**BASES[base or self.bases[0]].config, "in_channels": self.in_channels}

    def schedule(self) -> dict[str, Any]:
        """What a converted checkpoint records about its sampling."""
        keys = (
            "chunk",
            "overlap",
            "trained_span",
            "steps",
            "shift",
            "table_end",
            "warped",
            "stepper",
            "guidance",
            "fps",
        )
        keys += ("attention", "window", "sink", "rotary", "first", "noise_mode")
        return {key: value for key, value in asdict(self).items() if key in keys}


_WAN = Line(
    name="wan",
    title="Wan 2.1 text to video: bidirectional, many steps",
    bases=("1.3B", "14B"),
    code="Wan-Video/Wan2.1",
    weights="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    license="Apache-2.0",
    commercial=True,
    download_gb=5.7,
    chunk=20,
    overlap=1,
    trained_span=21,
    steps=50,
    shift=3.0,
    stepper="euler",
    guidance=5.0,
    attention="bidirectional",
    noise_mode="blend",
    precision="wan",
)
_SELF_FORCING = Line(
    name="self-forcing",
    title="causal student of Wan 2.1, 4 steps",
    bases=("1.3B",),
    code="guandeh17/Self-Forcing",
    weights="gdhe17/Self-Forcing",
    files=("checkpoints/self_forcing_dmd.pt",),
    license="Apache-2.0",
    commercial=True,
    download_gb=5.7,
    vram_gib=17.5,
    chunk=3,
    trained_span=21,
    steps=(1000.0, 750.0, 500.0, 250.0),
    shift=5.0,
    stepper="renoise",
    attention="causal",
    noise_mode="blend",
)
_CAUSAL_FORCING = replace(
    _SELF_FORCING,
    name="causal-forcing",
    title="as self-forcing, from a causal teacher",
    code="thu-ml/Causal-Forcing",
    weights="zhuhz22/Causal-Forcing",
    files=("chunkwise/causal_forcing.pt",),
)

_TINY = Line(
    name="tiny",
    title="our own small one: reads the guide and its coverage, a level per token",
    bases=("tiny",),
    code="",
    weights="",
    license="Apache-2.0",
    commercial=True,
    verified=True,
    chunk=2,
    trained_span=5,
    window=5,
    sink=1,
    steps=4,  # more leave more of the noise of a network of little training (docs/results.md)
    shift=3.0,
    stepper="euler",
    attention="causal",
    noise_mode="hold",
    rotary="relative",
    size=(96, 160),
    seen=0.4,
    copied=0.8,
    extra_channels=20,
    keeps_seen=True,
    precision="float32",
)
_TINY_STUDENT = replace(
    _TINY, name="tiny-student", title="as tiny, distilled to four steps", stepper="renoise", verified=False
)

LINES: Mapping[str, Line] = MappingProxyType(
    {
        line.name: line
        for line in (
            _WAN,
            replace(
                _WAN,
                name="ti2v",
                title="Wan 2.2 text and image to video: a level per token",
                bases=("5B",),
                code="Wan-Video/Wan2.2",
                weights="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
                download_gb=None,
                vram_gib=29.0,
                chunk=30,
                trained_span=31,
                shift=5.0,
                fps=24,
                size=(704, 1280),
                noise_mode="hold",
            ),
            replace(
                _WAN,
                name="st-diff",
                title="WorldWarp's own weights: a level per token, warped guide",
                bases=("1.3B",),
                code="HyoKong/WorldWarp",
                weights="imsuperkong/worldwarp",
                files=("worldwarp_latest.ckpt",),
                license="not stated",
                commercial=None,
                download_gb=2.8,
                vram_gib=40.0,
                chunk=11,
                overlap=2,
                shift=5.0,
                size=(480, 720),
                table_end=0.005 / 1.004,  # .001 shifted by 5
                noise_mode="hold",
                seen=0.9515,  # skips .2 of 50 steps at shift 5: step 10
            ),
            _SELF_FORCING,
            _CAUSAL_FORCING,
            replace(
                _CAUSAL_FORCING,
                name="causal-forcing-frame",
                title="causal-forcing of one latent a chunk, which starts from a photo",
                files=("framewise/causal_forcing.pt",),
                chunk=1,
            ),
            replace(
                _SELF_FORCING,
                name="longlive",
                title="causal student for long videos: window, sink, change of prompt",
                code="NVlabs/LongLive",
                weights="Efficient-Large-Model/LongLive-1.3B",
                files=("models/longlive_base.pt", "models/lora.pt"),
                license="Apache-2.0, parts CC-BY-NC-SA",
                commercial=None,
                download_gb=8.5,
                window=12,
                sink=3,
                rotary="relative",
                lora_alpha=256.0,
            ),
            replace(
                _SELF_FORCING,
                name="inspatio",
                title="InSpatio-World: reads the guide and its coverage as input",
                code="inspatio/inspatio-world",
                weights="inspatio/world",
                files=("InSpatio-World-1.3B/InSpatio-World-1.3B.safetensors",),
                attention="reference",
                window=9,
                rotary="fixed",
                first="reference",
                noise_mode="mask",
                extra_channels=20,
            ),
            replace(
                _SELF_FORCING,
                name="causvid",
                title="causal student of Wan 2.1, 3 steps",
                code="tianweiy/CausVid",
                weights="tianweiy/CausVid",
                files=("autoregressive_checkpoint/model.pt",),
                license="CC-BY-NC-SA-4.0",
                commercial=False,
                download_gb=11.4,  # float32
                top_keys=("generator", "generator_ema", "model", "state_dict"),
                steps=(1000.0, 757.0, 522.0),
                shift=8.0,
                warped=False,
            ),
            replace(
                _WAN,
                name="skyreels-df",
                title="SkyReels-V2 diffusion forcing: a level per frame",
                code="SkyworkAI/SkyReels-V2",
                weights="Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers",
                license="Skywork Community License",
                commercial=None,
                chunk=20,
                overlap=5,
                trained_span=25,
                steps=30,
                shift=5.0,
                fps=24,
                size=(544, 960),
                noise_mode="hold",
            ),
            _TINY,
            _TINY_STUDENT,
        )
    }
)


def line_named(name: str) -> Line:
    """A line by its name.

    Raises:
        ValueError: there is no such line.
    """
    if name not in LINES:
        raise ValueError(f"line: want one of {', '.join(LINES)}, got '{name}'")
    return LINES[name]
