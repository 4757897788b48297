"""What a person sees first: the world on the left, how a frame is made on the right, figures below."""

from __future__ import annotations

import numpy as np
import rerun.blueprint as rrb

from geometry.camera import Camera
from geometry.frame import Frame
from viz import entities
from viz.rows import Scale

HOW_TO_READ = """\
**Left: the world.** Everything known so far, from a seat above and behind the photographer. The little pyramid is \
the camera now, the grey line its planned path, the orange line what it has walked. *Drag* to turn, *scroll* to \
zoom, *WASD* to fly.

**Above: how a new frame is made**, from left to right

1. **Guide**: what the world already shows from there. *Checkerboard* = nothing known.
2. **Noise**: how freely the generator may paint. *Dark blue* = keep, *amber* = copied texture, adjust, *pink* = \
unknown, invent.
3. **Result**: the finished frame. It goes back into the world.

**Below: figures per chunk.** Hole ratio, seam error and depth residual are good when low, warp agreement when high.

**Bottom edge: time.** Drag the cursor to look back; tabs beside this one hold settings and log. *Sky* is hidden in \
the world: the eye next to `world/sky` in the left panel shows it.
"""


def make_blueprint(photo: Frame, planned: Camera, scale: Scale, *, following: bool) -> rrb.Blueprint:
    """Lay the window out.

    Args:
        photo: the photo, batch ``[1]``; its camera decides where the first eye is.
        planned: the whole path, ``[n]``; the eye steps back far enough to see it.
        scale: of the photo.
        following: True follows what comes in (live); False plays the recording in a loop (file).
    """
    how = rrb.Horizontal(
        rrb.Spatial2DView(origin=entities.GUIDE, name="1  Guide: what the world shows"),
        rrb.Spatial2DView(origin=entities.NOISE, name="2  Noise: where to paint"),
        rrb.Spatial2DView(origin=entities.CAMERA, contents=entities.IMAGE, name="3  Result"),
    )
    more = rrb.Horizontal(
        rrb.Tabs(
            rrb.Spatial2DView(origin=entities.PHOTO, name="Photo"),
            rrb.Spatial2DView(origin=entities.PRIOR, name="Prior"),
            rrb.Spatial2DView(origin=entities.COVERAGE, name="Coverage"),
        ),
        rrb.Spatial2DView(origin=entities.DEPTH, name="Depth of the result"),
        rrb.Tabs(
            rrb.TextDocumentView(origin=entities.HOW_TO_READ, name="How to read this"),
            rrb.TextDocumentView(origin=entities.SETTINGS, name="Settings"),
            rrb.TextLogView(origin=entities.LOG, name="Log"),
        ),
    )
    top = rrb.Horizontal(_world_view(photo, planned, scale), rrb.Vertical(how, more), column_shares=[4, 6])
    time = (
        rrb.TimePanel(state="collapsed", timeline=entities.FRAME_TIMELINE, play_state="following")
        if following
        else rrb.TimePanel(
            state="collapsed", timeline=entities.FRAME_TIMELINE, play_state="playing", fps=8.0, loop_mode="all"
        )
    )
    return rrb.Blueprint(
        rrb.Vertical(top, _gauges_row(), row_shares=[7, 2]),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        time,
        auto_views=False,
    )


def _world_view(photo: Frame, planned: Camera, scale: Scale) -> rrb.Spatial3DView:
    world_from_camera = photo.camera.world_from_camera[0].cpu().numpy()
    rotation, center = world_from_camera[:3, :3], world_from_camera[:3, 3]
    reach = float(np.linalg.norm(planned.position.cpu().numpy() - center, axis=1).max(initial=0.0))
    # A path that runs far away must not push the eye so far back that the photo's scene becomes a speck.
    back = scale.median_depth + min(reach, 2.0 * scale.median_depth)
    return rrb.Spatial3DView(
        origin=entities.WORLD,
        name="The world so far",
        contents="$origin/**",
        background=[13, 17, 23],
        line_grid=False,
        eye_controls=rrb.EyeControls3D(
            kind="orbital",
            position=center + rotation @ (back * np.array([-0.45, -0.5, -0.75])),
            look_target=center + rotation @ np.array([0.0, 0.0, 0.9 * scale.median_depth]),
            eye_up=-rotation[:, 1],
        ),
        overrides={entities.SKY: rrb.EntityBehavior(visible=False)},
    )


def _gauges_row() -> rrb.Horizontal:
    def plot(panel: entities.Panel, name: str) -> rrb.TimeSeriesView:
        return rrb.TimeSeriesView(origin=f"{entities.GAUGES_ROOT}/{panel}", name=name)

    return rrb.Horizontal(
        plot("quality", "Quality (low is good)"),
        plot("agreement", "Agreement (high is good)"),
        rrb.TimeSeriesView(origin=entities.TIMINGS, name="Seconds per stage"),
        rrb.Tabs(plot("size", "World size"), plot("memory", "Memory"), plot("other", "More")),
    )
