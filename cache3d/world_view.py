"""The world as a camera sees it: the cache, and the photo's own pixels where the cache shows what the photo saw."""

from __future__ import annotations

from dataclasses import dataclass

from cache3d.cache import Integration, ShowingCache, WorldCache
from cache3d.photo_texture import PhotoTexture
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide


@dataclass(frozen=True)
class WorldView:
    """A cache and the photo texture that is laid over what it renders.

    Attributes:
        cache: the geometry of the world, with a color per primitive.
        texture: the photo as a projective texture, at its stored resolution.
    """

    cache: WorldCache
    texture: PhotoTexture

    def render(self, cameras: Camera, samples: int | None = None) -> Guide:
        """Render the world for cameras ``[t]``, with ``samples`` per pixel and axis; None: as the cache is set."""
        # A cache of another package may have no such setting.
        return self.texture.apply(self.cache.render(cameras, **({} if samples is None else {"samples": samples})))

    def show(self, cameras: Camera, samples: int | None = None) -> Guide:
        """`render` for eyes alone: the same colors, depth, coverage and sky, the confidence may be anything."""
        if not isinstance(self.cache, ShowingCache):
            return self.render(cameras, samples)
        return self.texture.apply(self.cache.show(cameras, samples))

    def prefetch(self, cameras: Camera | None) -> None:
        """Start to load the blocks that cameras ``[t]`` will see; nothing when None."""
        if cameras is not None:
            self.cache.prefetch(cameras)

    def integrate(self, chunk: Chunk, reference: Frame | None = None) -> Integration:
        """Put a finished chunk into the cache.

        Args:
            chunk: frames of any one size.
            reference: earlier frames ``[k]`` that the optimization must keep to, the photo first.
        """
        return self.cache.integrate(chunk, reference)
