"""Depth from the network whose weights are in the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate

from geometry.depth.dino import DinoEncoder
from geometry.depth.edge_alignment import fit_to_picture
from geometry.depth.estimator import DepthMap, far_sky
from geometry.depth.network import STRIDE, DepthNetwork
from geometry.depth.policy import DEFAULT_EDGES, EdgeAlignPolicy
from geometry.depth.semantic_network import SemanticDepthNetwork
from geometry.quantized import dequantized, quantized

FORMAT, SEMANTIC_FORMAT = "worldwarp-depth-1", "worldwarp-depth-2"  # without and with DINOv2


def package_weights() -> Path:
    """Path of the depth weights in the package."""
    return Path(str(resources.files("geometry"))) / "weights" / "depth.safetensors"


def save_depth_network(network: DepthNetwork, path: Path, notes: dict[str, str]) -> None:
    """Write weights with their architecture and ``notes`` on their training: float16, matrices of DINOv2 as int8."""
    about = {**notes, "format": FORMAT, "channels": str(network.channels)}
    if isinstance(network, SemanticDepthNetwork):
        shape = ",".join(map(str, network.dino.shape))
        about |= {"format": SEMANTIC_FORMAT, "width": str(network.width), "dino": shape}
    save_file(quantized(network.state_dict(), lambda name: name.startswith("dino.")), path, about)


def load_depth_network(path: Path) -> DepthNetwork:
    """Read weights.

    Raises:
        ValueError: the file is missing, damaged, or holds another architecture.
    """
    notes = _notes(path)
    try:
        network = _built(notes)
        network.load_state_dict(dequantized(load_file(path)))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"depth weights: {path} is damaged ({error}); reinstall worldwarp") from error
    except RuntimeError as error:
        raise ValueError(f"depth weights: {path} holds another architecture than {notes.get('format')}") from error
    return network.eval()


def has_encoder(path: Path) -> bool:
    """Whether weights hold DINOv2; errors as of `load_depth_network`."""
    return _notes(path)["format"] == SEMANTIC_FORMAT


def _notes(path: Path) -> dict[str, str]:
    """The metadata of a file of weights."""
    if not path.is_file():
        raise ValueError(f"depth weights: no file {path}; reinstall worldwarp, or give depth.weights=FILE")
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"depth weights: {path} is damaged ({error}); reinstall worldwarp") from error
    if notes.get("format") not in (FORMAT, SEMANTIC_FORMAT):
        raise ValueError(
            f"depth weights: want format {FORMAT} or {SEMANTIC_FORMAT}, got {notes.get('format')} in {path}"
        )
    return notes


def _built(notes: dict[str, str]) -> DepthNetwork:
    """The network that the metadata of a file of weights describes."""
    channels = int(notes["channels"])
    if notes["format"] == FORMAT:
        return DepthNetwork(channels)
    return SemanticDepthNetwork(channels, int(notes["width"]), DinoEncoder(*map(int, notes["dino"].split(","))))


class EmbeddedDepth:
    """Relative depth, median 1, with a sky mask.

    Args:
        weights: a file from `worldwarp train depth`; None takes the one in the package.
        device: device of the network.
        short_side_px: of the image that gives the layout. Default 192, near the sizes of training; at 256 the network
            confused mountains with haze (by eye).
        detail_side_px: short side of the image that gives the detail. Default 384: against one image only, motorcycle
            AbsRel .153 -> .143, edges 30 -> 19 px (log: Depth: two scales).
        detail: standard deviation of the filter that separates the two, share of the short side. Default .1; not
            measured.
        edges: alignment to color edges.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str = "cpu",
        short_side_px: int = 192,
        detail_side_px: int = 384,
        detail: float = 0.1,
        edges: EdgeAlignPolicy = DEFAULT_EDGES,
    ) -> None:
        if min(short_side_px, detail_side_px) < STRIDE:
            raise ValueError(
                f"short_side_px, detail_side_px: want {STRIDE} or more, got {short_side_px} and {detail_side_px}; "
                "leave them out for 192 and 384"
            )
        self._short_side_px, self._detail_side_px = short_side_px, detail_side_px
        self._detail = detail
        self._edges = edges
        self.network = load_depth_network(package_weights() if weights is None else Path(weights)).to(device)
        self.device = torch.device(device)

    @torch.no_grad()
    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:  # noqa: ARG002
        """Depth of colors in 0..1: layout from a small image, detail from a large one, edges aligned to the image."""
        # One by one: a batch of 12 takes twice the time on a CPU, most of it for memory.
        return DepthMap.concatenate([self._estimated(image[None]) for image in rgb])

    def _estimated(self, rgb: Float[Tensor, "1 3 h w"]) -> DepthMap:
        shown = rgb.to(self.device)
        # Once for all sizes and the mirror image: computed for each, no figure changes (log: Depth with DINOv2).
        told = self.network.tell(shown)
        log_depth, sky_logit = self._seen_at(self._short_side_px, shown, told)
        sharper, _ = self._seen_at(self._detail_side_px, shown, told)
        # Of the large image only what is fine: its layout is less reliable than that of the small one.
        detail = (sharper - log_depth).cpu()
        radius = self._detail * min(rgb.shape[-2:])
        smooth = ndimage.gaussian_filter(detail.numpy(), radius, axes=(-2, -1), mode="nearest")
        log_depth = log_depth.cpu() + detail - torch.from_numpy(smooth)
        both = zip(log_depth, sky_logit.cpu(), rgb.cpu(), strict=True)
        fitted = [fit_to_picture(depth[0], logit[0].sigmoid(), colors, self._edges) for depth, logit, colors in both]
        log_depth, likely = (torch.stack(part)[:, None].to(rgb) for part in zip(*fitted, strict=True))
        depth, sky = log_depth.exp(), likely > 0.5
        for index in range(len(depth)):
            ground = ~sky[index]
            depth[index] /= depth[index][ground].median() if ground.any() else depth[index].median()
        valid = torch.ones_like(sky)
        return DepthMap(far_sky(depth, sky, valid), valid, sky, metric=False)

    def _seen_at(self, short_side_px: int, rgb: Float[Tensor, "b 3 h w"], told: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Log depth and sky logit of an image resized to ``short_side_px``: means over it and its mirror image."""
        scale = short_side_px / min(rgb.shape[-2:])
        # The encoder halves the image five times.
        size = [max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in rgb.shape[-2:]]
        shown = interpolate(rgb, size, mode="bilinear", antialias=True)
        made = torch.cat(self.network(shown, told), 1)
        mirrored = torch.cat(self.network(shown.flip(-1), [each.flip(-1) for each in told]), 1)
        both = interpolate(0.5 * (made + mirrored.flip(-1)), rgb.shape[-2:], mode="bilinear", align_corners=False)
        return both[:, :1], both[:, 1:]
