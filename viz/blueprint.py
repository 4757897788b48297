"""Default layout of the viewer: world on the left, how a frame is made on the right, plots of the metrics below."""

from __future__ import annotations

import rerun as rr
import rerun.blueprint as rrb

from geometry.frame import Frame
from viz import entities
from viz.log_entries import Scale

HOW_TO_READ = """\
**Left: the world**, as far as it is known, first from where the photo was taken. The orange pyramid is the camera \
now, the gray one took the photo; gray line = planned path, orange = path so far. *Drag* to turn, *scroll* to zoom.

**Above: how a frame is made**

1. **Guide**: what the world already shows from there. *Checkerboard* = nothing known.
2. **Noise**: how freely to paint. *Blue* = keep, *amber* = copied texture, adjust, *pink* = unknown, invent.
3. **Result**: the new frame. It goes back into the world.

**Below: figures**, one per chunk of frames.

**Bottom edge: time.** Drag to look back. The eye beside `sky` in the left side panel hides the sky.
"""


def make_blueprint(photo: Frame, scale: Scale, *, following: bool) -> rrb.Blueprint:
    """The layout of the viewer.

    Args:
        photo: the photo, batch ``[1]``; the 3D view starts at its camera.
        scale: of the photo.
        following: True follows new data (live); False plays the recording in a loop (file).
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
    top = rrb.Horizontal(_world_view(photo, scale), rrb.Vertical(how, more), column_shares=[9, 11])
    time = (
        rrb.TimePanel(state="collapsed", timeline=entities.FRAME_TIMELINE, play_state="following")
        if following
        else rrb.TimePanel(
            state="collapsed", timeline=entities.FRAME_TIMELINE, play_state="playing", fps=8.0, loop_mode="all"
        )
    )
    return rrb.Blueprint(
        rrb.Vertical(top, _metrics_row(), row_shares=[2, 1]),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        time,
        auto_views=False,
    )


def _world_view(photo: Frame, scale: Scale) -> rrb.Spatial3DView:
    """The 3D view, started at the photo's camera: seen from the side, the world has gaps."""
    world_from_camera = photo.camera.world_from_camera[0].cpu().numpy()
    rotation, center = world_from_camera[:3, :3], world_from_camera[:3, 3]
    forward = scale.median_depth * rotation[:, 2]
    return rrb.Spatial3DView(
        origin=entities.WORLD,
        name="The world so far",
        # Without the image in the camera frustum, which would hide the world.
        contents=["$origin/**", f"- /{entities.IMAGE}"],
        background=[13, 17, 23],
        line_grid=False,
        eye_controls=rrb.EyeControls3D(
            kind="orbital",
            position=center,
            look_target=center + forward,
            eye_up=-rotation[:, 1],
        ),
        overrides={
            # An explicit visualizer disables the axis arrows.
            entities.CAMERA: rr.Pinhole.from_fields().visualizer(),
            entities.PHOTO_CAMERA: rr.Pinhole.from_fields().visualizer(),
        },
    )


def _metrics_row() -> rrb.Horizontal:
    def plot(panel: entities.Panel, name: str, *, legend: bool) -> rrb.TimeSeriesView:
        return rrb.TimeSeriesView(
            origin=f"{entities.GAUGES_ROOT}/{panel}", name=name, plot_legend=rrb.PlotLegend("LeftTop", visible=legend)
        )

    return rrb.Horizontal(
        plot("quality", "Holes and errors (low is good)", legend=True),
        plot("agreement", "Warp agreement, dB (high is good)", legend=False),
        rrb.TimeSeriesView(origin=entities.TIMINGS, name="Seconds per stage", plot_legend=rrb.PlotLegend("LeftTop")),
        rrb.Tabs(
            plot("size", "Primitives", legend=False),
            plot("memory", "Memory, MiB", legend=False),
            plot("other", "More", legend=True),
        ),
    )
