"""A world cache of points, rendered as small discs into a z-buffer: lighter than Gaussians."""

from __future__ import annotations

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
from cache3d.rendering.confidence import facing, neighbors_agreement, sampling_density, viewing_angle
from cache3d.rendering.point_kernels import splat_discs
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.rendered_view import RenderedView, to_guide
from cache3d.rendering.visibility import in_image
from cache3d.stored_cache import StoredCache
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide, Observation
from geometry.jit import for_blocks
from geometry.primitives import Points
from geometry.surfaces import same_surface


class PointCache(StoredCache[Points]):
    """A world cache of surface points, under the same protocol and rules as `GaussianCache`; on the CPU.

    Each point is a disc of the size of the pixel that made it, tilted with the surface. The nearest disc is rendered,
    but its rim neither fattens outlines nor covers a sample that lies in the pixel itself. A closer frame adds finer
    points and removes none: of the points of one surface, a camera renders those nearest in size to its pixels, because
    of much finer points a pixel would show one of many. Gaps that no disc covers stay open, so that coverage is 0 or 1.
    Sky is rendered behind everything as if it moved with the camera.

    Args:
        resident_mib: bound on the points in memory, MiB, at least one view; the rest goes to disk.
        policy: tuned numbers of integration.
        rendering: tuned numbers of rendering.
    """

    def __init__(
        self,
        resident_mib: float | int = 2048,
        policy: IntegrationPolicy = DEFAULT_POLICY,
        rendering: RenderingPolicy = DEFAULT_RENDERING,
    ) -> None:
        super().__init__(_empty(), resident_mib)
        self._policy = policy
        self._rendering = rendering

    @torch.no_grad()
    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> Integration:  # noqa: ARG002 - the protocol
        """Integrate a chunk frame by frame; see `cache3d.integration.rules` for the rules.

        Points retire only where a frame contradicts them, and are not optimized: ``remembered`` frames change nothing.

        Raises:
            ValueError: if its parts disagree in shape, or depth is not positive where valid.
        """
        check_chunk(chunk)
        first, refined = self._store.total, 0
        for k in range(len(chunk.frames)):
            observation = chunk.observation(k)
            frame = observation.frame
            self._remove_contradicted(observation)
            with self._store.edit(frame.camera) as edit:
                points = edit.view.rows
                owner, nearest = _draw(points, frame.camera[None], self._rendering)
                rendered = _rendered(points, frame.camera, owner[0], nearest[0], self._rendering)
                edit.written = blend_generated(points, points.positions, rendered, observation, self._policy)
            refined += len(edit.written)
            new = new_pixels(rendered, observation, self._policy)
            new |= _closer(points, owner[0], rendered, observation, self._policy, self._rendering)
            self._store.append(_points(observation, new, chunk.index, self._rendering))
        return Integration(self._store.total - first, refined, len(self), first, self._store.take_change())

    @torch.no_grad()
    def render(self, camera: Camera, samples: int | None = None) -> Guide:  # noqa: ARG002 - the protocol
        """Render the cache from a batch ``[t]`` of cameras of any image size; a point is drawn once per pixel."""
        if len(camera.batch_shape) != 1:
            raise ValueError(f"camera: want a batch [t], got batch shape {list(camera.batch_shape)}; stack or index it")
        points = self._store.near(camera).rows
        owner, nearest = _draw(points, camera, self._rendering)
        views = [_rendered(points, camera[k], owner[k], nearest[k], self._rendering) for k in range(len(camera))]
        return to_guide(views, camera)

    def _remove_contradicted(self, observation: Observation) -> None:
        """Remove the points that one frame contradicts."""
        camera = observation.frame.camera
        with self._store.edit(camera) as edit:
            points = edit.view.rows
            inside = in_image(camera, points.positions, ~points.sky)
            wrong = contradicted(points, inside, observation, self._policy)
            extent_px = 2.0 * points.radii[wrong.index] / wrong.z * camera.focal_px.amax()
            # A frame that samples it more coarsely may have missed it.
            edit.removed = wrong.index[extent_px > self._policy.resolved_px]


def _draw(
    points: Points, camera: Camera, rendering: RenderingPolicy
) -> tuple[Int[Tensor, "t h w"], Float[Tensor, "t h w"]]:
    """Index of the point that each pixel of each camera shows, -1 for none, and its depth."""
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
    arrays = [t.numpy() for t in (points.positions, points.normals, points.radii, points.sky)]
    discs = rendering.discs
    # One camera a call: each thread writes images of its own.
    for_blocks(count, 1, lambda i, j: splat_discs(i, j, *arrays, rows, height, width, discs, depth, owner))
    return torch.from_numpy(owner).long(), torch.from_numpy(depth)


def _closer(
    points: Points,
    owner: Int[Tensor, "h w"],
    rendered: RenderedView,
    observation: Observation,
    policy: IntegrationPolicy,
    rendering: RenderingPolicy,
) -> Bool[Tensor, "1 h w"]:
    """Pixels of one frame that sample the rendered surface more finely and with more confidence."""
    frame = observation.frame
    hit = (owner >= 0)[None]
    shown = points[owner[hit[0]]]
    extent_px = _extent_px(shown, rendered.depth[hit], _cosine(shown, frame.camera), frame.camera)
    finer, more_confident = torch.zeros_like(hit), torch.zeros_like(hit)
    finer[hit] = extent_px > policy.superseded_px
    more_confident[hit] = observation.confidence[hit] > shown.confidence * sampling_density(extent_px, rendering)
    # Only where both show one surface is the new sample a closer look at it.
    same = same_surface(rendered.depth, frame.depth, policy.visible_tolerance)
    surface = frame.surface & ~rendered.sky_mask
    return finer & more_confident & same & surface & (rendered.generated | observation.observed)


def _cosine(points: Points, camera: Camera) -> Float[Tensor, "n"]:
    """Cosine between normal and direction to the camera; 1 for sky and where no normal is known."""
    cosine = facing(points.positions, points.normals, camera)
    return torch.where(points.sky | (points.normals == 0).all(-1), torch.ones_like(cosine), cosine)


def _extent_px(points: Points, z: Tensor, cosine: Tensor, camera: Camera) -> Float[Tensor, "n"]:
    """Size of each point, pixels. Discs are as long as their pixel's footprint: foreshortened, they are one pixel."""
    pixels = 2.0 * points.radii / z * torch.sqrt(camera.focal_px[0] * camera.focal_px[1])
    return pixels * cosine.abs().clamp(0.25, 1.0)


def _rendered(points: Points, camera: Camera, owner: Tensor, depth: Tensor, rendering: RenderingPolicy) -> RenderedView:
    """Gather the maps of one image ``[h w]`` from the point that each pixel shows."""
    hit = owner >= 0
    shown, z = points[owner[hit]], depth[hit]
    cosine = _cosine(shown, camera)
    extent_px = _extent_px(shown, z, cosine, camera)
    angle = viewing_angle(cosine, torch.full_like(cosine, rendering.first_cosine), rendering)
    confidence = shown.confidence * sampling_density(extent_px, rendering) * angle

    def image(values: Tensor) -> Tensor:
        full = torch.zeros(*owner.shape, *values.shape[1:], dtype=torch.float32)
        full[hit] = values.float()
        return full

    z_image, sky = image(z)[None], image(shown.sky)[None]
    agreement = neighbors_agreement(z_image, sky, image(_off_center(shown, camera, hit))[None], rendering)
    return RenderedView(
        rgb=image(shown.colors).permute(2, 0, 1).contiguous(),
        depth=z_image,
        coverage=hit.float()[None],
        confidence=image(confidence)[None] * agreement,
        sky=sky,
        spread=torch.zeros_like(sky),
        observed=image(shown.observed)[None],
        away=image(cosine < 0)[None],
    )


def _off_center(points: Points, camera: Camera, hit: Bool[Tensor, "h w"]) -> Float[Tensor, "n"]:
    """Distance of each point, pixels, from the center of the pixel that shows it; in the order of ``hit``."""
    pose = camera.camera_from_world
    # Sky moves with the camera.
    local = points.positions @ pose[:3, :3].T + torch.where(points.sky[:, None], torch.zeros(3), pose[:3, 3])
    place = local[:, :2] / local[:, 2:] * camera.focal_px + camera.center_px
    return torch.linalg.norm(place - (torch.nonzero(hit).flip(-1) + 0.5), dim=-1)


def _points(observation: Observation, new: Bool[Tensor, "1 h w"], chunk: int, rendering: RenderingPolicy) -> Points:
    """One point per new pixel of one frame."""
    frame = observation.frame
    # No steeper than elsewhere even where the slope is even: a disc is round, and would be as wide there as it is long.
    surfels = lift_surfels(frame, new, rendering.max_slope, max_slope=rendering.max_slope)
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


def _empty() -> Points:
    flags, one = torch.zeros(0, dtype=torch.bool), torch.zeros(0)
    three, index = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int32)
    return Points(three, three, three, one, index, flags, one, flags)
