"""Free space: nothing stands between the photo's camera and what the photo shows."""

from __future__ import annotations

import torch

from geometry.free_space import behind_photo
from geometry.project import unproject
from tests.helpers import cameras_at, textured_wall

SIZE = (96, 160)


def test_nothing_that_is_made_stands_before_what_the_photo_shows() -> None:
    photo = textured_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE), distance=2.0)
    aside = cameras_at((0.8, 0.0, 0.0), size=SIZE)
    near, far = torch.full_like(photo.depth, 1.0), torch.full_like(photo.depth, 2.0)
    depth, free = behind_photo(near, far, near < 0.0, aside, photo)
    assert free.all()
    beyond = unproject(near, aside)[0, 0] > 0.56  # the photo's view ends at .577 there
    assert (depth[0, 0][~beyond] == 2.0).float().mean() > 0.95
    assert (depth[0, 0][beyond] == 1.0).float().mean() > 0.9
    kept, lifted = behind_photo(near, near, near < 0.0, aside, photo)
    assert torch.equal(kept, near)
    assert torch.equal(lifted, depth == 1.0)
    assert behind_photo(near, far, near > 0.0, aside, photo)[0].equal(near)  # sky stands before nothing
