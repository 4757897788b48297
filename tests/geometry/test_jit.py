"""Compiled kernels: cached where a cache can be written, and working where none can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from geometry import jit
from tests.helpers import REPOSITORY

PACKAGES = ("worldwarp", "geometry", "diffusion", "cache3d", "scenes", "viz")

# Runs in the read-only copy: prints one line per kernel module, then draws one Gaussian.
CODE = """
import importlib, sys
import worldwarp.api
import cache3d.rasterizer.cpu as cpu
for name in sys.argv[1:]:
    kernels = [v for v in vars(importlib.import_module(name)).values() if hasattr(v, "py_func")]
    print(name, len(kernels), {kernel.stats.cache_path for kernel in kernels})
cpu.warm_up()
print(cpu.__file__, cpu.tiles.composite.signatures)
"""


def kernel_modules() -> list[str]:
    """Every module that compiles kernels."""
    paths = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
    using = [path for path in paths if re.search(r"^(@compiled|\w+ = compiled\()", path.read_text(), re.MULTILINE)]
    return [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in using]


def test_compiled_falls_back_to_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function, options

    monkeypatch.setattr(jit.numba, "njit", refuse)
    function, options = jit.compiled(len)
    assert function is len
    assert options["nogil"]


def test_compiled_passes_its_options_on() -> None:
    @jit.compiled(fastmath=False, error_model="python")
    def divide(a, b):
        return a / b

    assert divide.targetoptions["fastmath"] is False
    with pytest.raises(ZeroDivisionError):
        divide(1.0, 0.0)


@pytest.mark.timeout(600)
def test_kernels_import_and_draw_where_no_folder_is_writable(tmp_path: Path) -> None:
    """Root ignores permission bits, so a file occupies the name of each folder that Numba could write to."""
    site, blocked = tmp_path / "site", tmp_path / "file"
    blocked.touch()
    for package in PACKAGES:
        shutil.copytree(
            REPOSITORY / package, site / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    for folder in {path.parent for path in site.rglob("*.py")}:
        (folder / "__pycache__").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_", "PYTHON"))}
    environment |= {"HOME": str(blocked / "home"), "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    modules = kernel_modules()
    assert {"cache3d.rasterizer.tile_kernels", "geometry.warping", "scenes.synthetic.shading"} <= set(modules)
    done = subprocess.run(
        [sys.executable, "-c", CODE, *modules],
        capture_output=True,
        text=True,
        timeout=500,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    *listed, drawn = done.stdout.splitlines()
    assert [line.split()[0] for line in listed] == modules
    assert all(int(line.split()[1]) > 0 and line.endswith("{None}") for line in listed), listed
    assert str(site) in drawn
    assert "Array(" in drawn
    assert "compiling the CPU rasterizer" in done.stderr


def test_tasks_run_in_order_and_kernels_inside_them_on_their_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit.torch, "get_num_threads", lambda: 2)
    both = threading.Barrier(2)  # passes only if two tasks run at the same time

    def task(item: int) -> tuple[int, set[int]]:
        both.wait(timeout=60.0)
        threads: set[int] = set()
        jit.for_blocks(8, 2, lambda _first, _last: threads.add(threading.get_ident()))
        assert threads == {threading.get_ident()}
        return item * item, threads

    results = jit.for_each(range(4), task)
    assert [value for value, _ in results] == [0, 1, 4, 9]
    assert all(threading.get_ident() not in threads for _, threads in results)
    threads: set[int] = set()
    jit.for_blocks(
        8, 2, lambda _first, _last: threads.add(threading.get_ident())
    )  # outside of tasks: on the pool again
    assert threading.get_ident() not in threads


def test_an_error_of_a_task_arrives_and_leaves_the_pool_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit.torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        jit.for_each([1, 0], lambda item: 1 // item)
    assert jit.for_each([1, 2], lambda item: item + 1) == [2, 3]
