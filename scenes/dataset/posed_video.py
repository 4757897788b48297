"""Training clips from real video whose cameras are known: estimated depth, and camera positions in its unit.

The depth of the first frame of a clip sets the unit. Camera positions are brought to it by one factor
(`geometry.depth.pose_scale`), the depth of each further frame by a line in inverse depth. A clip of which no factor
explains the pictures clearly better than a camera that only turns is left out: its camera stands, or its poses or its
depth are wrong.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from geometry.camera import Camera
from geometry.camera_io.read_write import rebased, scaled
from geometry.depth import DepthEstimator, DepthMap, align_depth, lift_depth
from geometry.depth.pose_scale import PoseScale, find_pose_scale
from geometry.frame import Frame
from geometry.warping import forward_warp
from scenes.dataset.clips import write_clip, write_manifest
from scenes.dataset.posed_frames import open_posed_frames
from scenes.io.png import to_bytes

# Share of the color differences of a turning camera that the found positions must remove. Rendered clips with depth of
# the packaged network, 24 to choose it and 24 afterwards: 21 and 23 are over it; with shuffled poses 0 and 1 of 48.
LEAST_GAIN = 0.35
HELD_OUT = 10  # one video in so many is held out, by its name


@dataclass(frozen=True)
class Imported:
    """What `import_video` did.

    Attributes:
        name: of the video, as clips are named by it.
        split: ``train`` or ``heldout``.
        written: number of clips.
        kept: clips that were there before.
        left_out: clips whose cameras do not explain their pictures.
    """

    name: str
    split: str
    written: int
    kept: int
    left_out: int


def import_video(
    images: Path,
    cameras: Path,
    out: Path,
    depth: DepthEstimator,
    *,
    name: str | None = None,
    size: tuple[int, int] = (96, 160),
    frames: int = 17,
    every: int = 1,
    apart: int | None = None,
    convention: str | None = None,
    fov_deg: float | None = None,
    license: str = "not stated",
) -> Imported:
    """Cut a video into clips and write those that ``out`` does not hold yet.

    Args:
        images: folder of its frames.
        cameras: file or folder of its cameras.
        out: folder of the clips and ``manifest.json``; created when missing, shared by many videos.
        depth: estimates the depth of frames.
        name: of the video; it decides the split. None: the names of the folder and of the one that holds it.
        size: ``(H, W)`` of the clips.
        frames: of a clip.
        every: step of a clip in frames of the video: 3 takes every third.
        apart: frames of the video between the starts of two clips; None: clips do not overlap.
        convention: as in `read_cameras`.
        fov_deg: as in `open_posed_frames`.
        license: of the video.

    Raises:
        ValueError: frames and cameras that do not match or are fewer than a clip has, or a frame that cannot be read.
    """
    video = open_posed_frames(images, cameras, size=size, convention=convention, fov_deg=fov_deg)
    span = (frames - 1) * every + 1
    if len(video.files) < span:
        raise ValueError(
            f"frames: want a video of {span} frames or more for clips of {frames} (every={every}), got "
            f"{len(video.files)} frames with cameras in '{images}'; give smaller frames= or every="
        )
    name = "-".join(images.resolve().parts[-2:]) if name is None else name
    name = re.sub(r"[^\w.-]+", "-", name)
    split = split_of(name)
    out.mkdir(parents=True, exist_ok=True)
    written = kept = left_out = 0
    starts = range(0, len(video.files) - span + 1, apart or frames * every)
    for start in tqdm(starts, desc=name, unit="clip", mininterval=5.0):
        path = out / f"clip_{name}_{start:05d}.safetensors"
        if path.exists():
            kept += 1
            continue
        rows = list(range(start, start + span, every))
        found = pose_clip(video.read(rows), rebased(video.cameras[rows]), depth)
        if found is None:
            left_out += 1
            continue
        clip, scale = found
        fields = {"index": start, "source": "video", "scene": name, "split": split, "move": "filmed", "frames": frames}
        unit = "meter" if clip.metric else "median depth of the first frame"
        more = {"seed": 0, "license": license, "unit": unit, "pose_scale": scale.factor, "gain": round(scale.gain, 3)}
        write_clip(path, _arrays(clip), fields | more)
        written += 1
        manifest_every = 8
        # Training may read the folder while it is filled.
        if written % manifest_every == 0:
            write_manifest(out)
    write_manifest(out)
    return Imported(name, split, written, kept, left_out)


def split_of(name: str) -> str:
    """The split of a video, ``train`` or ``heldout``: the same for its name on every machine."""
    return "train" if int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % HELD_OUT else "heldout"


def pose_clip(rgb: Float[Tensor, "t 3 h w"], camera: Camera, depth: DepthEstimator) -> tuple[Frame, PoseScale] | None:
    """Frames with depth, and cameras in its unit.

    Args:
        rgb: colors in 0..1.
        camera: cameras ``[t]`` relative to the first, their positions up to a factor.
        depth: estimates the depth.

    Returns:
        The frames, all pixels valid, and the factor; None if the cameras do not explain the pictures.
    """
    made = depth.estimate(rgb[:1], camera.focal_px[:1])
    first = lift_depth(rgb[:1], made, camera[:1])
    scale = find_pose_scale(first, rgb[1:], camera[1:])
    if scale is None or scale.gain < LEAST_GAIN:
        return None
    camera = scaled(camera, scale.factor)
    made = depth.estimate(rgb[1:], camera.focal_px[1:])
    frames = [_filled(first)]
    for k in range(1, len(rgb)):
        one = DepthMap(made.depth[k - 1 : k], made.valid[k - 1 : k], made.sky[k - 1 : k], made.metric)
        lifted = lift_depth(rgb[k : k + 1], one, camera[k : k + 1])
        known = Frame.concatenate([frames[0], frames[-1]][:k])
        _, reference, hit = forward_warp(replace(known, valid=known.surface), lifted.camera, known.depth)
        aligned = align_depth(lifted.depth, lifted.surface, reference, hit.float())
        if not aligned.count:
            return None
        frames.append(_filled(replace(lifted, depth=aligned.depth)))
    return Frame.concatenate(frames), scale


def _filled(frame: Frame) -> Frame:
    """A frame ``[1]`` whose invalid pixels, of unknown depth or between two surfaces, take the nearest valid depth."""
    valid = frame.valid[0, 0].numpy()
    rows, columns = np.asarray(ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True))
    depth, sky = (values[..., rows, columns] for values in (frame.depth, frame.sky))
    return replace(frame, depth=depth, sky=sky, valid=torch.ones_like(frame.valid))


def _arrays(clip: Frame) -> dict[str, np.ndarray]:
    """The arrays of a clip's file, as `scenes.dataset.clips` describes them."""
    inverse = torch.where(clip.sky, 0.0, 1.0 / clip.depth)
    arrays = {
        "rgb": to_bytes(clip.rgb),
        "inverse_depth": inverse.half(),
        "world_from_camera": clip.camera.world_from_camera,
        "focal_px": clip.camera.focal_px,
        "center_px": clip.camera.center_px,
    }
    return {name: np.ascontiguousarray(array.numpy()) for name, array in arrays.items()}
