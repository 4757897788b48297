"""What a finished or interrupted walk tells its user."""

from __future__ import annotations

from worldwarp.exploration import Exploration


def after(exploration: Exploration, finished: bool) -> list[str]:
    """Where everything is, and what to type next."""
    walk, total = exploration.walk, len(exploration.cameras)
    if exploration.world is None:
        return [f"{walk.frames} of {total} frames made; nothing was stored"]
    folder = exploration.world.folder
    lines = [
        f"{'done' if finished else 'stopped and saved'}: {walk.frames} of {total} frames, "
        f"{len(exploration.parts.cache)} primitives, in {folder}",
        f"  video      {folder / 'video.mp4'}",
        f"  look       worldwarp view {folder}",
        f"  take away  worldwarp export {folder} formats=[gaussians_ply,points_ply,glb,colmap,nerfstudio,mp4]",
    ]
    if finished:
        lines.append(f"  go on      worldwarp explore resume={folder} path=left")
    else:
        lines.append(f"  finish     worldwarp explore resume={folder}")
    return lines
