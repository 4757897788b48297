"""The Python interface of WorldWarp: `explore` and `World`."""

from __future__ import annotations

import atexit
import base64
import html
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from torch import Tensor
from tqdm.auto import tqdm

from cache3d.cache import WorldCache
from cache3d.photo_texture import PhotoTexture
from cache3d.world_view import WorldView
from geometry.camera import Camera
from geometry.fill import smooth_fill
from geometry.frame import Frame, Guide
from geometry.primitives import Gaussians, Points
from scenes.formats.export import ExportOptions, ExportReport, discs, export
from scenes.formats.html import PhotoLayer
from scenes.store import world_store as stored
from scenes.store.chunk_files import frame_name
from viz.recorder import Recorder
from worldwarp.arguments import user_path
from worldwarp.components import PROTOCOLS, build_cache, check_part
from worldwarp.config import compose_config, onward
from worldwarp.notebook import WorldPage
from worldwarp.prepare import prepare
from worldwarp.recording import RECORDINGS, open_viewer, open_world, record_start, record_step
from worldwarp.render import Job, Rendering
from worldwarp.render_path import cameras_along
from worldwarp.render_settings import RenderSettings, render_settings
from worldwarp.resume import resume as resume_session
from worldwarp.session import VIDEO, Session, write_world_video
from worldwarp.state import Step
from worldwarp.stored_config import current_config
from worldwarp.thinning import contribution, thinned


def explore(
    *,
    image: str | Path | None = None,
    path: str | Path | Camera | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = False,
    recorder: Recorder | None = None,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Step]:
    """Explore a photo, or continue a stored world; yields one `Step` per finished chunk.

    Every yielded chunk is stored already. After an early stop, by ``break`` or by closing the iterator, the video of
    the finished frames is written, and ``explore(resume=...)`` finishes the world to the same bits.

    Args:
        image: the photo.
        path: preset expression, camera file, or cameras ``[n]`` of frame size: the first is the photo's, or on resume
            the last finished one. None is ``out_and_back``, or on resume the stored path.
        out: folder of the world, its video and its recording; None stores nothing.
        resume: folder of a world to continue, instead of ``image`` and ``out``; accepts the settings ``frames`` and
            ``convention`` of a new path, ``device`` and ``viewer``.
        progress: whether to show a progress bar, in a terminal or a notebook.
        recorder: receives the events of the run, instead of the recorder of ``viewer``.
        overrides: further settings as on the command line, for example ``["depth=file", "depth.path=d.npy"]``.
        **settings: plain settings and group options, for example ``frames=33, size=(192, 320), cache="points"``;
            ``viewer`` is ``file`` for a stored world, else ``none``. ``depth``, ``cache`` and ``generator`` may also be
            objects, see `worldwarp.plugins`.

    Raises:
        ValueError: invalid input, before anything is written.

    Example:
        >>> for step in explore(image="photo.jpg", path="orbit", frames=17, size=(192, 320), out="worlds/mine"):
        ...     print(step.chunk.frames.rgb.shape)
        torch.Size([8, 3, 192, 320])
        torch.Size([8, 3, 192, 320])
        >>> steps = list(explore(resume="worlds/mine", path="up", frames=9))
        >>> steps
        [Step(chunk 3, frames 17 to 24, 0.8% new, 291206 primitives)]
    """
    out = None if out is None else user_path("out", out)
    resume = None if resume is None else user_path("resume", resume)
    cameras = path if isinstance(path, Camera) else None
    objects = {group: settings.pop(group) for group in PROTOCOLS if _is_object(settings.get(group))}
    for group, part in objects.items():
        check_part(group, part)
    given = {"image": image, "out": out, "resume": resume, "path": None if cameras else path}
    words = [f"{key}={value}" for key, value in given.items() if value is not None]
    words += [*(f"{key}={_as_text(value)}" for key, value in settings.items()), *overrides]
    folder = out if resume is None else resume
    if not any(word.startswith("viewer=") for word in words):
        words.append(f"viewer={'none' if folder is None else 'file'}")
    tell = tqdm.write if progress else _silent
    if resume is None:
        config = compose_config("explore", words)
        for group, part in objects.items():  # a stored world stores the class of an object
            config[group] = {"_target_": f"{type(part).__module__}.{type(part).__qualname__}"}
        session = prepare(config, cameras, out=None if out is None else Path(out), tell=tell, given=objects)
    else:
        if image is not None or out is not None:
            named = "image" if out is None else "out"
            raise ValueError(
                f"resume: the world in {resume} has its own photo and folder; leave out {named}=, "
                "or leave out resume= to start anew"
            )
        config = compose_config("explore", words)
        session = resume_session(Path(resume), config.device, onward(words, config), cameras, tell, objects)
    if recorder is None:
        recorder = open_viewer(config.viewer, None if folder is None else Path(folder))
    if config.viewer.mode not in ("none", "file"):  # a live view: print its address
        tqdm.write(f"viewer   {recorder.how_to_look}")
    if out is not None:
        session.store_in(Path(out))
    return _steps(session, recorder, progress)


def _steps(session: Session, recorder: Recorder, progress: bool) -> Iterator[Step]:
    """Explore and record; the video is written unless an error ends the session."""
    total = len(session.cameras) - session.state.frames
    try:
        record_start(recorder, session)
        with tqdm(total=total, unit="frame", smoothing=0.2, disable=not progress) as bar:
            for step in session.steps():
                record_step(recorder, step)
                bar.set_postfix_str(f"chunk {step.chunk.index}, {step.gauges['hole_ratio']:.0%} new")
                bar.update(len(step.chunk.frames))
                yield step
    except (GeneratorExit, KeyboardInterrupt):
        session.write_video()
        raise
    else:
        session.write_video()
    finally:
        recorder.close()


def _silent(_line: str) -> None:
    """Print nothing."""


def _is_object(value: object) -> bool:
    return value is not None and not isinstance(value, str)


class World:
    """A stored world: its frames, its cache, and new views of it.

    Example:
        >>> world = World.load("worlds/pagoda")
        >>> guide = world.render(Camera.from_fov(60.0, (192, 320)))
    """

    def __init__(self, record: stored.WorldStore) -> None:
        self.record = record
        self._cache: WorldCache | None = None
        self._weights: Tensor | None = None  # of the Gaussians, see `worldwarp.thinning.contribution`

    def __repr__(self) -> str:
        """Folder, frames, size, chunks and primitives in one line."""
        chunks, (height, width) = self.record.chunks, self.record.manifest.size
        primitives = chunks[-1].primitives if chunks else 0
        return (
            f"World('{self.folder}', {len(self.cameras)} of {len(self.record.path)} frames of {width}x{height} "
            f"in {len(chunks)} chunks, {primitives} primitives)"
        )

    def _repr_html_(self) -> str:
        """The video and the `repr` as HTML, for notebooks."""
        text = f"<code>{html.escape(repr(self))}</code>"
        if not self.record.chunks:
            return text
        film = self.video.read_bytes()
        shown_bytes = 16 * 2**20  # largest video that is embedded in a notebook
        if len(film) > shown_bytes:
            last = self.folder / frame_name(len(self.cameras) - 1, self.record.chunks[-1])
            picture = base64.b64encode(last.read_bytes()).decode()
            source = f"data:image/{last.suffix[1:]};base64,{picture}"
            return f'<img src="{source}"><br>{text}; its video is {self.folder / VIDEO}'
        source = f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
        return f'<video controls loop muted src="{source}"></video><br>{text}'

    @staticmethod
    def load(folder: str | Path, chunks: int | None = None) -> World:
        """Open a world.

        Args:
            folder: of the world.
            chunks: number of chunks to open, from the first; files of later ones may be damaged. None for all.

        Raises:
            ValueError: not a world, of a later version, or damaged; the message names the file.
        """
        return World(stored.WorldStore.load(folder, chunks))

    @property
    def folder(self) -> Path:
        """Folder of the world."""
        return self.record.folder

    @property
    def cameras(self) -> Camera:
        """Cameras of the finished frames, ``[n]``; camera 0 is the photo's."""
        return self.record.cameras

    @property
    def video(self) -> Path:
        """MP4 of the finished frames; rewritten if the world is newer.

        Raises:
            ValueError: the file cannot be written, or there is no frame yet.
        """
        film, manifest = self.folder / VIDEO, self.folder / stored.MANIFEST
        fresh = film.is_file() and film.stat().st_mtime_ns >= manifest.stat().st_mtime_ns
        return film if fresh else write_world_video(self.record)

    def frames(self, first: int = 0, last: int | None = None) -> Frame:
        """Finished frames ``[n]``, lossless."""
        return self.record.frames(first, last)

    @property
    def primitives(self) -> Points | Gaussians:
        """All primitives of the cache."""
        return self.record.primitives

    @property
    def cache(self) -> WorldCache:
        """The cache after the last chunk."""
        if self._cache is None:
            # On the CPU, so that a world made on a GPU opens on any machine.
            config = OmegaConf.create({**current_config(self.record.config), "device": "cpu"})
            self._cache = cache = build_cache(config)
            for change in self.record.changes():
                cache.apply(change)
            return cache
        return self._cache

    @cached_property
    def _texture(self) -> PhotoTexture:
        return PhotoTexture.of(self.record.chunk(0).frames, self.record.photo)

    def forget(
        self,
        *,
        chunks: Sequence[int] = (),
        region: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None,
    ) -> int:
        """Remove primitives from the world: those that chunks added, or those in a box; frames are kept.

        Recordings, which show the removed primitives, are deleted; `view` makes a new one.

        Args:
            chunks: indices of chunks.
            region: low and high corner of a box, world, scene units; sky is in no region.

        Returns:
            Number of removed primitives; `undo` restores them.

        Raises:
            ValueError: neither chunks nor region, or a chunk that does not exist.

        Example:
            >>> world.forget(region=((-1.0, -1.0, 0.5), (1.0, 1.0, 2.0)))
            10482
        """
        count = self.record.forget(chunks=chunks, region=None if region is None else torch.tensor(region))
        if count:
            self._changed()
        return count

    def undo(self) -> None:
        """Undo the last `forget`, or else the last chunk; continuing makes the same bits again.

        The video is rewritten. Recordings, which show the undone chunk, are deleted; `view` makes a new one.

        Raises:
            ValueError: the world has only the photo.
        """
        frames = len(self.cameras)
        self.record.undo()
        self._changed()
        if len(self.cameras) < frames and (self.folder / VIDEO).exists():
            write_world_video(self.record)

    def _changed(self) -> None:
        self._cache = self._weights = None
        for recording in self.folder.glob(RECORDINGS):
            recording.unlink()

    def explore(
        self, path: str | Path | Camera | None = None, frames: int | None = None, **settings: Any
    ) -> Iterator[Step]:
        """Finish the path, or follow a new one from the last finished frame; see `worldwarp.explore`.

        This object has the new chunks when the iterator ends.

        Example:
            >>> for step in world.explore("up", frames=9):
            ...     print(step)
            Step(chunk 3, frames 17 to 24, 0.8% new, 291206 primitives)
        """
        more = {} if frames is None else {"frames": frames}
        return self._reload_after(explore(resume=self.folder, path=path, **more, **settings))

    def complete(
        self, radius: float = 0.3, angle_deg: float = 25.0, frames: int = 481, enough: float = 0.005, **settings: Any
    ) -> Iterator[Step]:
        """Make what is unknown in views around the photo's camera; see `worldwarp complete`.

        Args:
            radius: distance of the views from the photo's camera, at most, median depths of the photo.
            angle_deg: angle of the views to the photo's direction, at most.
            frames: most frames of the path, the last finished one included.
            enough: share of such a view that may stay unknown, on average.
            **settings: as `explore` takes with ``resume``.

        Example:
            >>> for step in world.complete(radius=0.2):
            ...     print(step)
            Step(chunk 4, frames 25 to 32, 12.3% new, 305514 primitives)
        """
        given = {"radius": radius, "angle_deg": angle_deg, "enough": enough}
        words = ["auto=complete", *(f"auto.{name}={value}" for name, value in given.items())]
        return self.explore("auto", frames, overrides=words, **settings)

    def _reload_after(self, steps: Iterator[Step]) -> Iterator[Step]:
        try:
            yield from steps
        finally:
            self.record = stored.WorldStore.load(self.folder)
            self._cache = self._weights = None

    def view(self, mode: Literal["native", "web"] | None = None) -> str:
        """Open the world in Rerun; without a recording, one is made from the stored world.

        Args:
            mode: a window, or a page that is served until Python ends; None is a window if there is a display.

        Returns:
            Text with the window or the address.

        Example:
            >>> print(world.view(mode="web"))
        """
        program, where = open_world(self.folder, mode)
        if not where.startswith("the Rerun window"):
            atexit.register(program.terminate)
        return where

    def export(
        self, formats: Sequence[str] | None = None, out: str | Path | None = None, *, html_mib: float = 10.0
    ) -> list[ExportReport]:
        """Write the world for other programs.

        Args:
            formats: some of `scenes.formats.export.FORMATS`; None: as ``worldwarp export``, no extras.
            out: target folder; None is the world's ``exports`` folder.
            html_mib: largest size of ``html``, MiB; Gaussians that contribute least are left out.

        Returns:
            For each format: file or folder, size in bytes, and a note about its conventions.

        Raises:
            ValueError: an unknown format, or an empty world.

        Example:
            >>> for report in world.export(["gaussians_ply", "mp4"]):
            ...     print(report.path.name)
            gaussians.ply
            video.mp4
        """
        options = ExportOptions(html_mib, self._photo_layer, self._thinned, self._seen)
        wanted = list(compose_config("export", []).formats) if formats is None else formats
        return export(self.record, wanted, out, options)

    def show(self, *, height_px: int = 480, html_mib: float = 6.0) -> WorldPage:
        """The world to walk through in a notebook (Jupyter, Colab, VS Code): drag, pinch, scroll or W A S D.

        It is the page of ``export(["html"])``, and is stored with the notebook; no server is needed.

        Args:
            height_px: of the view.
            html_mib: largest size, MiB; Gaussians that contribute least are left out.

        Raises:
            ValueError: an empty world, or not even few Gaussians fit.

        Example:
            >>> world.show()  # as the last line of a cell, or display(world.show())
        """
        with tempfile.TemporaryDirectory() as folder:
            report = self.export(["html"], folder, html_mib=html_mib)[0]
            return WorldPage(report.path.read_text("utf-8"), repr(self), height_px)

    def _seen(self, cameras: Camera) -> Frame:
        guide = self.rendered.render(cameras)
        solid = 0.9  # coverage below which a pixel is too dark
        rgb = smooth_fill(guide.rgb, guide.coverage >= solid)
        return Frame(rgb, guide.depth, guide.covered, guide.sky_mask & guide.covered, cameras)

    def _photo_layer(self) -> PhotoLayer:
        texture = self._texture
        inverse, ground, sky = (mask[0] for mask in texture.masks)
        policy = texture.policy
        return PhotoLayer(texture.full_res, inverse, ground > 0.5, sky > 0.5, policy.same_depth, policy.pure_sky)

    def _thinned(self, count: int) -> Gaussians:
        primitives = self.primitives
        gaussians = primitives if isinstance(primitives, Gaussians) else discs(primitives)
        if self._weights is None or len(self._weights) != len(gaussians):
            views = 8
            index = torch.linspace(0, len(self.cameras) - 1, min(views, len(self.cameras))).round().long()
            self._weights = contribution(gaussians, self.cameras[index])
        return thinned(gaussians, self._weights, count, self.cameras[0])

    def branch(self, folder: str | Path, chunk: int) -> World:
        """A new world with the chunks of this one up to and including ``chunk``.

        Raises:
            ValueError: a chunk that does not exist, or a folder that is not empty.
        """
        return World(self.record.branch(folder, chunk))

    def render(self, camera: Camera) -> Guide:
        """Render the world for cameras ``[t]``, or for one camera without a batch axis (then ``t`` is 1).

        Surfaces that the photo saw get the photo's own colors; ``world.cache.render`` renders the cache alone.
        """
        camera = camera.to(torch.float32)  # cameras of files are float64
        batched = (
            camera
            if camera.batch_shape
            else Camera(camera.world_from_camera[None], camera.focal_px[None], camera.center_px[None], camera.size)
        )
        return self.rendered.render(batched)

    @property
    def rendered(self) -> WorldView:
        """The cache with the photo's own pixels laid over it, as frames show them."""
        return WorldView(self.cache, self._texture)

    def cameras_along(self, path: str | Path | None = None, **settings: Any) -> Camera:
        """Cameras ``[n]`` of a path through the world, for `render`; arguments as of `render_path`."""
        return cameras_along(self.record, self._render_settings(path, None, settings))

    def render_path(
        self,
        path: str | Path | None = None,
        out: str | Path | None = None,
        *,
        progress: bool = False,
        **settings: Any,
    ) -> Rendering:
        """Render the world along any path, at any size, to files; nothing is generated.

        After an interruption, the same call goes on where it was.

        Args:
            path: preset expression or camera file; None is the path that was walked.
            out: folder, or a file ``.mp4``, ``.webm`` or ``.gif``; None: in ``renders`` in the world's folder.
            progress: whether to show a progress bar, in a terminal or a notebook.
            **settings: as of ``worldwarp render``, e.g. ``size=(720, 1280), fps=30, formats=["png", "depth_exr"]``.

        Raises:
            ValueError: an invalid setting, before anything is written; or too little memory or disk.

        Example:
            >>> world.render_path("orbit", "orbit.mp4", size=(720, 1280), fps=30).files
            (PosixPath('orbit.mp4'),)
        """
        job = Job.of(self.record, lambda: self.rendered, self._render_settings(path, out, settings))
        with tqdm(total=len(job.cameras), unit="frame", disable=not progress) as bar:
            return job.run(lambda count, _unknown: bar.update(count - bar.n))

    @staticmethod
    def _render_settings(path: str | Path | None, out: str | Path | None, settings: dict[str, Any]) -> RenderSettings:
        given = {key: value for key, value in {"path": path, "out": out, **settings}.items() if value is not None}
        return render_settings(compose_config("render", [f"{key}={_as_text(value)}" for key, value in given.items()]))


def _as_text(value: object) -> str:
    return (
        "null" if value is None else f"[{','.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)
    )
