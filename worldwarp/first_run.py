"""Compiles the kernels of a walk in a second process, while the first run reads the photo and estimates its depth.

Numba compiles on one thread of a process. Both processes share its cache on disk: what one has compiled, the other
loads. Later runs find everything there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path


def kernels_beside(tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """Until the context ends, compile kernels in a second process; nothing where they are compiled, or on one core.

    Args:
        tell: gets a line that says that kernels are compiled.
    """
    if _is_compiled():
        return nullcontext()
    tell("first run: kernels are compiled, about half a minute; later runs find them in the cache")
    return _second_process() if (os.cpu_count() or 1) > 1 else nullcontext()


def _is_compiled() -> bool:
    """Whether the last kernel of a walk is in the cache, or there can be no cache."""
    from diffusion.inpainting.patchmatch import improve

    folder = improve.stats.cache_path
    return folder is None or any(Path(folder).glob("patchmatch.improve-*.nbi"))


@contextmanager
def _second_process() -> Iterator[None]:
    program = subprocess.Popen(
        [sys.executable, "-m", "worldwarp.first_run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        program.terminate()
        program.wait()


def walk_a_toy() -> None:
    """Walk once, tiny, beside the photo: that calls every kernel but those of the packaged depth, which come first."""
    import numpy as np
    import torch

    from worldwarp.api import explore

    torch.set_num_threads(1)  # the first process needs the other cores
    photo = Path(__file__).parent / "photos" / "pagoda.jpg"
    depth = np.full((64, 96), 3.0, np.float32)
    depth[16:, 32:64] = 1.0  # a pillar, so that something behind it is uncovered
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "depth.npy"
        np.save(file, depth)
        given = ["depth=file", f"depth.path={file}"]
        for _ in explore(
            image=photo, path="left:distance=0.3", frames=5, size=(64, 96), out=f"{folder}/toy", overrides=given
        ):
            pass


if __name__ == "__main__":
    walk_a_toy()
