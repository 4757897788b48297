"""A session: a world that is being explored, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from cache3d.gaussian_cache import REFINE_STEPS
from diffusion.generator import TakesPrompts
from geometry.camera import Camera
from geometry.camera_io.read_write import continued, rebased, scaled
from geometry.frame import Chunk, Frame
from geometry.primitives import Change
from scenes.io.video import write_video
from scenes.photos.photo import Photo
from scenes.store.world_store import WorldStore
from worldwarp.arguments import BY_ITSELF, LIVE, STUDIO, user_path
from worldwarp.autopilot import AutopilotPolicy, Leg, next_leg, planned_frames
from worldwarp.components import autopilot_of, keep_prompts
from worldwarp.config import Settings
from worldwarp.keyboard import MOVES, move
from worldwarp.loop import explore
from worldwarp.plan import Plan, collisions, predicted_holes, time_generator, time_render
from worldwarp.planned_path import smaller_scale, unit_of
from worldwarp.state import Components, ExploreState, Step, photo_chunk
from worldwarp.surroundings import Surroundings

VIDEO = "video.mp4"


@dataclass
class Session:
    """A world that is being explored.

    Attributes:
        settings: the checked plain settings.
        config: the composed configuration, groups included.
        components: the parts of the loop.
        photo: the photo at frame size with its depth, ``[1]``.
        cameras: the whole path ``[n]``; camera 0 is the photo's.
        state: after the last finished chunk.
        world: the store; None while nothing is stored.
        picture: the photo as it was read; None for a resumed world.
        from_file: whether the path is in the unit of a camera file.
        path_scale: factor on the positions of the path.
        notes: lines for the plan about changes to the photo and the path.
        autopilot: how ``path=auto`` chooses its views; None for any other path.
        unknown: unknown share of the surroundings before the last leg that ``path=auto`` chose; None before the first.
    """

    settings: Settings
    config: DictConfig
    components: Components
    photo: Frame
    cameras: Camera
    state: ExploreState
    world: WorldStore | None = None
    picture: Photo | None = None
    from_file: bool = False
    path_scale: float = 1.0
    notes: tuple[str, ...] = ()
    autopilot: AutopilotPolicy | None = None
    unknown: float | None = None

    @property
    def chunk(self) -> int:
        """Frames of a chunk: the configured number, else as the generator works, or few where a user waits for them."""
        if self.settings.path in (LIVE, STUDIO) and self.components.per_view:
            live_frames = 4  # of a chunk with path=keys: half of the wait after a key
            return self.settings.chunk or live_frames
        if self.autopilot is not None and self.autopilot.chunk is not None:
            return self.autopilot.chunk
        return self.settings.chunk or self.components.generator.cadence.frames

    @property
    def remaining(self) -> list[Camera]:
        """Cameras of the unfinished part of the path, by chunk."""
        size, total = self.chunk, len(self.cameras)
        return [self.cameras[i : min(i + size, total)] for i in range(self.state.frames, total, size)]

    def steps(self, chunks: Iterable[Camera] | None = None) -> Iterator[Step]:
        """Explore the `remaining` path or ``chunks``; every chunk is stored before it is yielded."""
        if chunks is None:
            chunks = self.remaining if self.autopilot is None else self._chosen()
        for step in explore(self.state, chunks, self.components):
            if self.world is not None:
                self._store(step.chunk, step.integration.change, step.gauges, carried=step.carried)
            yield step

    def go_on_by_itself(self, auto: Mapping[str, Any], frames: int) -> None:
        """Go on by ``path=auto`` from the last finished frame; the rest of the planned path is dropped.

        Args:
            auto: settings of `AutopilotPolicy` and its ``_target_``.
            frames: most frames to add.

        Raises:
            ConfigError: invalid settings.
        """
        self.config.update({"path": BY_ITSELF, "auto": auto, "frames": frames + 1, "convention": None})
        self.autopilot = autopilot_of(self.config)
        self.settings = replace(self.settings, path=BY_ITSELF, frames=frames + 1, convention=None)
        done = self.state.frames
        config: Any = OmegaConf.to_container(self.config)
        self._plan(self.cameras[[*range(done), *frames * [done - 1]]], config)

    def surroundings(self, radius: float, angle_deg: float) -> Surroundings:
        """The views around the photo's camera, up to ``radius`` median depths from it."""
        unit = unit_of(self.photo)
        return Surroundings(self.photo, radius * unit, angle_deg, AutopilotPolicy().clearance * unit)

    def _chosen(self) -> Iterator[Camera]:
        """The chunks of ``path=auto``: each leg is chosen when the one before it is in the world."""
        while self.remaining:
            if self.state.frames >= planned_frames(self.cameras):
                leg = self.next_leg()
                done = self.cameras[: self.state.frames]
                if leg is None:
                    self._plan(done)
                    return
                self.unknown = leg.unknown
                # The rest of the budget repeats the last camera, so that the length of the path stays what it is.
                rest = [len(leg.cameras) - 1] * (len(self.cameras) - len(done) - len(leg.cameras))
                self._plan(Camera.concatenate([done, leg.cameras, leg.cameras[rest]]))
            first, planned = self.state.frames, planned_frames(self.cameras)
            yield self.cameras[first : min(first + self.chunk, planned)]

    def next_leg(self) -> Leg | None:
        """The leg that ``path=auto`` chooses from the last finished frame."""
        assert self.autopilot is not None
        return next_leg(
            self.state.view,
            self.photo,
            self.cameras[: self.state.frames],
            self.autopilot,
            unit=unit_of(self.photo),
            chunk=self.chunk,
            left=len(self.cameras) - self.state.frames,
        )

    def _plan(self, cameras: Camera, config: dict[str, Any] | None = None) -> None:
        """Replace the planned path, also of the stored world, and its configuration if there is another."""
        self.cameras = cameras
        if self.world is not None:
            self.world.redirect(cameras, config or self.world.config)

    def go(self, cameras: Camera) -> Step:
        """Make one chunk along a move from the last finished frame; the rest of the planned path is dropped.

        Args:
            cameras: of the move, without its first camera, ``[t]``; lengths in the photo's median depths.
        """
        done = self.cameras[: self.state.frames]
        relative = scaled(rebased(Camera.concatenate([done[-1:], cameras])), unit_of(self.photo))
        self._plan(continued(done, relative))
        (step,) = self.steps([self.cameras[len(done) :]])
        return step

    def redirect(self, cameras: Camera) -> None:
        """Plan another way from the last finished frame on, in short chunks as with ``path=keys``; stored.

        Args:
            cameras: of the way, in the world, scene units, ``[t]``; may be empty.
        """
        onward = {"path": STUDIO, "frames": None, "convention": None, "path_scale": None}
        self.settings = replace(self.settings, **onward)
        self.config.update(onward)
        self.autopilot = None
        config: Any = OmegaConf.to_container(self.config)
        self._plan(Camera.concatenate([self.cameras[: self.state.frames], cameras]), config)

    @property
    def takes_prompts(self) -> bool:
        """Whether text describes the frames to the generator."""
        return isinstance(self.components.generator, TakesPrompts)

    def prompt(self, text: str) -> None:
        """Describe the chunks that come by another text; stored with the world.

        Raises:
            ValueError: a text that the generator cannot take.
        """
        generator = self.components.generator
        if not isinstance(generator, TakesPrompts):
            raise ValueError("prompt: this generator takes no text; leave prompt= out, or set generator=wan")
        changed = generator.prompted(text, self.state.chunks)
        self.components = replace(self.components, generator=changed)
        keep_prompts(self.config, changed)
        config: Any = OmegaConf.to_container(self.config)
        self._plan(self.cameras, config)

    def store_in(self, folder: Path) -> None:
        """Start a world in ``folder`` with the photo as its chunk 0.

        Raises:
            WorldError: the folder is not empty, or cannot be written.
        """
        folder = user_path("out", folder)
        config: Any = OmegaConf.to_container(self.config)  # `device` may differ on resume
        metric, seed = self.photo.metric, self.settings.seed
        self.world = WorldStore.create(folder, path=self.cameras, seed=seed, config=config, metric=metric)
        self.state.view.cache.page_to(folder)
        change = Change.from_nothing(self.state.view.cache.snapshot())
        self._store(photo_chunk(self.photo), change, {}, self.state.view.texture.full_res)

    def plan(self) -> Plan:
        """Check the path and time rendering and generator; does not change the state."""
        chunks, seconds = self.remaining, 0.0
        if self.autopilot is not None:
            leg = self.next_leg()
            chunks = (
                [] if leg is None else [leg.cameras[k : k + self.chunk] for k in range(0, len(leg.cameras), self.chunk)]
            )
        holes = predicted_holes(self.state.view.cache, chunks)
        timed = chunks[0] if chunks else None
        if self.settings.path == LIVE:
            timed = move(next(iter(MOVES)), self.cameras[self.state.frames - 1], self.chunk)
        if timed is not None:
            seconds = self._chunk_seconds(timed, holes)
        names = {group: self.config[group]["_target_"].rpartition(".")[2] for group in ("depth", "cache", "generator")}
        return Plan(
            frames=len(self.cameras) - self.state.frames,
            chunks=len(self.remaining),
            size=self.settings.size,
            fov_deg=float(self.cameras.fov_deg[0, 0]),
            backends=names | {"noise": self.components.noise.kind, "device": self.settings.device},
            seconds_per_chunk=seconds,
            hole_ratio=holes,
            collisions=collisions(self.photo, self.cameras),
            remedy=smaller_scale(self.photo, self.cameras, self.state.frames, self.path_scale)
            if self.from_file
            else "a smaller distance",
            notes=self.notes,
            photo=self.picture,
        )

    def _chunk_seconds(self, cameras: Camera, holes: list[float]) -> float:
        """Mean seconds per chunk, from timing one rendering and the generator on cameras ``[t]``.

        Args:
            cameras: of one chunk.
            holes: per chunk, the share of its last view that is not covered.
        """
        parts, count = self.components, len(cameras)
        render_s = time_render(self.state.view, cameras[-1:], parts.samples)
        copies = parts.prior.fill == "copy"
        if not parts.per_view:
            denoise_s = time_generator(parts.generator, count, self.settings.size)
            # In renderings: 1 for the guide, about 2 for integration, 0.25 per refinement step. Copying into holes
            # takes about as long as one step of the packaged generator.
            steps = self.config.cache.get("refine_steps")
            renders = count * (3.0 + 0.25 * (REFINE_STEPS if steps is None else steps))
            return renders * render_s + (1.0 + copies) * denoise_s
        height, width = self.settings.size
        denoise_s = time_generator(parts.generator, 1, (height // parts.scale, width // parts.scale))
        # Of a chunk with holes about two views are completed.
        completed = 2.0 * sum(share > parts.prior.min_share for share in holes) / max(len(holes), 1)
        return (count + 5.0 * completed) * render_s + completed * (1.0 + 3.0 * copies) * denoise_s

    def write_video(self) -> None:
        """Write ``video.mp4`` of all finished frames into the world's folder."""
        if self.world is not None:
            write_world_video(self.world)

    def _store(
        self,
        chunk: Chunk,
        change: Change,
        gauges: dict[str, float],
        photo: Float[Tensor, "3 h w"] | None = None,
        carried: Mapping[str, Tensor] | None = None,
    ) -> None:
        assert self.world is not None
        self.world.append(
            chunk,
            change=change,
            rng_state=self.state.rng.get_state(),
            gauges=gauges,
            photo=photo,
            carried=carried,
        )


def write_world_video(world: WorldStore) -> Path:
    """Write ``video.mp4`` of all finished frames into the world's folder, replacing an earlier one."""
    path = world.folder / VIDEO
    write_video(path, (rgb for chunk in range(len(world.chunks)) for rgb in world.chunk(chunk).frames.rgb), world.fps)
    return path
