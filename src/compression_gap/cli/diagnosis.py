"""The verb that diagnoses a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..api.options import PolicyOptions
from ..errors import UserError
from .options import Running, Runs, Served, print_json

if TYPE_CHECKING:
    from ..results.records.diagnosis import Diagnosed, DiagnosedErrors


@dataclass(frozen=True)
class DiagnoseOptions:
    """Say what a policy is sensitive to, what its success does not need, how many bits of action it uses.

    The policy as it is, and under one change at a time, all from the same initial states: codes and noise on its chunks,
    coarser images, other numbers of actions a decision, its state, its prompt.

    Example: cgap diagnose store/policy/KEY --episodes 25
    """

    policy: tyro.conf.Positional[tuple[str, ...]]
    """the policy's folder, or ws://HOST:PORT where it is served; several addresses serve one policy."""
    suite: str | None = None
    """the suite; by default the policy's own simulator and tasks."""
    name: str | None = None
    """what the policy is called: part of the key of its episodes, for a served one all that tells it apart."""
    episodes: int = 20
    """episodes per task, as it is and under each change."""
    execute: int | None = None
    """actions executed per decision; by default the binding's, or 8."""
    changes: tuple[str, ...] = ("code", "precision", "vision", "horizon", "state", "language")
    """groups of changes."""
    tokenizers: tuple[str, ...] = ("bins", "oat")
    """codes that its chunks go through."""
    tokenizer_steps: int = 1500
    """training steps of tokenizers that have a network."""
    demos: tuple[Path, ...] = ()
    """folders STORE/demos/KEY that codes and noise are fitted to; by default the policy's own undisturbed chunks."""
    recordings: tuple[Path, ...] = ()
    """without a simulator: chunk errors on the held-out episodes of these folders STORE/demos/KEY."""
    points: int = 300
    """with --recordings: decisions under each change, about."""
    videos: int = 2
    """changes of which the page shows an episode as it was and under the change; 0 for none."""
    store: Path = Path("store")
    """folder of all artefacts; what is there is not run again."""
    served: Served = field(default_factory=PolicyOptions)
    running: Runs = field(default_factory=Running)
    json: bool = False
    """print what was found as JSON."""


def diagnose(options: DiagnoseOptions) -> None:
    """Run what is missing, and print the sentences and the table."""
    from ..api.diagnosis import DiagnosisOptions, diagnose_recordings
    from ..api.diagnosis import diagnose as run
    from ..api.options import at_least
    from ..study.diagnosis import DiagnosisSpec
    from ..study.file import Tokenizer

    o = options
    for name, words in (("changes", o.changes), ("tokenizers", o.tokenizers)):
        if not o.policy and (address := next((w for w in words if "://" in w), None)):
            raise UserError(f"{address} was read as one of --{name}: name the policy before the options")
    at_least(1, tokenizer_steps=o.tokenizer_steps)
    at_least(0, videos=o.videos)
    how = DiagnosisOptions(
        suite=o.suite,
        name=o.name,
        episodes=o.episodes,
        execute=o.execute,
        spec=DiagnosisSpec(
            groups=o.changes, tokenizers=o.tokenizers, section=Tokenizer(steps=o.tokenizer_steps)
        ),
        demos=o.demos,
        policy=o.served,
        videos=o.videos,
    )
    if o.recordings:
        recorded = diagnose_recordings(o.policy, o.recordings, how, points=o.points, running=o.running)
        _show(o, recorded.found, recorded.folder)
    else:
        made = run(o.policy, how, store=o.store, running=o.running)
        _show(o, made.found, made.folder)


def _show(options: DiagnoseOptions, found: Diagnosed | DiagnosedErrors, folder: Path) -> None:
    if options.json:
        print_json(found)
        return
    from .terminal_diagnosis import show

    show(found)
    print(f"page: {folder / 'diagnosis.html'}")
