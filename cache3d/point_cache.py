"""The world as points: the light alternative, drawn as small discs into a z-buffer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cache3d.cache import Integration, check_chunk
from cache3d.integration.optimization import blend_generated
from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from cache3d.integration.retirement import contradicted
from cache3d.integration.rules import new_pixels
from cache3d.integration.surfels import lift_surfels
from cache3d.rendering import confidence as trust
from cache3d.rendering.footprint import MAX_SLOPE
from cache3d.rendering.point_kernels import splat_discs
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.visibility import in_image
from cache3d.store.block_store import BlockStore
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide, Observation
from geometry.jit import for_blocks
from geometry.primitives import Change, Gaussians, Points
from geometry.surfaces import same_surface

USUAL_COSINE = 0.5  # under which a point was seen first; it does not remember


class PointCache:
    """A world cache of surface points, under the same protocol and rules as `GaussianCache`.

    Each point is a disc of the size of the pixel that made it, tilted with the surface; the nearest is shown, but its
    rim neither fattens outlines nor covers a sample that lies in the pixel itself. A closer look adds finer points and
    takes none away: of the points of one surface a camera is shown those nearest to its pixels in size, for of much
    finer ones a pixel would show one of many. Nothing is drawn into gaps that no disc covers: coverage is 0 or 1. Sky
    is drawn behind everything as if it moved with the camera. Runs on the CPU.

    Args:
        resident_mib: how much of the world stays in memory, at least one view; the rest goes to disk.
    """

    def __init__(self, resident_mib: float | int = 2048, policy: IntegrationPolicy = DEFAULT_POLICY) -> None:
        self._policy = policy
        self._store = BlockStore(_empty(), resident_mib)

    def __len__(self) -> int:
        return len(self._store)

    @torch.no_grad()
    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> Integration:  # noqa: ARG002 - the protocol
        """Add what a chunk shows and the cache does not, frame by frame; see `cache3d.integration.rules` for the rules.

        Points are retired only where a frame looks through them, and not refined by optimization: ``remembered`` frames
        change nothing.

        Raises:
            ValueError: if its parts disagree in shape, or depth is not positive where valid.
        """
        check_chunk(chunk)
        first, refined = self._store.total, 0
        for k in range(len(chunk.frames)):
            observation = chunk.observation(k)
            frame = observation.frame
            self._remove_contradicted(observation)
            view = self._store.near(frame.camera)
            owner, nearest = _draw(view.rows, frame.camera[None])
            rendered = _rendered(view.rows, frame.camera, owner[0], nearest[0])
            better = blend_generated(view.rows, view.rows.positions, rendered, observation, self._policy)
            self._store.put(view, better)
            refined += len(better)
            new = new_pixels(rendered, observation, self._policy)
            new |= _closer(view.rows, owner[0], rendered, observation, self._policy)
            self._store.append(_points(observation, new, chunk.index))
        return Integration(self._store.total - first, refined, len(self), first, self._store.take_change())

    @torch.no_grad()
    def render(self, camera: Camera) -> Guide:
        """Show the cache to a batch ``[t]`` of cameras of any image size."""
        if len(camera.batch_shape) != 1:
            raise ValueError(f"camera: want a batch [t], got batch shape {list(camera.batch_shape)}; stack or index it")
        live = self._store.near(camera).rows
        owner, nearest = _draw(live, camera)
        rendered = [_rendered(live, camera[k], owner[k], nearest[k]) for k in range(len(camera))]
        parts = ("rgb", "depth", "coverage", "confidence", "sky")
        return Guide(*(torch.stack([getattr(s, part) for s in rendered]) for part in parts), camera=camera)

    def prefetch(self, camera: Camera) -> None:
        """Start to bring back from disk, in the background, what a batch ``[t]`` of cameras will see."""
        self._store.prefetch(camera)

    def page_to(self, folder: Path) -> None:
        """Keep what does not fit in memory in ``folder`` from now on."""
        self._store.page_to(folder)

    @torch.no_grad()
    def apply(self, change: Change) -> None:
        """Do what an `Integration` says was done; afterwards this renders bit-identically to that cache.

        Raises:
            ValueError: for primitives of another kind.
        """
        _check_kind(change.rows)
        self._store.apply(change)

    def snapshot(self, first: int = 0) -> Points:
        """A copy of the points named from ``first`` on, in the order of their arrival."""
        return self._store.copy(first)

    def names(self) -> Int[Tensor, "n"]:
        """Of all that there is, in the order of arrival."""
        return self._store.names()

    def load(self, primitives: Points | Gaussians) -> None:
        """Replace the content by a snapshot; renders bit-identically afterwards."""
        _check_kind(primitives)
        self._store = self._store.emptied()
        self._store.apply(Change.from_nothing(primitives))

    def _remove_contradicted(self, observation: Observation) -> None:
        """Take away what one frame looks through."""
        camera = observation.frame.camera
        view = self._store.near(camera)
        inside = in_image(camera, view.rows.positions, ~view.rows.sky)
        gone = contradicted(view.rows, inside, observation, self._policy)
        extent_px = 2.0 * view.rows.radii[gone.index] / gone.z * camera.focal_px.amax()
        self._store.remove(view, gone.index[extent_px > self._policy.resolved_px])


def _draw(live: Points, camera: Camera) -> tuple[Int[Tensor, "t h w"], Float[Tensor, "t h w"]]:
    """Which point each pixel of each camera shows, -1 for none, and its depth."""
    height, width = camera.size
    count = len(camera)
    rows = torch.cat(
        [
            camera.camera_from_world[:, :3, :3].reshape(count, 9),
            camera.camera_from_world[:, :3, 3],
            camera.focal_px,
            camera.center_px,
        ],
        dim=-1,
    ).numpy()
    depth = np.full((count, height, width), np.inf, np.float32)
    owner = np.full((count, height, width), -1, np.int32)
    arrays = [t.numpy() for t in (live.positions, live.normals, live.radii, live.sky)]
    for_blocks(count, 1, lambda i, j: splat_discs(i, j, *arrays, rows, height, width, depth, owner))
    return torch.from_numpy(owner).long(), torch.from_numpy(depth)


def _closer(
    live: Points, owner: Int[Tensor, "h w"], rendered: RenderedView, observation: Observation, policy: IntegrationPolicy
) -> Bool[Tensor, "1 h w"]:
    """Pixels of one frame that sample what is shown more finely and know it at least as well."""
    frame = observation.frame
    hit = (owner >= 0)[None]
    part = live[owner[hit[0]]]
    extent_px = _extent_px(part, rendered.depth[hit], _cosine(part, frame.camera), frame.camera)
    supersampled, surer = torch.zeros_like(hit), torch.zeros_like(hit)
    supersampled[hit] = extent_px > policy.superseded_px
    surer[hit] = observation.confidence[hit] > part.confidence * trust.sampling_density(extent_px)
    same = same_surface(rendered.depth, frame.depth, policy.visible_tolerance)
    surface = frame.surface & ~rendered.sky_mask
    return supersampled & surer & same & surface & (rendered.generated | observation.observed)


def _cosine(part: Points, camera: Camera) -> Float[Tensor, "n"]:
    """Cosine under which each point is seen; 1 for sky and where no normal is known."""
    cosine = trust.facing(part.positions, part.normals, camera)
    return torch.where(part.sky | (part.normals == 0).all(-1), torch.ones_like(cosine), cosine)


def _extent_px(part: Points, z: Tensor, cosine: Tensor, camera: Camera) -> Float[Tensor, "n"]:
    """Size of each point; a disc is as long as its pixel's footprint on the surface: foreshortened, it is a pixel."""
    pixels = 2.0 * part.radii / z * torch.sqrt(camera.focal_px[0] * camera.focal_px[1])
    return pixels * cosine.abs().clamp(0.25, 1.0)


def _rendered(live: Points, camera: Camera, owner: Tensor, depth: Tensor) -> RenderedView:
    """Gather what each pixel ``[h w]`` shows from the point that owns it."""
    hit = owner >= 0
    part = live[owner[hit]]
    z = depth[hit]
    cosine = _cosine(part, camera)
    extent = _extent_px(part, z, cosine, camera)
    angle = trust.viewing_angle(cosine, torch.full_like(cosine, USUAL_COSINE))
    belief = part.confidence * trust.sampling_density(extent) * angle

    def image(values: Tensor) -> Tensor:
        full = torch.zeros(*owner.shape, *values.shape[1:], dtype=torch.float32)
        full[hit] = values.float()
        return full

    z_image, sky = image(z)[None], image(part.sky)[None]
    return RenderedView(
        rgb=image(part.colors).permute(2, 0, 1).contiguous(),
        depth=z_image,
        coverage=hit.float()[None],
        confidence=image(belief)[None]
        * trust.neighbors_agreement(z_image, sky, image(_off_center(part, camera, hit))[None]),
        sky=sky,
        spread=torch.zeros_like(sky),
        observed=image(part.observed)[None],
        away=image(cosine < 0)[None],
    )


def _off_center(part: Points, camera: Camera, hit: Bool[Tensor, "h w"]) -> Float[Tensor, "n"]:
    """How far from the center of its pixel, pixels, each point falls; one for each pixel that is hit."""
    pose = camera.camera_from_world
    local = part.positions @ pose[:3, :3].T + torch.where(part.sky[:, None], torch.zeros(3), pose[:3, 3])
    place = local[:, :2] / local[:, 2:] * camera.focal_px + camera.center_px
    return torch.linalg.norm(place - (torch.nonzero(hit).flip(-1) + 0.5), dim=-1)


def _points(observation: Observation, new: Bool[Tensor, "1 h w"], chunk: int) -> Points:
    """One point per new pixel of one frame."""
    frame = observation.frame
    surfels = lift_surfels(frame, new, MAX_SLOPE)  # discs are round: on a steeper slope as wide as long
    count, where = len(surfels.positions), new[0]
    longer = torch.maximum(torch.linalg.norm(surfels.along, dim=-1), torch.linalg.norm(surfels.across, dim=-1))
    return Points(
        positions=surfels.positions,
        colors=frame.rgb[:, where].T.contiguous(),
        normals=surfels.normals,
        radii=0.5 * longer,
        chunk=torch.full((count,), chunk, dtype=torch.int32),
        observed=torch.full((count,), observation.observed),
        confidence=observation.confidence[0][where],
        sky=frame.sky[0][where],
    )


def _check_kind(primitives: Points | Gaussians) -> None:
    if not isinstance(primitives, Points):
        raise ValueError(f"primitives: want Points, got {type(primitives).__name__}; use the cache that made them")


def _empty() -> Points:
    flags, one = torch.zeros(0, dtype=torch.bool), torch.zeros(0)
    three, index = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int32)
    return Points(three, three, three, one, index, flags, one, flags)
