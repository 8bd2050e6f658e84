"""trackio: one SQLite file in the study's folder, and nothing leaves the machine.

Look with ``TRACKIO_DIR=STORE/studies/NAME/mirrors/trackio trackio show``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import Context
from pathlib import Path
from typing import Any

from ..follower import Say
from .base import Run

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # where trackio would send the numbers


class Trackio:
    """Runs of a local trackio project."""

    def __init__(self, study: str, folder: Path, say: Say) -> None:
        # Read when trackio is imported; in this process alone.
        os.environ["TRACKIO_DIR"] = str(folder.resolve())
        os.environ["HF_HUB_OFFLINE"] = "1"  # else it asks the Hub for the user's name
        for name in ELSEWHERE:
            os.environ.pop(name, None)
        import trackio

        self.study, self.trackio = study, trackio
        self.runs: dict[str, Any] = {}

    def begin(self, run: Run) -> None:
        """In a context of its own: ``init`` ends the run that it finds in its context."""
        self.runs[run.key] = Context().run(
            self.trackio.init,
            project=self.study,
            name=f"{run.name} · {run.key[:6]}",  # it goes on with a run by its name, which two may share
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
        """At the training's step."""
        self.runs[run.key].log(dict(values), step=step)

    def end(self, run: Run, *, failed: bool) -> None:
        """Write what is waiting; a failure stands in the configuration."""
        self.runs.pop(run.key).finish()

    def close(self) -> None:
        """Nothing is open."""
