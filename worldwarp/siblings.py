"""Guard against another distribution's `geometry`, `scenes`, ... shadowing ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOMS = ("geometry", "cache3d", "diffusion", "scenes", "viz")


def shadowed_rooms(home: Path, rooms: tuple[str, ...] = ROOMS) -> dict[str, str]:
    """Return the rooms that Python would import from elsewhere than ``home``, with the path that shadows each.

    Args:
        home: folder that holds this distribution's packages.
        rooms: names to look at.
    """
    shadowed: dict[str, str] = {}
    for room in rooms:
        spec = importlib.util.find_spec(room)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve().parent.parent != home.resolve():
            shadowed[room] = origin or "nowhere"
    return shadowed


def check_siblings() -> None:
    """Raise ImportError naming the paths when a sibling package of `worldwarp` is shadowed."""
    home = Path(__file__).parent.parent
    shadowed = shadowed_rooms(home)
    if shadowed:
        found = ", ".join(f"`{room}` from {origin}" for room, origin in shadowed.items())
        raise ImportError(
            f"worldwarp: want its sibling packages beside it in {home}, but Python finds {found}; "
            "rename or uninstall what shadows them, or start Python from another folder"
        )
