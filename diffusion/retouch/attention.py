"""Attention that depends on relative cameras and relative positions in the frame only.

Half of each head's channels, in groups of four, are multiplied by camera matrices (as in GTA, Miyato et al. 2024,
and PRoPE, Li et al. 2025): queries by ``P_i^T``, keys and values by ``P_j^-1``, outputs by ``P_i``, where ``P`` is
projection times camera-from-world, lifted to 4x4. Then only ``P_i P_j^-1`` matters, and no world origin. The other half
carries rotary codes of the token's row and column.

Shapes: b batch, t frames, s remembered frames, n tokens per frame, h heads, e channels per head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

REACH = 8.0  # units; farther cameras are moved to this distance, so that the matrices stay well-conditioned


@dataclass(frozen=True)
class CameraMatrices:
    """Camera matrices ``P`` of a batch of frames and their inverses."""

    matrix: Float[Tensor, "b t 4 4"]
    inverse: Float[Tensor, "b t 4 4"]

    def __getitem__(self, index: slice) -> CameraMatrices:
        """Select frames."""
        return CameraMatrices(self.matrix[:, index], self.inverse[:, index])


def camera_matrices(
    world_from_camera: Float[Tensor, "b t 4 4"],
    intrinsics: Float[Tensor, "b t 3 3"],
    size: tuple[int, int],
    origin: Float[Tensor, "b 4 4"],
    unit: Float[Tensor, "b"],
) -> CameraMatrices:
    """Camera matrices relative to an origin, which cancels in attention but keeps numbers small.

    Args:
        world_from_camera: poses.
        intrinsics: K in pixels.
        size: image size ``(H, W)`` in pixels.
        origin: pose of the camera that the matrices are relative to.
        unit: length of one unit in scene units.
    """
    pose = torch.linalg.inv(origin.double())[:, None] @ world_from_camera.double()
    offset = pose[..., :3, 3] / unit.double()[:, None, None]
    offset = offset * (REACH / offset.norm(dim=-1, keepdim=True).clamp_min(REACH))
    pose = torch.cat([torch.cat([pose[..., :3, :3], offset[..., None]], -1), pose[..., 3:, :]], -2)
    # Image coordinates in -1..1 make the projection independent of the resolution.
    to_clip = pose.new_tensor([[2.0 / size[1], 0.0, -1.0], [0.0, 2.0 / size[0], -1.0], [0.0, 0.0, 1.0]])
    lifted = torch.eye(4, dtype=pose.dtype, device=pose.device).repeat(*pose.shape[:2], 1, 1)
    lifted[..., :3, :3] = to_clip @ intrinsics.double()
    matrix = lifted @ torch.linalg.inv(pose)
    return CameraMatrices(matrix.to(world_from_camera), torch.linalg.inv(matrix).to(world_from_camera))


def rotary(rows: int, columns: int, channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine ``[n channels/2]`` of the rotary code of each token: half for its row, half for its column."""
    count = channels // 4
    rotary_base = 100.0
    frequency = rotary_base ** -(torch.arange(count, dtype=torch.float64) / count)
    row = torch.arange(rows, dtype=torch.float64)[:, None, None].expand(rows, columns, 1)
    column = torch.arange(columns, dtype=torch.float64)[None, :, None].expand(rows, columns, 1)
    angle = torch.cat([row * frequency, column * frequency], dim=-1).reshape(rows * columns, 2 * count)
    return angle.cos().to(like), angle.sin().to(like)


def block_causal(chunk_query: Tensor, chunk_key: Tensor, tokens: int) -> Bool[Tensor, "q k"]:
    """Which token may attend to which: its own chunk and earlier ones. Arguments: chunk index of each frame."""
    return (chunk_query[:, None] >= chunk_key[None, :]).repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm with its weight cast to the input's dtype: mixed dtypes are slow, and torch warns."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return rms_norm(x, self.normalized_shape, self.weight.to(x), self.eps)


class CameraAttention(nn.Module):
    """Multi-head attention over frames and their tokens, with memory."""

    def __init__(self, dim: int, heads: int) -> None:
        """``dim / heads`` must be a multiple of 8: half of the channels in groups of four, half in rotary pairs."""
        super().__init__()
        if dim % (heads * 8):
            raise ValueError(f"dim: want a multiple of 8 x heads = {8 * heads}, got {dim}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.norm_query = RMSNorm(dim // heads, eps=1e-6)
        self.norm_key = RMSNorm(dim // heads, eps=1e-6)
        self.out = nn.Linear(dim, dim)
        nn.init.normal_(self.out.weight, std=0.02)

    def forward(
        self,
        x_BTNC: Tensor,
        rotary_code: tuple[Tensor, Tensor],
        frames: CameraMatrices,
        past: tuple[Tensor, Tensor, CameraMatrices] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend to the frames and to the past.

        Args:
            x_BTNC: tokens.
            rotary_code: from `rotary`.
            frames: cameras of the ``t`` frames.
            past: keys and values ``[b s n c]`` that an earlier call retransformed, with their cameras.
            mask: ``[t*n, (s+t)*n]``, True where attention is allowed; None allows all.

        Returns:
            The attended tokens, and keys and values ``[b t n c]`` without camera transform, to remember.
        """
        b, t, n, c = x_BTNC.shape
        q, k, v = self.qkv(x_BTNC).reshape(b, t, n, 3, self.heads, c // self.heads).unbind(3)
        q = _apply_rotary(self.norm_query(q), rotary_code)
        k = _apply_rotary(self.norm_key(k), rotary_code)
        q, keys, values = q.to(v), k.to(v), v
        cameras = frames
        if past is not None:
            keys = torch.cat([past[0].reshape(b, -1, n, self.heads, c // self.heads).to(v), keys], dim=1)
            values = torch.cat([past[1].reshape(b, -1, n, self.heads, c // self.heads).to(v), values], dim=1)
            cameras = CameraMatrices(
                torch.cat([past[2].matrix, frames.matrix], 1), torch.cat([past[2].inverse, frames.inverse], 1)
            )
        attended = scaled_dot_product_attention(
            _flat(_apply_camera(q, frames.matrix)),  # row vectors: q^T P_i
            _flat(_apply_camera(keys, cameras.inverse.mT)),  # P_j^-1 k
            _flat(_apply_camera(values, cameras.inverse.mT)),
            attn_mask=mask,
        )
        attended = attended.transpose(1, 2).reshape(b, t, n, self.heads, c // self.heads)
        attended = _apply_camera(attended, frames.matrix.mT).reshape(b, t, n, c)
        return self.out(attended), k.to(v).reshape(b, t, n, c), v.reshape(b, t, n, c)


def _apply_camera(x_BTNHE: Tensor, matrix_BT44: Tensor) -> Tensor:
    """Multiply the first half of the channels, in groups of four as row vectors, by a matrix per frame."""
    b, t, n, h, e = x_BTNHE.shape
    by_camera, by_position = x_BTNHE.split(e // 2, dim=-1)
    transformed = by_camera.reshape(b, t, n * h * e // 8, 4) @ matrix_BT44.to(x_BTNHE)
    return torch.cat([transformed.reshape(b, t, n, h, e // 2), by_position], dim=-1)


def _apply_rotary(x_BTNHE: Tensor, code: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the second half of the channels by the rotary code of each token."""
    cos, sin = (part[None, None, :, None, :] for part in code)
    e = x_BTNHE.shape[-1]
    by_camera, real, imaginary = x_BTNHE.split([e // 2, e // 4, e // 4], dim=-1)
    return torch.cat([by_camera, real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)


def _flat(x_BTNHE: Tensor) -> Tensor:
    """``[b t n h e]`` to ``[b h t*n e]``."""
    return x_BTNHE.flatten(1, 2).transpose(1, 2)
