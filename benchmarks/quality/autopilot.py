"""How much of the surroundings a path makes known, frame by frame: `python -m benchmarks.quality.autopilot PHOTO...`.

From each photo 48 frames are made along `path=auto`, to views of the same surroundings that are drawn at random, by the
same smooth ways at the same speed, and along two presets. Now and then the known share is counted in 64 small views of
the surroundings, none of which any path was planned by. Options are `key=value` for all of them, e.g. `size=96x144`.
The bundled photo without any. Prints a table, and as JSON the means over the photos.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import torch

from geometry.camera import Camera
from worldwarp.autopilot import AutopilotPolicy, frames_to, smooth_way
from worldwarp.config import compose_config
from worldwarp.planned_path import unit_of
from worldwarp.prepare import prepare
from worldwarp.session import Session
from worldwarp.surroundings import JUDGES, small_size, unknown_share

PATHS = ("auto", "random", "orbit:angle_deg=25", "spiral:distance=0.3")
FRAMES, MARKS, JUDGED, JUDGE_PX = 49, (17, 33, 49), 64, 72


def known_by_frame(photo: Path, path: str, settings: list[str]) -> tuple[list[float], Session]:
    """Known share of the surroundings after the photo, and after each of ``MARKS`` frames."""
    words = [f"image={photo}", f"frames={FRAMES}", "viewer=none", *settings]
    session = prepare(compose_config("explore", [*words, f"path={'auto' if path == 'random' else path}"]))
    policy = AutopilotPolicy()
    around = session.surroundings(policy.radius, policy.angle_deg)
    judges = around.views(JUDGED, skip=JUDGES, size=small_size(session.settings.size, JUDGE_PX))

    def known() -> float:
        return 1.0 - float(unknown_share(session.state.view, judges).mean())

    shares = [known()]
    for _ in session.steps(at_random(session, policy) if path == "random" else None):
        if session.state.frames in MARKS:
            shares.append(known())
    # A path that ended early knows what it knew then.
    return shares + (len(MARKS) + 1 - len(shares)) * [known()], session


def at_random(session: Session, policy: AutopilotPolicy) -> Iterator[Camera]:
    """Chunks of ways to random views of the surroundings, whose ways do not run into what the photo shows."""
    around, count = session.surroundings(policy.radius, policy.angle_deg), 0
    done = session.cameras[:1]
    while (left := FRAMES - len(done)) > 0:
        target = around.views(1, skip=count)
        count += 1
        frames = int(frames_to(done[-1:], target, policy, unit_of(session.photo), session.chunk))
        way = smooth_way(done, target, frames, ends=False)[:left]
        if around.blocked(way.position).any():
            continue
        yield from (way[k : k + session.chunk] for k in range(0, len(way), session.chunk))
        done = Camera.concatenate([done, way])


def main() -> None:
    """Print the table."""
    settings = [word for word in sys.argv[1:] if "=" in word]
    photos = [Path(word) for word in sys.argv[1:] if "=" not in word]
    photos = photos or [Path(str(resources.files("worldwarp") / "photos" / "pagoda.jpg"))]
    print(f"{'known share after':<38} photo   17 frames   33 frames   49 frames")
    size = (0, 0)
    all_shares: dict[str, list[list[float]]] = {path: [] for path in PATHS}
    for photo in photos:
        for path in PATHS:
            shares, session = known_by_frame(photo, path, settings)
            size = session.settings.size
            all_shares[path].append(shares)
            shown = "   ".join(f"{share:9.1%}" for share in shares)
            print(f"{photo.stem[:12]:<12} {path:<24} {shown}", flush=True)
    means = {path: torch.tensor(shares).mean(0).tolist() for path, shares in all_shares.items()}
    for path, steps in means.items():
        print(f"{'mean':<12} {path:<24} {'   '.join(f'{share:9.1%}' for share in steps)}")
    figures = {path: [round(share, 4) for share in steps] for path, steps in means.items()}
    print(json.dumps({"photos": len(photos), "size": list(size), "known_at_1_17_33_49": figures}))


if __name__ == "__main__":
    main()
