"""The rasterizer for any CPU: Numba kernels under a torch autograd function.

Project → stable depth order → tile lists → composite each tile Gaussian by Gaussian. No atomics: images and gradients
are bitwise equal across runs and numbers of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from cache3d.rasterizer import projection_kernels as projection
from cache3d.rasterizer import tile_kernels as tiles
from cache3d.rasterizer.types import Array, Raster, Splats, camera_row
from geometry.camera import Camera
from geometry.jit import for_blocks

# Gaussians, list entries and tiles per call of a kernel. Blocks never depend on the number of threads, and so results
# do not.
PROJECT_BLOCK = 16384
SORT_BLOCK = 65536
TILE_BLOCK = 16


def rasterize_cpu(splats: Splats, camera: Camera, eps2d: float = 0.3) -> Raster:
    """See `rasterize`. Computes in float32."""
    camera_from_world = camera.camera_from_world.float()
    parts = (splats.means, splats.quats, splats.scales, splats.opacities, splats.values)
    images = [
        _RasterizeCpu.apply(
            *(part.float() for part in parts),
            camera_from_world[k],
            camera.focal_px[k],
            camera.center_px[k],
            camera.size,
            eps2d,
        )
        for k in range(len(camera))
    ]
    # torch types what an autograd function returns as optional.
    if len(images) == 1:  # without the copy
        sums, alpha = images[0][0][None], images[0][1][None, None]  # pyright: ignore[reportOptionalSubscript]
    else:
        sums = torch.stack([image[0] for image in images])  # pyright: ignore[reportOptionalSubscript]
        alpha = torch.stack([image[1] for image in images])[:, None]  # pyright: ignore[reportOptionalSubscript]
    return Raster(sums[:, :-1], sums[:, -1:] / alpha.clamp_min(1e-10), alpha)


def warm_up(*, gradients: bool = False) -> None:
    """Compile the kernels, with one progress line; instant when they are cached, else some seconds.

    Args:
        gradients: compile the backward kernels too.
    """
    with tqdm(total=1 + gradients, desc="compiling the CPU rasterizer (first use)", leave=False, delay=1.0) as bar:
        three = torch.ones(1, 3)
        # One Gaussian is enough: kernels are compiled for types, not for sizes.
        splats = Splats(three.clone(), torch.ones(1, 4), three, torch.ones(1), three)
        splats.means.requires_grad_(gradients)
        raster = rasterize_cpu(splats, Camera.from_fov(60.0, (16, 16), torch.eye(4)[None]))
        bar.update()
        if gradients:
            raster.alpha.sum().backward()
            bar.update()


@dataclass(frozen=True)
class _Drawn:
    """Intermediate results of a forward pass that the backward pass uses."""

    camera: Array
    flat: Array
    starts: Array
    ids: Array
    firsts: Array
    slots: Array
    transmittance: Array
    last: Array


def project(parts: list[Array], camera: Array, size: tuple[int, int], eps2d: float) -> tuple[Array, Array]:
    """Projected Gaussians ``[n k]`` and their tile ranges ``[n]``; see `cache3d.rasterizer.projection_kernels`."""
    means, quats, scales, opacities, values = parts
    flat = aligned_rows(len(means), projection.FLAT + values.shape[1])
    box = np.empty(len(means), np.int64)
    for_blocks(
        len(means),
        PROJECT_BLOCK,
        lambda i, j: projection.project(
            i, j, means, quats, scales, opacities, values, camera, eps2d, size[1], size[0], flat, box
        ),
    )
    return flat, box


def aligned_rows(count: int, width: int) -> Array:
    """Uninitialized float32 rows of at least ``width`` that begin and end with cache lines."""
    line = projection.LINE
    length = -(-width // line) * line
    memory = np.empty(count * length + line, np.float32)
    first = -memory.ctypes.data // memory.itemsize % line
    return memory[first : first + count * length].reshape(count, length)


def depth_order(flat: Array, box: Array) -> tuple[Array, Array]:
    """Indices and tile ranges of the visible Gaussians, nearest first, ties in storage order.

    A stable radix sort of the bits of the depths; the ranges move along, so that they need no lookup.
    """
    order = np.flatnonzero(box >= 0).astype(np.int32)
    keys = flat[order, tiles.DEPTH].view(np.uint32)  # positive floats sort like their bits
    now, after = (keys, order, box[order]), (np.empty_like(keys), np.empty_like(order), np.empty(len(order), np.int64))
    # Three digits of 11 bits cover a depth of 32 bits.
    for shift in (0, 11, 22):
        counts = np.zeros((-(-len(order) // SORT_BLOCK), 2048), np.int64)
        count, move = projection.count_digits, projection.move_by_digit
        # The lambdas are used up before the next round changes what they see.
        for_blocks(len(order), SORT_BLOCK, lambda i, j: count(i, j, now[0], shift, counts[i // SORT_BLOCK]))  # noqa: B023
        places = _places(counts)
        for_blocks(
            len(order),
            SORT_BLOCK,
            lambda i, j: move(i, j, *now, shift, places[i // SORT_BLOCK], *after),  # noqa: B023
        )
        now, after = after, now
    return now[1], now[2]


def tile_lists(
    order: Array, boxes: Array, tiles: tuple[int, int], *, slots_of: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Lists of Gaussians per tile, nearest first.

    Args:
        order: visible Gaussians, nearest first.
        boxes: their tile ranges.
        tiles: rows and columns of tiles.
        slots_of: tile ranges of all Gaussians, to get also the entries of each Gaussian; None leaves the last two
            results empty.

    Returns:
        starts: ``[tiles + 1]`` where each tile's list begins.
        ids: ``[k]`` indices of Gaussians.
        firsts: ``[n + 1]`` where a Gaussian's part of the next begins.
        slots: ``[k]`` where in ``ids`` a Gaussian's entries are.
    """
    counts = np.zeros((-(-len(order) // SORT_BLOCK), tiles[0] * tiles[1]), np.int64)
    for_blocks(
        len(order),
        SORT_BLOCK,
        lambda i, j: projection.count_entries(i, j, boxes, tiles[1], counts[i // SORT_BLOCK]),
    )
    starts = np.zeros(counts.shape[1] + 1, np.int64)
    np.cumsum(counts.sum(axis=0), out=starts[1:])
    firsts = np.zeros(0 if slots_of is None else len(slots_of) + 1, np.int64)
    if slots_of is not None:
        for_blocks(len(slots_of), SORT_BLOCK, lambda i, j: projection.count_tiles(i, j, slots_of, firsts[1:]))
        np.cumsum(firsts, out=firsts)
    places, ids = _places(counts), np.empty(starts[-1], np.int32)
    slots = np.empty(0 if slots_of is None else starts[-1], np.int32)
    for_blocks(
        len(order),
        SORT_BLOCK,
        lambda i, j: projection.fill_lists(i, j, order, boxes, tiles[1], places[i // SORT_BLOCK], ids, firsts, slots),
    )
    return starts, ids, firsts, slots


def _places(counts: Array) -> Array:
    """Offset at which each block ``[b k]`` writes each kind: kinds in order, blocks in order within a kind."""
    ends = np.cumsum(counts.T).reshape(counts.T.shape).T
    return np.ascontiguousarray(ends - counts)


def _draw(
    parts: list[Array], camera: Array, size: tuple[int, int], eps2d: float, *, gradients: bool
) -> tuple[Array, _Drawn]:
    """Forward pass of one camera; ``parts`` are means, quats, scales, opacities, values."""
    height, width = size
    flat, box = project(parts, camera, size, eps2d)
    tiles_y, tiles_x = -(-height // tiles.TILE), -(-width // tiles.TILE)
    slots_of = box if gradients else None
    starts, ids, firsts, slots = tile_lists(*depth_order(flat, box), (tiles_y, tiles_x), slots_of=slots_of)
    sums = np.empty((parts[4].shape[1] + 1, height, width), np.float32)
    transmittance = np.empty((height, width), np.float32)
    last = np.empty((height, width), np.int32)
    which = np.arange(tiles_x * tiles_y)
    for_blocks(
        len(which),
        TILE_BLOCK,
        lambda i, j: tiles.composite(which[i:j], tiles_x, width, height, starts, ids, flat, sums, transmittance, last),
    )
    return sums, _Drawn(camera, flat, starts, ids, firsts, slots, transmittance, last)


def _pull_back(parts: list[Array], drawn: _Drawn, v_sums: Array, v_alpha: Array) -> tuple[list[Array], Array]:
    """Backward pass of one camera: gradients of ``parts`` and of rotation and translation ``[12]``."""
    height, width = v_alpha.shape
    tiles_x, tiles_y = -(-width // tiles.TILE), -(-height // tiles.TILE)
    means, quats, scales = parts[:3]
    per_entry = np.empty((len(drawn.ids), 6 + v_sums.shape[0]), np.float32)
    for_blocks(
        tiles_x * tiles_y,
        TILE_BLOCK,
        lambda i, j: tiles.composite_backward(
            i, j, tiles_x, width, height, drawn.starts, drawn.ids, drawn.flat, drawn.transmittance, drawn.last,
            v_sums, v_alpha, per_entry,
        ),
    )  # fmt: skip
    grads = [np.zeros_like(part) for part in parts]
    # Each block has a row of its own, summed in order: the same bits for any number of threads.
    v_camera = np.zeros((-(-len(means) // PROJECT_BLOCK), 12), np.float64)
    for_blocks(
        len(means),
        PROJECT_BLOCK,
        lambda i, j: projection.project_backward(
            i, j, drawn.firsts, drawn.slots, per_entry, drawn.flat, means, quats, scales, drawn.camera, width, height,
            *grads, v_camera[i // PROJECT_BLOCK],
        ),
    )  # fmt: skip
    return grads, v_camera.sum(axis=0)


def _pull_back_values(drawn: _Drawn, v_sums: Array) -> Array:
    """Backward pass of one camera where only the gradient ``[n c]`` of the values is wanted."""
    channels, height, width = len(v_sums) - 1, *v_sums.shape[1:]
    tiles_x, tiles_y = -(-width // tiles.TILE), -(-height // tiles.TILE)
    per_entry = np.empty((len(drawn.ids), channels), np.float32)
    for_blocks(
        tiles_x * tiles_y,
        TILE_BLOCK,
        lambda i, j: tiles.spread(
            i, j, tiles_x, width, height, drawn.starts, drawn.ids, drawn.flat, drawn.last, v_sums, per_entry
        ),
    )
    grad = np.empty((len(drawn.firsts) - 1, channels), np.float32)
    for_blocks(
        len(grad),
        PROJECT_BLOCK,
        lambda i, j: projection.gather(i, j, drawn.firsts, drawn.slots, per_entry, grad),
    )
    return grad


class _RasterizeCpu(torch.autograd.Function):
    """Sums ``[c+1 h w]`` (the last is depth) and alpha ``[h w]`` of one camera."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        values: Tensor,
        camera_from_world: Tensor,
        focal_px: Tensor,
        center_px: Tensor,
        size: tuple[int, int],
        eps2d: float,
    ) -> tuple[Tensor, Tensor]:
        parts = [t.detach().contiguous().numpy() for t in (means, quats, scales, opacities, values)]
        camera = camera_row(camera_from_world.detach(), focal_px.detach(), center_px.detach())
        gradients = any(ctx.needs_input_grad)
        sums, drawn = _draw(parts, camera, size, eps2d, gradients=gradients)
        if gradients:
            ctx.save_for_backward(means, quats, scales, opacities, values)
            # `save_for_backward` takes tensors alone.
            ctx.drawn = drawn
        return torch.from_numpy(sums), torch.from_numpy(1.0 - drawn.transmittance)

    @staticmethod
    def backward(ctx: Any, v_sums: Tensor, v_alpha: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.needs_input_grad[:8] == (False,) * 4 + (True,) + (False,) * 3:
            grad = _pull_back_values(ctx.drawn, v_sums.contiguous().numpy())
            return (*(None,) * 4, torch.from_numpy(grad), *(None,) * 5)
        parts = [t.detach().contiguous().numpy() for t in ctx.saved_tensors]
        grads, v_camera = _pull_back(parts, ctx.drawn, v_sums.contiguous().numpy(), v_alpha.contiguous().numpy())
        v_camera_from_world: Float[Tensor, "4 4"] = torch.zeros(4, 4)
        v_camera_from_world[:3, :3] = torch.from_numpy(v_camera[:9].reshape(3, 3))
        v_camera_from_world[:3, 3] = torch.from_numpy(v_camera[9:])
        return (*(torch.from_numpy(g) for g in grads), v_camera_from_world, None, None, None, None)
