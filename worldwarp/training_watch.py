"""From a training to whoever looks on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from diffusion.training.trainer import SHEET, Validation
from viz.rerun_recorder import new_recording_path
from viz.training import TrainingRecorder


class TrainingWatch:
    """Records a training's validations into a new ``training.rrd`` in its folder.

    It travels to the process that validates, so it opens nothing before the first validation.
    """

    def __init__(self, folder: Path) -> None:
        """Record into ``folder``, which appears with the training."""
        self.folder = folder
        self._recorder: TrainingRecorder | None = None

    def __call__(self, validation: Validation) -> None:
        """Record one validation."""
        if self._recorder is None:
            identity = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
            self._recorder = TrainingRecorder(new_recording_path(self.folder, "training"), identity)
        sheet = validation.folder / SHEET
        self._recorder.validation(validation.step, validation.frames, validation.figures, sheet)
