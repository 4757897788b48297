"""Open a finished world and render it from a camera that the path never took.

python look_again.py WORLD PICTURE.png
"""

import sys

import torch
from PIL import Image

from worldwarp import Camera, World

if len(sys.argv) != 3:
    sys.exit(__doc__)
world = World.load(sys.argv[1])
pose = torch.eye(4)
pose[:3, 3] = torch.tensor([0.15, -0.1, 0.2])  # right, up, forward; 1 = the photo's median depth
guide = world.render(Camera.from_fov(60.0, (192, 320), pose[None]))
pixels = (guide.rgb[0].permute(1, 2, 0) * 255).round().byte().numpy()
Image.fromarray(pixels).save(sys.argv[2])
print(f"{guide.coverage.mean():.1%} of the view is known")
