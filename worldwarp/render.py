"""Renders a finished world along any path: from the cache and the photo's own pixels, nothing is generated.

Frames wait on disk until the last one is there, so that an interrupted rendering goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache3d.world_view import WorldView
from geometry.camera import Camera
from geometry.camera_io.read_write import write_cameras
from geometry.trajectory.path_text import begins_with_preset
from scenes.io.atomic_files import disk_errors, replacing, write_bytes
from scenes.io.exr import load_openexr, write_depth_exr
from scenes.io.png import from_bytes, read_rgb_or_rgba, to_bytes, write_depth_png, write_rgb_png, write_rgb_webp
from scenes.io.video import write_gif, write_video, write_webm
from scenes.store.world_store import WorldStore
from worldwarp.config import ConfigError
from worldwarp.needs import MIB, available_memory_mib, free_disk_mib, in_gib
from worldwarp.plan import bars, collisions
from worldwarp.render_path import cameras_along
from worldwarp.render_settings import PICTURES, VIDEOS, RenderSettings
from worldwarp.renderer import Picture, Renderer, samples_for

REPORT, CAMERAS = "render.json", "cameras.json"
WAITING = ".partial"  # ends the name of the folder in which frames wait
UNKNOWN = "unknown.txt"  # in it: share of unknown pixels, a line per finished frame
WAITING_MIB = 2048.0  # of frames on disk up to which they wait uncompressed
WRITERS = {"mp4": write_video, "webm": write_webm, "gif": write_gif}


@dataclass(frozen=True)
class Rendering:
    """A finished rendering.

    Attributes:
        files: what was written, files and folders of numbered files.
        frames: number of frames.
        size: of a frame, ``(H, W)``.
        unknown: of each frame, the share of pixels that no frame of the world saw.
        seconds: that rendering and encoding took, of the frames made in this run.
    """

    files: tuple[Path, ...]
    frames: int
    size: tuple[int, int]
    unknown: tuple[float, ...]
    seconds: float

    def lines(self) -> list[str]:
        """The rendering as a few lines of text."""
        height, width = self.size
        mean, worst = sum(self.unknown) / len(self.unknown), max(self.unknown)
        return [
            *(f"wrote    {file}  {_bytes(file) / MIB:.1f} MiB" for file in self.files if file.suffix != ".json"),
            f"frames   {self.frames} of {width}x{height} in {self.seconds:.0f} s; unknown to the world "
            f"{mean:.2%} of their pixels, {worst:.1%} of the worst (frame {self.unknown.index(worst)})",
        ]


@dataclass(frozen=True)
class RenderPlan:
    """What a rendering needs, before its first frame.

    Attributes:
        frames: number of frames.
        size: of a frame, ``(H, W)``.
        fps: frames per second.
        fov_deg: horizontal field of view of the first frame; 360 for a sphere.
        done: frames that wait on disk from an interrupted run.
        seconds: estimate for the others, from timing one.
        disk_mib: estimate of what waits on disk at most.
        unknown: share of pixels that no frame saw, in some frames spread along the path.
        collisions: frames whose camera lies behind a surface of the photo.
        folder: where frames wait.
    """

    frames: int
    size: tuple[int, int]
    fps: float
    fov_deg: float
    done: int
    seconds: float
    disk_mib: float
    unknown: tuple[float, ...]
    collisions: tuple[int, ...]
    folder: Path

    def lines(self) -> list[str]:
        """The plan as a few lines of text."""
        height, width = self.size
        worst = max(self.unknown)
        known = f", {self.done} of them are there" if self.done else ""
        lines = [
            f"plan     {self.frames} frames of {width}x{height}{known}, {self.fov_deg:.0f}° wide, {self.fps:g} per "
            f"second ({self.frames / self.fps:.1f} s), in about {self.seconds:.0f} s; disk {in_gib(self.disk_mib)}",
            f"path     unknown along it: [{bars(self.unknown)}] at most {worst:.0%} of the view",
        ]
        if worst > 0.3:
            lines.append(
                "warning  much of some views was never seen: it is filled smoothly, not generated "
                "(`worldwarp explore` along such a path makes it)"
            )
        if self.collisions:
            first, last = self.collisions[0], self.collisions[-1]
            lines.append(
                f"warning  the camera passes through what the photo shows, frames {first} to {last}; "
                "try a smaller distance or another direction"
            )
        return lines


@dataclass(frozen=True)
class Job:
    """A rendering that is planned, or half done.

    Attributes:
        world: the world.
        view: its cache and photo.
        settings: what is wanted.
        cameras: of the path, ``[n]``.
        target: the file or folder that will hold the result.
    """

    world: WorldStore
    view: WorldView
    settings: RenderSettings
    cameras: Camera
    target: Path

    @staticmethod
    def of(world: WorldStore, view: Callable[[], WorldView], settings: RenderSettings) -> Job:
        """A rendering of a world; everything is checked, and nothing is written.

        Args:
            world: the world.
            view: called once what is cheap to check is found right.
            settings: what is wanted.

        Raises:
            ValueError: an invalid path or setting, or a target that holds something else.
            ImportError: OpenEXR is wanted and not installed.
        """
        if "depth_exr" in settings.formats:
            load_openexr()
        cameras = cameras_along(world, settings)
        target = _target(world, settings, cameras)
        if settings.to_file:
            if target.is_dir():
                raise ConfigError(f"out: {target} is a folder; choose another name for the file")
        elif target.exists() and not (target / REPORT).is_file() and (target.is_file() or any(target.iterdir())):
            raise ConfigError(f"out: {target} is not empty, and no earlier rendering; choose another")
        return Job(world, view(), settings, cameras, target)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.settings.fps or self.world.fps

    @property
    def waiting(self) -> Path:
        """The folder in which frames wait for the last one."""
        return self.target.with_name(self.target.name + WAITING)

    @property
    def size(self) -> tuple[int, int]:
        """Size of a whole frame, ``(H, W)``."""
        height, width = self.cameras.size
        return (height, 2 * width) if self.settings.view == "stereo" else (height, width)

    def plan(self) -> RenderPlan:
        """Look along the path, and time one frame.

        Raises:
            ConfigError: too little memory or disk.
        """
        self._check_memory()
        count, shown = len(self.cameras), min(len(self.cameras), 12)
        height, width = self.cameras.size
        smaller = max(1, round(math.sqrt(height * width / 40_000)))  # enough pixels to count what is unknown
        quick = Renderer(self.world, self.view, replace(self.settings, samples=1, alpha="none"))
        index = torch.linspace(0, count - 1, shown).round().long()
        looked = self.cameras[index]
        if self.settings.view == "360":
            quick = Renderer(self.world, self.view, replace(self.settings, samples=1, alpha="none", size=512))
        else:
            looked = looked.resized((max(height // smaller, 2), max(width // smaller, 2)))
        unknown = tuple(picture.unknown for picture in quick.pictures(looked))
        seconds = self._seconds_per_frame()
        done = self._done()
        disk = self._disk_mib(count - len(done))
        free = free_disk_mib(self.target.parent)
        if disk > free:
            raise ConfigError(
                f"disk in {self.target.parent}: want about {in_gib(disk)} free for {count} frames of "
                f"{self.size[1]}x{self.size[0]}, got {in_gib(free)}; set a smaller size= or fewer frames="
            )
        behind = collisions(self.world.chunk(0).frames, self.cameras)
        fov_deg = 360.0 if self.settings.view == "360" else float(self.cameras.fov_deg[0, 0])
        waits = seconds * (count - len(done))
        return RenderPlan(
            count, self.size, self.fps, fov_deg, len(done), waits, disk, unknown, tuple(behind), self.waiting
        )

    def run(self, each: Callable[[int, float], object] = lambda _k, _unknown: None) -> Rendering:
        """Render what is not there yet, and write the files.

        Args:
            each: called after each frame with the number of finished frames and the share of unknown pixels.

        Raises:
            WorldError: the disk is full or cannot be written; frames that are finished are kept.
        """
        begun = time.monotonic()
        with disk_errors(f"cannot write {self.waiting}", "; the frames that are finished are kept"):
            unknown = self._start()
            renderer = Renderer(self.world, self.view, self.settings)
            left = [k for k in range(len(self.cameras)) if k not in unknown]
            pictures = renderer.pictures(self.cameras[left])
            for count, k in enumerate(left, start=len(unknown) + 1):
                picture = next(pictures)
                self._store(k, picture)
                unknown[k] = picture.unknown
                with (self.waiting / UNKNOWN).open("a") as file:
                    file.write(f"{k} {picture.unknown:.6f}\n")
                each(count, picture.unknown)
            shares = tuple(unknown[k] for k in range(len(self.cameras)))
            files = self._finish(shares)
        return Rendering(files, len(self.cameras), self.size, shares, time.monotonic() - begun)

    def _check_memory(self) -> None:
        height, width = self.size
        # Floats per sample of a raster and per pixel of its maps, and copies of the primitives that are in view.
        samples = self.settings.samples or samples_for(self.world, self.cameras.size) or 1
        wanted = 600.0 + (len(self.view.cache) * 400.0 + height * width * (160.0 * samples**2 + 200.0)) / MIB
        there = available_memory_mib()
        if wanted > 1.2 * there:
            raise ConfigError(
                f"memory: want about {in_gib(wanted)} for frames of {width}x{height}, got {in_gib(there)}; "
                "set a smaller size="
            )

    def _seconds_per_frame(self) -> float:
        """Seconds of one frame from the middle of the path, with what it takes to write it."""
        renderer = Renderer(self.world, self.view, self.settings)
        middle = self.cameras[len(self.cameras) // 2 :][:1]
        list(renderer.pictures(middle))  # compiles kernels and builds tables
        begun = time.perf_counter()
        list(renderer.pictures(middle))
        pixels = self.size[0] * self.size[1]
        per_pixel = {"mp4": 4e-8, "webm": 2e-7, "gif": 2e-7, "png": 8e-8, "depth_exr": 8e-8, "depth_png": 5e-8}
        encoding = sum(per_pixel[name] for name in self.settings.formats)
        return time.perf_counter() - begun + encoding * pixels

    def _disk_mib(self, frames: int) -> float:
        per_pixel = {"mp4": 0.15, "webm": 0.1, "gif": 0.8, "png": 1.6, "depth_exr": 3.5, "depth_png": 1.5}
        frames_waiting = {".npy": 3.0, ".webp": 1.4}.get(self._folders.get("frames", ""), 0.0)
        bytes_per_pixel = frames_waiting + sum(per_pixel[name] for name in self.settings.formats)
        return frames * self.size[0] * self.size[1] * bytes_per_pixel / MIB

    @property
    def _key(self) -> str:
        """What frames that wait on disk must have been made from to be used."""
        manifest, settings = self.world.manifest, self.settings
        made_of = {name: mark for record in manifest.chunks for name, mark in record.files.items()}
        poses = (self.cameras.world_from_camera, self.cameras.focal_px, self.cameras.center_px)
        bits = hashlib.sha256(b"".join(part.float().contiguous().numpy().tobytes() for part in poses)).hexdigest()
        looks = (settings.view, settings.eye_distance, settings.unknown, settings.alpha, settings.samples)
        text = json.dumps([made_of, bits, self.size, looks, sorted(self._folders)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def _folders(self) -> dict[str, str]:
        """Folder of each kind of numbered files in `waiting`, with their suffix."""
        folders = {
            name: ".exr" if name == "depth_exr" else ".png" for name in self.settings.formats if name in PICTURES
        }
        if "png" not in folders and set(self.settings.formats) & set(VIDEOS):
            raw = 3.0 * self.size[0] * self.size[1] * len(self.cameras) / MIB
            # Compressing takes a sixth of the time of a frame.
            folders["frames"] = ".npy" if raw < WAITING_MIB else ".webp"
        return folders

    def _file(self, folder: str, k: int) -> Path:
        return self.waiting / folder / f"{k:05d}{self._folders[folder]}"

    def _done(self) -> dict[int, float]:
        """Frames that wait on disk, with their share of unknown pixels."""
        try:
            if json.loads((self.waiting / REPORT).read_text("utf-8")).get("key") != self._key:
                return {}
            lines = (self.waiting / UNKNOWN).read_text("ascii").splitlines()
        except (OSError, ValueError):
            return {}
        found: dict[int, float] = {}
        for line in lines:
            with contextlib.suppress(ValueError):  # a line that was cut off by the end of the program
                index, share = line.split(" ")
                if all(self._file(folder, int(index)).is_file() for folder in self._folders):
                    found[int(index)] = float(share)
        return found

    def _start(self) -> dict[int, float]:
        """Make the folder in which frames wait; returns those that are there."""
        done = self._done()
        if not done:
            if self.waiting.exists():
                if not (self.waiting / REPORT).is_file() and any(self.waiting.iterdir()):
                    raise ConfigError(f"out: {self.waiting} is in the way; remove it, or choose another out=")
                shutil.rmtree(self.waiting)
            for folder in self._folders:
                (self.waiting / folder).mkdir(parents=True)
            write_bytes(self.waiting / REPORT, json.dumps({"key": self._key}).encode())
        return done

    def _store(self, k: int, picture: Picture) -> None:
        for folder in self._folders:
            with replacing(self._file(folder, k)) as partial:
                if folder == "frames" and self._folders[folder] == ".npy":
                    with partial.open("wb") as file:
                        np.save(file, to_bytes(picture.rgb).numpy(force=True))
                elif folder == "frames":
                    write_rgb_webp(partial, picture.rgb)
                elif folder == "png":
                    write_rgb_png(partial, picture.rgb)
                elif folder == "depth_png":
                    write_depth_png(partial, picture.depth, picture.known & ~picture.sky)
                else:
                    write_depth_exr(partial, picture.depth, picture.known, picture.sky)

    def _pictures(self) -> Iterator[Tensor]:
        source = "frames" if "frames" in self._folders else "png"
        for k in range(len(self.cameras)):
            file = self._file(source, k)
            raw = file.suffix == ".npy"
            yield from_bytes(torch.from_numpy(np.load(file))) if raw else read_rgb_or_rgba(file)

    def _finish(self, unknown: tuple[float, ...]) -> tuple[Path, ...]:
        """Encode the videos, and put everything in its place."""
        for name in self.settings.formats:
            if name in WRITERS:
                WRITERS[name](self.waiting / f"video.{name}", self._pictures(), self.fps)
        if self.settings.to_file:
            os.replace(self.waiting / f"video.{self.settings.formats[0]}", self.target)
            shutil.rmtree(self.waiting)
            return (self.target,)
        if pinhole := self.settings.view != "360":
            names = [f"png/{k:05d}.png" for k in range(len(self.cameras))] if "png" in self.settings.formats else None
            write_cameras(self.waiting / CAMERAS, self.cameras, "nerfstudio", file_paths=names)
        write_bytes(self.waiting / REPORT, json.dumps(self._report(unknown), indent=1).encode())
        (self.waiting / UNKNOWN).unlink()
        if "frames" in self._folders:
            shutil.rmtree(self.waiting / "frames")
        if self.target.exists():
            shutil.rmtree(self.target)
        os.replace(self.waiting, self.target)
        names = [f"video.{name}" if name in VIDEOS else name for name in self.settings.formats]
        return tuple(self.target / name for name in (*names, *([CAMERAS] if pinhole else []), REPORT))

    def _report(self, unknown: tuple[float, ...]) -> dict[str, Any]:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(self.settings).items()}
        return {
            "world": str(self.world.folder),
            "settings": settings,
            "size": list(self.size),
            "fps": self.fps,
            "unknown": unknown,
            "axes": "OpenCV: x right, y down, z forward",
            "world_from_camera": self.cameras.world_from_camera.tolist(),
        }


def _target(world: WorldStore, settings: RenderSettings, cameras: Camera) -> Path:
    """The file or folder of the result; by default named after path, view and size."""
    if settings.out is not None:
        return settings.out
    text = "walked" if settings.path is None else settings.path
    stem = Path(text).stem if settings.path is not None and not begins_with_preset(text) else text
    name = "".join(character if character.isalnum() or character in "._-" else "_" for character in stem)
    height, width = cameras.size
    view = "" if settings.view == "mono" else f"-{settings.view}"
    return world.folder / "renders" / f"{name[:80]}{view}-{width}x{height}"


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    return sum(file.stat().st_size for file in files)
