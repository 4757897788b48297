"""gsplat's own CUDA kernels on the host, without a GPU: oracle of the rasterizer's tests, baseline of its speed.

The installed wheel ships the sources. The ``__global__`` functions are cut out of them and compiled by g++ behind a
shim that makes every CUDA thread a block of its own: barriers and warp reductions become nothing, shared memory holds
one entry, and a kernel becomes a function that a loop (OpenMP) calls. Nothing of gsplat is kept in this repository.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache3d.rasterizer.types import Splats
from geometry.camera import Camera

Array = NDArray[Any]
TILE = 16

_SOURCES = {
    "ProjectionEWA3DGSFused.cu": ("projection_ewa_3dgs_fused_fwd_kernel", "projection_ewa_3dgs_fused_bwd_kernel"),
    "IntersectTile.cu": ("intersect_tile_kernel",),
    "RasterizeToPixels3DGSFwd.cu": ("rasterize_to_pixels_3dgs_fwd_kernel",),
    "RasterizeToPixels3DGSBwd.cu": ("rasterize_to_pixels_3dgs_bwd_kernel",),
}

# One CUDA thread at a time: the whole grid is walked by the loops of _ENTRY, which set these.
_SHIM = r"""
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>
struct dim { uint32_t x, y, z; };
struct uint2 { uint32_t x, y; };
inline thread_local dim g_block, g_thread;
inline thread_local uint32_t g_rank;
#define __global__ static
#define __device__
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) { return a < b ? a : b; }
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) { return a > b ? a : b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
inline float rsqrtf(float x) { return rsqrt(x); }
inline uint32_t saturated(float x) { return x <= 0.0f ? 0u : (uint32_t)x; }  // a GPU's conversion; undefined on x86
inline int __syncthreads_count(bool done) { return done; }
inline void gpuAtomicAdd(float *to, float value) {
    #pragma omp atomic
    *to += value;
}
namespace cooperative_groups {
struct grid { uint32_t thread_rank() const { return g_rank; } };
struct block {
    dim group_index() const { return g_block; }
    dim thread_index() const { return g_thread; }
    uint32_t size() const { return 1; }
    uint32_t thread_rank() const { return 0; }
    bool any(bool x) const { return x; }
    void sync() const {}
};
template <uint32_t> using thread_block_tile = block;
template <class> struct plus {};
template <class> struct greater {};
inline grid this_grid() { return {}; }
inline block this_thread_block() { return {}; }
template <uint32_t> block tiled_partition(block b) { return b; }
template <class L> block labeled_partition(block b, L) { return b; }
template <class W, class V, class Op> V reduce(W, V value, Op) { return value; }
}
"""

_ENTRY = r"""
#include <vector>
using namespace gsplat;
struct View { uint32_t n, width, height; float eps2d; const float *viewmat, *K; };

extern "C" void project(View v, const float *means, const float *quats, const float *scales, const float *opacities,
                        int32_t *radii, float *means2d, float *depths, float *conics) {
    #pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < v.n; ++i) {
        g_rank = i;
        projection_ewa_3dgs_fused_fwd_kernel<float>(1, 1, v.n, means, nullptr, quats, scales, opacities, v.viewmat, v.K,
            v.width, v.height, v.eps2d, 0.01f, 1e10f, 0.0f, PINHOLE, radii, means2d, depths, conics, nullptr);
    }
}

static void intersect(View v, uint32_t tile, const int32_t *radii, const float *means2d, const float *depths,
                      const int64_t *sums, int32_t *counts, int64_t *keys, int32_t *ids) {
    uint32_t across = (v.width + tile - 1) / tile, down = (v.height + tile - 1) / tile;
    uint32_t bits = (uint32_t)floor(log2(across * down)) + 1;
    #pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < v.n; ++i) {
        g_rank = i;
        intersect_tile_kernel<float>(false, 1, v.n, 0, nullptr, nullptr, means2d, radii, depths, sums, tile, across,
                                     down, bits, 1, counts, keys, ids);
    }
}

// Returns the number of intersections; what it leaves in offsets and ids is sorted by tile and depth, stably.
extern "C" int64_t count(View v, uint32_t tile, const int32_t *radii, const float *means2d, const float *depths,
                         int64_t *sums) {
    std::vector<int32_t> counts(v.n);
    intersect(v, tile, radii, means2d, depths, nullptr, counts.data(), nullptr, nullptr);
    int64_t total = 0;
    for (uint32_t i = 0; i < v.n; ++i) sums[i] = total += counts[i];
    return total;
}

extern "C" void lists(View v, uint32_t tile, const int32_t *radii, const float *means2d, const float *depths,
                      const int64_t *sums, int64_t total, int32_t *offsets, int32_t *ids) {
    uint32_t tiles = ((v.width + tile - 1) / tile) * ((v.height + tile - 1) / tile);
    std::vector<int64_t> keys(total), other_keys(total);
    std::vector<int32_t> other_ids(total);
    intersect(v, tile, radii, means2d, depths, sums, nullptr, keys.data(), ids);
    int32_t *from = ids, *to = other_ids.data();
    for (int shift = 0; shift < 64 && (shift < 32 || (tiles >> (shift - 32))); shift += 8) {
        int64_t place[257] = {0};
        for (auto key : keys) ++place[((key >> shift) & 255) + 1];
        for (int d = 0; d < 256; ++d) place[d + 1] += place[d];
        for (int64_t k = 0; k < total; ++k) {
            int64_t at = place[(keys[k] >> shift) & 255]++;
            other_keys[at] = keys[k], to[at] = from[k];
        }
        keys.swap(other_keys);
        std::swap(from, to);
    }
    if (from != ids) std::copy(from, from + total, ids);
    int64_t k = 0;
    for (uint32_t t = 0; t < tiles; ++t) {
        while (k < total && (keys[k] >> 32) < t) ++k;
        offsets[t] = (int32_t)k;
    }
}

template <class F> static void each_pixel(View v, uint32_t tile, F body) {
    int32_t across = (v.width + tile - 1) / tile, down = (v.height + tile - 1) / tile;
    #pragma omp parallel for schedule(dynamic, 4)
    for (int32_t t = 0; t < across * down; ++t)
        for (uint32_t y = 0; y < tile; ++y)
            for (uint32_t x = 0; x < tile; ++x) {
                g_block = {0, uint32_t(t / across), uint32_t(t % across)};
                g_thread = {x, y, 0};
                body(across, down);
            }
}

extern "C" void draw(View v, uint32_t tile, int64_t total, const float *means2d, const float *conics,
                     const float *colors, const float *opacities, const int32_t *offsets, const int32_t *ids,
                     float *image, float *alpha, int32_t *last) {
    each_pixel(v, tile, [&](uint32_t across, uint32_t down) {
        rasterize_to_pixels_3dgs_fwd_kernel<CHANNELS, float>(1, v.n, total, false, (const vec2 *)means2d,
            (const vec3 *)conics, colors, opacities, nullptr, nullptr, v.width, v.height, tile, across, down, offsets,
            ids, image, alpha, last);
    });
}

extern "C" void draw_backward(View v, uint32_t tile, int64_t total, const float *means2d, const float *conics,
                              const float *colors, const float *opacities, const int32_t *offsets, const int32_t *ids,
                              const float *alpha, const int32_t *last, const float *v_image, const float *v_alpha,
                              float *v_means2d, float *v_conics, float *v_colors, float *v_opacities) {
    each_pixel(v, tile, [&](uint32_t across, uint32_t down) {
        rasterize_to_pixels_3dgs_bwd_kernel<CHANNELS, float>(1, v.n, total, false, (const vec2 *)means2d,
            (const vec3 *)conics, colors, opacities, nullptr, nullptr, v.width, v.height, tile, across, down, offsets,
            ids, alpha, last, v_image, v_alpha, nullptr, (vec2 *)v_means2d, (vec3 *)v_conics, v_colors, v_opacities);
    });
}

extern "C" void project_backward(View v, const float *means, const float *quats, const float *scales,
                                 const int32_t *radii, const float *conics, const float *v_means2d,
                                 const float *v_depths, const float *v_conics, float *v_means, float *v_quats,
                                 float *v_scales, float *v_viewmat) {
    #pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < v.n; ++i) {
        g_rank = i;
        projection_ewa_3dgs_fused_bwd_kernel<float>(1, 1, v.n, means, nullptr, quats, scales, v.viewmat, v.K, v.width,
            v.height, v.eps2d, PINHOLE, radii, conics, nullptr, v_means2d, v_depths, v_conics, nullptr, v_means,
            nullptr, v_quats, v_scales, v_viewmat);
    }
}

#include <omp.h>
extern "C" void threads(int32_t count) { omp_set_num_threads(count); }
"""


class _View(ctypes.Structure):
    _fields_ = (
        ("n", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("eps2d", ctypes.c_float),
        ("viewmat", ctypes.c_void_p),
        ("K", ctypes.c_void_p),
    )


def why_not() -> str | None:
    """What is missing here, or ``None`` if the kernels can be built."""
    if shutil.which("g++") is None:
        return "needs g++"
    if importlib.util.find_spec("gsplat") is None or importlib.metadata.version("gsplat") != "1.5.3":
        return "needs gsplat 1.5.3 (its sources only)"
    return None


def _kernel(text: str, name: str) -> str:
    """One ``__global__`` function, with its template line, cut out of a source file."""
    at = text.index(f"__global__ void {name}(")
    start = text.rindex("template", 0, at)
    at, depth = text.index("{", text.index(") {", at)), 0
    for end in range(at, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start : end + 1]
    raise ValueError(f"{name}: want a kernel with balanced braces; the oracle knows gsplat 1.5.3 only")


@cache
def _library(channels: int) -> Any:
    """Compile (1 to 3 seconds, kept in the temporary folder) for a number of channels."""
    spec = importlib.util.find_spec("gsplat")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("gsplat: not installed; `pip install gsplat==1.5.3`")
    cuda = Path(spec.submodule_search_locations[0]) / "cuda"
    kernels = [_kernel((cuda / "csrc" / file).read_text(), name) for file, names in _SOURCES.items() for name in names]
    body = "\n".join(kernels).replace("extern __shared__ int s[];", "int s[7 + CDIM_MAX];")
    body = re.sub(r"\(uint32_t\)(floor|ceil)\(tile", r"saturated(\1)(tile", body)
    body = re.sub(r"saturated\((\w+)\)\(([^()]*)\)", r"saturated(\1(\2))", body)
    source = (
        '#include "cooperative_groups.h"\n#include <algorithm>\n#include "Common.h"\n#include "Utils.cuh"\n'
        f"#define CHANNELS {channels}\n#define CDIM_MAX {channels}\nnamespace gsplat {{\n"
        f"namespace cg = cooperative_groups;\n{body}\n}}\n{_ENTRY}"
    )
    flags = ["-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-w"]
    digest = hashlib.sha256("".join([source, _SHIM, platform.processor(), *flags]).encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else 0
    library = Path(tempfile.gettempdir()) / f"worldwarp-gsplat-host-{user}" / f"{digest}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory() as folder:
            shim = Path(folder) / "shim"
            (shim / "cooperative_groups").mkdir(parents=True)
            (shim / "cooperative_groups.h").write_text(_SHIM)
            (shim / "cooperative_groups" / "reduce.h").write_text("#pragma once\n")
            (shim / "host.cpp").write_text(source)
            includes = [shim, cuda / "include", cuda / "csrc" / "third_party" / "glm"]
            made = Path(folder) / "host.so"
            subprocess.run(
                ["g++", *flags, *(f"-I{path}" for path in includes), str(shim / "host.cpp"), "-o", str(made)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            shutil.move(made, library)
    loaded = ctypes.CDLL(str(library))
    loaded.count.restype = ctypes.c_int64
    return loaded


def _arguments(*given: Any) -> list[Any]:
    return [ctypes.c_void_p(g.ctypes.data) if isinstance(g, np.ndarray) else g for g in given]


@dataclass
class HostDrawing:
    """A picture by gsplat's kernels and all on the way to it; ``image [h w c+1]`` is values, then depth times alpha."""

    radii: Array
    means2d: Array
    depths: Array
    conics: Array
    offsets: Array
    ids: Array
    image: Array
    alpha: Array
    last: Array


class GsplatHost:
    """gsplat's kernels for one set of Gaussians and one camera (no batch axis).

    Args:
        splats: the Gaussians.
        camera: one camera.
        threads: OpenMP threads.
        eps2d: as for `rasterize`.
    """

    def __init__(self, splats: Splats, camera: Camera, threads: int = 1, eps2d: float = 0.3) -> None:
        self._parts = [
            np.ascontiguousarray(t.detach().float().numpy())
            for t in (splats.means, splats.quats, splats.scales, splats.opacities)
        ]
        self._values = splats.values.detach().float().numpy()
        self._viewmat = np.ascontiguousarray(camera.camera_from_world.float().numpy())
        self._k = np.ascontiguousarray(camera.intrinsics.float().numpy())
        self.height, self.width = camera.size
        self._view = _View(
            len(splats), self.width, self.height, eps2d, self._viewmat.ctypes.data, self._k.ctypes.data
        )  # fmt: skip
        self._lib = _library(self._values.shape[1] + 1)
        self._lib.threads(threads)

    def draw(self) -> HostDrawing:
        """Project, intersect, sort and composite."""
        n, lib, view = self._view.n, self._lib, self._view
        radii, means2d = np.zeros((n, 2), np.int32), np.zeros((n, 2), np.float32)
        depths, conics = np.zeros(n, np.float32), np.zeros((n, 3), np.float32)
        lib.project(view, *_arguments(*self._parts, radii, means2d, depths, conics))
        colors = np.concatenate([self._values, depths[:, None]], axis=1)
        sums = np.zeros(n, np.int64)
        total = lib.count(view, TILE, *_arguments(radii, means2d, depths, sums))
        tiles = (-(-self.height // TILE), -(-self.width // TILE))
        offsets, ids = np.zeros(tiles, np.int32), np.zeros(total, np.int32)
        total = ctypes.c_int64(total)
        lib.lists(view, TILE, *_arguments(radii, means2d, depths, sums, total, offsets, ids))
        image = np.zeros((self.height, self.width, colors.shape[1]), np.float32)
        alpha, last = np.zeros((self.height, self.width), np.float32), np.zeros((self.height, self.width), np.int32)
        seen = _arguments(means2d, conics, colors, self._parts[3], offsets, ids)
        lib.draw(view, TILE, total, *seen, *_arguments(image, alpha, last))
        return HostDrawing(radii, means2d, depths, conics, offsets, ids, image, alpha, last)

    def pull_back(self, drawn: HostDrawing, v_image: Array, v_alpha: Array) -> dict[str, torch.Tensor]:
        """Gradients of means, quats, scales, opacities, values and of ``camera_from_world`` (`pose`)."""
        means, quats, scales, opacities = self._parts
        colors = np.concatenate([self._values, drawn.depths[:, None]], axis=1)
        v_means2d, v_conics = np.zeros_like(drawn.means2d), np.zeros_like(drawn.conics)
        v_colors, v_opacities = np.zeros_like(colors), np.zeros_like(opacities)
        self._lib.draw_backward(
            self._view, TILE, ctypes.c_int64(len(drawn.ids)),
            *_arguments(
                drawn.means2d, drawn.conics, colors, opacities, drawn.offsets, drawn.ids, drawn.alpha, drawn.last,
                v_image, v_alpha, v_means2d, v_conics, v_colors, v_opacities,
            ),
        )  # fmt: skip
        v_depths = np.ascontiguousarray(v_colors[:, -1])
        grads = [np.zeros_like(part) for part in (means, quats, scales, self._viewmat)]
        self._lib.project_backward(
            self._view,
            *_arguments(means, quats, scales, drawn.radii, drawn.conics, v_means2d, v_depths, v_conics, *grads),
        )
        named = dict(zip(("means", "quats", "scales", "pose"), grads, strict=True))
        named |= {"opacities": v_opacities, "values": np.ascontiguousarray(v_colors[:, :-1])}
        return {name: torch.from_numpy(grad) for name, grad in named.items()}
