"""Checks that no other distribution shadows the packages `geometry`, `scenes`, ... of this one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SIBLINGS = ("geometry", "cache3d", "diffusion", "scenes", "viz")


def shadowed_packages(home: Path, packages: tuple[str, ...] = SIBLINGS) -> dict[str, str]:
    """The packages that Python would import from elsewhere than ``home``, with the path of each.

    Args:
        home: folder that holds this distribution's packages.
        packages: names to check.
    """
    shadowed: dict[str, str] = {}
    for package in packages:
        spec = importlib.util.find_spec(package)
        # A folder without `__init__.py` of that name, as in a user's working folder, has no origin.
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve().parent.parent != home.resolve():
            shadowed[package] = origin or "nowhere"
    return shadowed


def check_siblings() -> None:
    """Raise ImportError with the paths if a sibling package of `worldwarp` is shadowed."""
    home = Path(__file__).parent.parent
    shadowed = shadowed_packages(home)
    if shadowed:
        found = ", ".join(f"`{package}` from {origin}" for package, origin in shadowed.items())
        raise ImportError(
            f"worldwarp: want its sibling packages beside it in {home}, but Python finds {found}; "
            "rename or uninstall what shadows them, or start Python from another folder"
        )
