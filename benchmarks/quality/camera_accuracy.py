"""Do the frames show what their cameras should see? `python -m benchmarks.quality.camera_accuracy DATA [clips]`.

Long held-out clips are walked to and fro for 200 frames, in the Gaussian cache with the packaged generator, from a
first frame whose true depth is given. The poses are then estimated again from the pictures: SIFT features of every
fourth frame are matched with those of the photo and of the last frames that were located, whose depth puts them into
the world, and the camera follows by perspective-n-point with RANSAC. Nothing of the cameras asked for enters but the
photo's and the intrinsics.

Figures at frames 50 and 200, as the field reports them: R = arccos((tr(R_est R^T) - 1) / 2) in rad; T = distance of
the positions, relative to the photo, over the farthest true position. The floor is the same estimate on the true
frames with their true depth. A frame with too few matches counts as lost: it keeps the last pose.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.data.walks import interval, long_clips, to_and_fro, walk
from cache3d.gaussian_cache import GaussianCache
from diffusion.retouch.generator import RetouchGenerator
from geometry.camera import Camera
from geometry.frame import Frame

AT = (52, 200)  # keyframes are every fourth: frame 50 is judged at 52
EVERY = 4
KEPT = 3  # located keyframes that are matched, besides the photo
SCALE = 2  # frames are small: features are looked for in an enlarged picture
RATIO = 0.8  # Lowe's ratio test
REPROJECTION_PX = 1.5
FEWEST = 12


@dataclass(frozen=True)
class Landmarks:
    """Features of a located frame: descriptors ``[n 128]`` and world points ``[n 3]``."""

    descriptors: np.ndarray
    points_world: np.ndarray


def estimate_path(frames: Frame) -> tuple[np.ndarray, int]:
    """World-from-camera poses ``[t 4 4]`` of all frames, the first of which is known; and how many were lost.

    Args:
        frames: pictures with depth; of their cameras only the first pose and the intrinsics are read.
    """
    pose = frames.camera.world_from_camera[0].double().numpy()
    poses, lost = [pose], 0
    photo = _landmarks(frames[[0]], *_features(frames[[0]]), pose)
    recent: list[Landmarks] = []
    for k in range(1, len(frames)):
        frame = frames[[k]]
        pixels, descriptors = _features(frame)
        found = _locate(frame.camera, pixels, descriptors, [photo, *recent])
        lost += found is None
        pose = poses[-1] if found is None else found
        poses.append(pose)
        recent = [*recent, _landmarks(frame, pixels, descriptors, pose)][-KEPT:]
    return np.stack(poses), lost


def errors(poses: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (rad) and normalized translation error of each pose ``[t 4 4]``."""
    truth = camera.world_from_camera.double().numpy()
    turn = np.einsum("tij,tij->t", poses[:, :3, :3], truth[:, :3, :3])  # trace of R_est R^T
    reach = np.linalg.norm(truth[:, :3, 3] - truth[0, :3, 3], axis=-1).max()
    apart = np.linalg.norm(poses[:, :3, 3] - truth[:, :3, 3], axis=-1)
    return np.arccos(np.clip((turn - 1.0) / 2.0, -1.0, 1.0)), apart / max(reach, 1e-6)


def _features(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``[n 2]`` (centers at +0.5) and descriptors ``[n 128]`` of one frame."""
    gray = (frame.rgb[0].mean(0) * 255.0).round().to(torch.uint8).numpy()
    large = cv2.resize(gray, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
    found, descriptors = cv2.SIFT_create(contrastThreshold=0.01).detectAndCompute(large, None)  # pyright: ignore (no stubs)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return (np.array([point.pt for point in found]) + 0.5) / SCALE, descriptors


def _landmarks(frame: Frame, pixels: np.ndarray, descriptors: np.ndarray, pose: np.ndarray) -> Landmarks:
    """Put features into the world with the frame's own depth; those of the sky and of unknown depth are left out."""
    height, width = frame.camera.size
    column = pixels[:, 0].astype(int).clip(0, width - 1)
    row = pixels[:, 1].astype(int).clip(0, height - 1)
    usable = (frame.valid & ~frame.sky)[0, 0].numpy()[row, column]
    depth = frame.depth[0, 0].double().numpy()[row, column]
    ray = (pixels - frame.camera.center_px[0].numpy()) / frame.camera.focal_px[0].numpy()
    local = np.concatenate([ray, np.ones_like(ray[:, :1])], 1) * depth[:, None]
    return Landmarks(descriptors[usable], (local @ pose[:3, :3].T + pose[:3, 3])[usable])


def _locate(camera: Camera, pixels: np.ndarray, descriptors: np.ndarray, known: list[Landmarks]) -> np.ndarray | None:
    """World-from-camera pose from features and located ones; None with too few matches."""
    points, seen = [], []
    for landmarks in known:
        if min(len(descriptors), len(landmarks.descriptors)) < 2:
            continue
        pairs = cv2.BFMatcher().knnMatch(descriptors, landmarks.descriptors, k=2)
        good = [first for first, second in pairs if first.distance < RATIO * second.distance]
        points += [landmarks.points_world[match.trainIdx] for match in good]
        seen += [pixels[match.queryIdx] for match in good]
    if len(points) < FEWEST:
        return None
    cv2.setRNGSeed(0)
    matrix = camera.intrinsics[0].double().numpy()
    world, image = np.stack(points), np.stack(seen)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        world, image, matrix, None, iterationsCount=2000, reprojectionError=REPROJECTION_PX, flags=cv2.SOLVEPNP_EPNP
    )
    if not found or inliers is None or len(inliers) < FEWEST:
        return None
    inside = np.asarray(inliers)[:, 0].astype(int)
    turn, shift = cv2.solvePnPRefineLM(world[inside], image[inside], matrix, None, turn, shift)
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(turn)[0].T
    pose[:3, 3] = -pose[:3, :3] @ shift[:, 0]
    return pose


def main() -> None:
    """Print the table in Markdown, end with one JSON line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.quality.camera_accuracy DATA [clips]")
    clips = long_clips(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6)
    generator = RetouchGenerator()
    path = to_and_fro(AT[-1] + 1)
    rows: dict[str, list[list[float]]] = {"floor (true frames)": [], "generated": []}
    lost = dict.fromkeys(rows, 0)
    for clip in tqdm(clips.values(), unit="clip"):
        truth = clip[path]
        made = walk(clip, truth.camera[1:], generator, GaussianCache()).frames
        for name, frames in zip(rows, (truth, Frame.concatenate([clip[[0]], made])), strict=True):
            poses, missed = estimate_path(frames[::EVERY])
            turn, shift = errors(poses, truth.camera[::EVERY])
            lost[name] += missed
            rows[name].append([float(e[at // EVERY]) for at in AT for e in (turn, shift)])
    columns = [f"{what} at {at}" for at in AT for what in ("R", "T")]
    table = {
        name: dict(zip(columns, [interval(column) for column in torch.tensor(part).T], strict=True))
        for name, part in rows.items()
    }
    print("| frames | " + " | ".join(columns) + " | lost |\n|" + "---|" * (len(columns) + 2))
    for name, row in table.items():
        shown = " | ".join(f"{row[c][0]:.4f} ± {row[c][1]:.4f}" for c in columns)
        print(f"| {name} | {shown} | {lost[name]} of {len(clips) * (len(path) // EVERY)} |")
    print(json.dumps({"benchmark": "camera_accuracy", "clips": len(clips), "rows": table, "lost": lost}))


if __name__ == "__main__":
    main()
