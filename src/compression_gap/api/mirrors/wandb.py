"""Weights & Biases: a run each, in one group a study.

Where it goes is W&B's own to say (``WANDB_MODE``, ``WANDB_PROJECT``, a key). Without a key or network the runs are kept
offline in the study's folder. It is never asked to log in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from ..follower import Say
from .base import Run

PROJECT = "compression-gap"
TIMEOUT = 30.0  # seconds until a run that does not begin is kept offline


class WeightsAndBiases:
    """Runs at W&B, or in offline folders."""

    def __init__(self, study: str, folder: Path, say: Say) -> None:
        self.study, self.folder, self.say = study, folder, say
        self.offline = os.environ.get("WANDB_MODE") == "offline"
        self.runs: dict[str, Any] = {}

    def begin(self, run: Run) -> None:
        """Offline from the first run on that cannot begin online."""
        if not self.offline:
            try:
                self.runs[run.key] = self._begun(run, id=run.key, resume="allow")
                return
            except wandb.Error as error:  # no key, a wrong one, no network
                self.offline = True
                reason = str(error).split("\n")[0].rstrip(".")
                self.say(
                    f"W&B cannot be reached ({reason}): its runs are kept offline; "
                    f"'wandb sync {self.folder}/wandb/offline-run-*' sends them"
                )
        # An id of its own: offline, W&B cannot go on with a run.
        self.runs[run.key] = self._begun(run, mode="offline")

    def _begun(self, run: Run, **how: Any) -> Any:
        begun = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self.study,
            name=run.name,
            config=dict(run.config),
            dir=str(self.folder),
            reinit="create_new",  # several runs are open at once
            settings=wandb.Settings(
                console="off", disable_git=True, disable_code=True, x_disable_stats=True, init_timeout=TIMEOUT
            ),
            **how,
        )
        begun.define_metric("*", step_metric="step")  # W&B's own step must not go back
        return begun

    def log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
        """Against the training's step."""
        self.runs[run.key].log({"step": step, **values})

    def end(self, run: Run, *, failed: bool) -> None:
        """With exit code 1 where it failed."""
        self.runs.pop(run.key).finish(exit_code=int(failed))

    def close(self) -> None:
        """Nothing is open."""
