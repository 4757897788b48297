"""The faults of a plain warp-and-inpaint walk, and the same walks by this program: `python -m benchmarks.quality.faults
OUT`.

The bundled photograph, three paths, frames 0, 12, 24 and 36. Upper row of each path: points at depths whose edges are
as soft as a network draws them, warped to the end of each chunk, holes closed by Telea inpainting of color and depth
and added as points (this project's first experiment). What one sees there: foreground that grows tails where it
uncovers something, combs where soft depth edges tear, blocks where one comes closer, streaks where one strip is filled
from the last. Lower row: `worldwarp explore` with its defaults, seed 0.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from benchmarks.quality.contact_sheet import tile
from benchmarks.quality.generator_quality import inpainted
from diffusion.rgbd_state import decode, encode
from geometry.camera import Camera
from geometry.depth.embedded import EmbeddedDepth
from geometry.frame import Frame
from geometry.warping import forward_warp
from scenes.photos.photo import read_photo
from worldwarp import explore

PHOTO = Path(__file__).parents[2] / "worldwarp" / "photos" / "pagoda.jpg"
PATHS = ("right:distance=0.25", "back:distance=0.4", "forward:distance=0.45")
FRAMES, SHOWN, CHUNK = 37, (0, 12, 24, 36), 4
SOFT_PX = 5


def plain_walk(photo: Tensor, cameras: Camera) -> list[Tensor]:
    """Frames ``[3 h w]`` along cameras ``[n]``, the photo's first, by warping and inpainting."""
    made = EmbeddedDepth().estimate(photo[None], cameras.focal_px[:1])
    soft = 1.0 / avg_pool2d(1.0 / made.depth, SOFT_PX, stride=1, padding=SOFT_PX // 2, count_include_pad=False)
    world = Frame(photo[None], soft, made.valid, torch.zeros_like(made.sky), cameras[:1], metric=False)
    frames = [photo]
    for start in range(1, len(cameras), CHUNK):
        chunk = cameras[start : start + CHUNK]
        rgb, depth, hit = forward_warp(world, chunk[-1:], world.rgb)
        state = encode(rgb, torch.where(hit, depth, 1.0), 1.0)
        rgb, depth, _ = decode(inpainted(state, ~hit), 1.0)
        filled = Frame(rgb, depth, ~hit, torch.zeros_like(hit), chunk[-1:], metric=False)
        world = Frame.concatenate([world, filled])
        frames += list(forward_warp(world, chunk, world.rgb)[0])
    return frames


def own_walk(path: str) -> tuple[list[Tensor], Camera]:
    """Frames and cameras of this program's walk."""
    chunks = [step.chunk.frames for step in explore(image=PHOTO, path=path, frames=FRAMES, viewer="none")]
    cameras = Frame.concatenate(chunks).camera
    first = replace(cameras[:1], world_from_camera=torch.eye(4)[None])
    photo = read_photo(PHOTO, cameras.size).rgb
    return [photo, *torch.cat([frames.rgb for frames in chunks])], Camera.concatenate([first, cameras])


def main() -> None:
    """Write the sheet."""
    if len(sys.argv) != 2:
        sys.exit(str(__doc__).split("\n\n")[0])
    rows = []
    for path in tqdm(PATHS, unit="path"):
        ours, cameras = own_walk(path)
        plain = plain_walk(ours[0], cameras)
        rows += [np.concatenate([np.asarray(tile(walk[i])) for i in SHOWN], axis=1) for walk in (plain, ours)]
    Image.fromarray(np.concatenate(rows)).save(sys.argv[1], quality=80)
    print(f"{sys.argv[1]}: {', '.join(PATHS)}; warped and inpainted above, this program below")


if __name__ == "__main__":
    main()
