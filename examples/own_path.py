"""Fly along a spline through three keyframes of your own, and keep the path as a nerfstudio camera file.

python own_path.py PHOTO OUT
"""

import sys

import torch

from worldwarp import CameraSpline, Keyframe, explore, write_cameras

if len(sys.argv) != 3:
    sys.exit(__doc__)
photo, out = sys.argv[1:]


def at(right: float, down: float, forward: float) -> torch.Tensor:
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([right, down, forward])  # 1 = the photo's median depth
    return pose


size = (96, 160)
keys = [
    Keyframe(0.0, at(0, 0, 0), fov_deg=60.0),
    Keyframe(1.0, at(0.1, 0, 0.1), fov_deg=55.0),
    Keyframe(3.0, at(0.2, -0.05, 0), fov_deg=65.0),
]
cameras = CameraSpline(keys, size).sample(9)
for step in explore(image=photo, path=cameras, size=size, out=out):
    print(f"frames {step.first_frame} to {step.first_frame + len(step.chunk.frames) - 1} done")
write_cameras(f"{out}/path.json", cameras, "nerfstudio")
