"""Records a training with Rerun: metrics and contact sheets of its validations, over steps and over frames."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from PIL import Image

log = logging.getLogger(__name__)

APPLICATION = "worldwarp-training"
STEP_TIMELINE, FRAMES_TIMELINE = "step", "frames_seen"
FIGURES, SHEET = "validation", "sheet"


class TrainingRecorder:
    """Writes a recording that is complete after every validation, since a training may be killed.

    Args:
        recording: the ``.rrd`` file to write, made at the first validation.
        recording_id: id of the training; Rerun shows recordings with one id as one.
    """

    def __init__(self, recording: Path, recording_id: str) -> None:
        self.recording = recording
        self._recording_id = recording_id
        self._file: rr.RecordingStream | None = None

    def validation(self, step: int, frames: int, figures: dict[str, float], sheet: Path) -> None:
        """Record the metrics of one validation, and its contact sheet if it exists. Never raises.

        Args:
            step: optimizer steps so far.
            frames: training frames so far.
            figures: metrics by name.
            sheet: an image file; may be missing.
        """
        try:
            file = self._open()
            file.set_time(STEP_TIMELINE, sequence=step)
            file.set_time(FRAMES_TIMELINE, sequence=frames)
            for name, value in figures.items():
                file.log(f"{FIGURES}/{name}", rr.Scalars(value))
            if sheet.is_file():
                with Image.open(sheet) as picture:
                    file.log(SHEET, rr.Image(np.asarray(picture)).compress(jpeg_quality=90))
            file.flush(timeout_sec=10.0)
        except Exception as error:  # an error of the recorder must not end the training
            log.warning("recorder: %s: %s; the training goes on", type(error).__name__, error)

    def _open(self) -> rr.RecordingStream:
        if self._file is None:
            self._file = rr.RecordingStream(APPLICATION, recording_id=self._recording_id)
            sheet = rrb.Spatial2DView(origin=SHEET, name="Held-out clips")
            plots = rrb.TimeSeriesView(origin=FIGURES, name="Validation")
            self._file.save(self.recording, rrb.Blueprint(rrb.Vertical(sheet, plots, row_shares=[2, 1])))
        return self._file
