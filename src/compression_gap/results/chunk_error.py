"""The held-out chunk error as a study's measurement: recordings alone, predictors as references, no success.

Errors are mean squared errors in standard deviations²: each held-out episode counts the same within its task, and
each task the same. Rows [seeds, episodes] go into the same variance components as success, with no upper bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..artifacts.error import ChunkError as Errors
from ..artifacts.error import EpisodeErrors
from ..encoders.registry import is_limit
from ..errors import UserError
from ..statistics import intervals as statistics
from ..statistics.variance import ERRORS
from ..store.store import Store
from ..study.cells import Cell as StudyCell
from ..study.cells import Reference as Predictor
from ..study.offline import OfflinePlan
from .measurement import Asked, Group, Measurement, Question, code_levels, code_words, replicates
from .records.cells import Baseline, Cell, ChunkError, ErrorSpan, Reference, TaskError
from .records.comparisons import Comparison, ErrorChange
from .records.study import HeldOut, RecordedSets, RecordingsFindings

CAUTION = (
    "A chunk error is no success rate: it says how near sampled chunks come to demonstrated ones on held-out "
    "recordings, not what the robot would do. Which stage is the bottleneck on the robot is not decided by it."
)
NAMES = {"mean": "the mean action", "last": "the last action, repeated"}
NOTHING = ChunkError(error=None, executed_error=None, rmse=None, per_task=None)


@dataclass(frozen=True, eq=False)
class ErrorGroup(Group[Errors]):
    """Errors of whole chunks by held-out episode [seeds, episodes]; ``decode_failures``: a share of chunks."""

    errors: tuple[EpisodeErrors, ...]  # of each seed


class ChunkErrors(Measurement[ErrorGroup, ChunkError, RecordingsFindings]):
    """Held-out chunk errors by episode."""

    outcomes, unit = ERRORS, 1.0

    def __init__(self, plan: OfflinePlan, store: Store) -> None:
        self.plan, self.study, self.encoders, self.store = plan, plan.study, plan.encoders, store
        self.groups = [_group(cells, store) for cells in replicates(plan.cells)]
        found = [e for g in self.groups for e in g.errors]
        if any(not np.array_equal(e.episode, found[0].episode) for e in found):
            raise ValueError("the errors of a study are not of the same held-out episodes")
        self.first = found[0] if found else None
        self.strata = np.zeros(0, int) if self.first is None else self.first.task

    @property
    def measured(self) -> bool:
        """Whether there are errors of a policy."""
        return self.first is not None

    def outcome(self, group: ErrorGroup) -> ChunkError:
        """Chunk errors of a configuration."""
        return self._errors(group.errors) if group.errors else NOTHING

    def _errors(self, errors: Sequence[EpisodeErrors]) -> ChunkError:
        """What is shown of the errors of one configuration's seeds, or of one predictor."""
        task = errors[0].task
        whole, executed = (np.stack([getattr(e, n) for e in errors]) for n in ("whole", "executed"))
        per_task = []
        for i, name in enumerate(self.plan.tasks):
            own = whole[:, task == i]
            if own.shape[1]:
                span = vars(_span(own, task[task == i]))
                per_task.append(TaskError(**span, task=name, episodes=own.shape[1]))
        return ChunkError(
            error=_span(whole, task),
            executed_error=_span(executed, task),
            rmse=_root_mean_square(errors),
            per_task=per_task,
        )

    def references(self) -> list[Reference[ChunkError]]:
        """The predictors that are there."""
        return [r for p in self.plan.references if (r := self._reference(p)) is not None]

    def _reference(self, predictor: Predictor[Errors]) -> Reference[ChunkError] | None:
        there = {seed: run for seed, run in predictor.runs.items() if self.store.has(run)}
        if not there:
            return None
        name, code = NAMES.get(predictor.actor, ""), predictor.code
        if code is not None:
            words = [f"the demonstrated chunk through {code.tokenizer}", *code_words(code, self.study)]
            name = " · ".join(words)
        return Reference(
            label=name,
            of=Baseline(predictor=predictor.actor),
            code=code_levels(code, predictor.fitted, self.store),
            fitted_seeds=[seed for seed in there if seed is not None],
            outcome=self._errors([e.load(self.store) for e in there.values()]),
        )

    def comparisons(self) -> list[Comparison]:
        """Δ_enc under each head: neighbours on the ladder, its ends, and the last encoder that is no limit against blind.

        Below 0 the better encoder errs less. Never between heads: see ``chunk_error``.
        """
        out = []
        for low, high in self._encoder_changes():
            encoders = (low.cell.encoder, high.cell.encoder)
            about = ErrorChange(encoders=encoders, under=self.label_without_encoder(low))
            out.append(self.change(low, high, about))
        return out

    def _encoder_changes(self) -> list[tuple[ErrorGroup, ErrorGroup]]:
        """The pairs that are compared; none with one held-out episode."""
        out: list[tuple[ErrorGroup, ErrorGroup]] = []
        for ladder in self.ladders(self.groups) if len(self.strata) > 1 else ():
            pairs = list(itertools.pairwise(ladder))
            own = [g for g in ladder if not is_limit(g.cell.encoder)]
            ends = [(ladder[0], ladder[-1])] + [(ladder[0], g) for g in own[-1:]]
            pairs += [p for p in ends if p[0] is not p[1] and p not in pairs]
            out += dict.fromkeys(pairs)
        return out

    def asked(self, question: Question) -> list[Asked[ErrorGroup]]:
        """Each Δ_enc of the chunk error."""
        if question != "upgrade":
            raise UserError(
                f"until.question: '{question}' is answered by success in a simulator; recordings answer 'upgrade' "
                "(what an encoder changes of the chunk error)"
            )
        return self.asked_of_gains(self._encoder_changes())

    def found(self, cells: Sequence[Cell[ChunkError]]) -> RecordingsFindings:
        """The recordings, and where errors were measured."""
        recordings = self.plan.recordings
        assert self.first is not None
        return RecordingsFindings(
            recordings=RecordedSets(
                sets=[r.key for r in recordings.demos],
                source=recordings.sim,
                cameras=recordings.cameras,
                image_size=recordings.image_size,
                action_dim=recordings.action_dim,
                proprio_dim=recordings.proprio_dim,
                true_state_dim=recordings.state_dim,
                episodes=recordings.episodes,
                frames=recordings.frames,
            ),
            held_out=HeldOut(
                episodes=len(self.first.episode), points=self.first.points, execute=self.plan.execute
            ),
            encoders=self.encoders,
        )

    def headline(self, contrasts: Sequence[Comparison], found: RecordingsFindings) -> list[str]:
        """What the best encoder of the file changes against the one that sees nothing, one sentence a head."""
        own = [e for e in self.encoders if not is_limit(e)]
        out = [CAUTION]
        for c in contrasts:
            if isinstance(c.about, ErrorChange) and own and c.about.encoders == ("blind", own[-1]):
                d = c.found
                span = f"{d.value:+.3g} [{d.low:+.2g}, {d.high:+.2g}]".replace("-", "−")
                stands = "is not separated from none" if d.low <= 0 <= d.high else "stands"
                out.append(
                    f"Under {c.about.under}, seeing with {own[-1]} in place of nothing changes the held-out chunk "
                    f"error by {span} standard deviations², which {stands}."
                )
        return out


def _group(cells: tuple[StudyCell[Errors], ...], store: Store) -> ErrorGroup:
    there = [c for c in cells if store.has(c.evidence)]
    errors = tuple(c.evidence.load(store) for c in there)
    return ErrorGroup(
        cells,
        tuple(c.seed for c in there),
        np.stack([e.whole for e in errors]) if errors else None,
        float(np.mean([e.decode_failures for e in errors])) if errors else None,
        errors,
    )


def _span(rows: np.ndarray, task: np.ndarray) -> ErrorSpan:
    """The mean of errors [seeds, episodes] and its interval; none from a single held-out episode."""
    found = statistics.contrast([rows], [1], task, outcomes=ERRORS)
    one = rows.shape[1] < 2
    return ErrorSpan(
        value=found.value,
        low=None if one else found.low,
        high=None if one else found.high,
        method="no interval: one held-out episode" if one else found.method,
        seed_variance_unknown=found.seed_variance_unknown,
    )


def _root_mean_square(errors: Sequence[EpisodeErrors]) -> list[float]:
    """Of each action dimension, in raw units; episodes, tasks and seeds weigh as in the error."""
    task = errors[0].task
    mean = np.mean([e.raw for e in errors], axis=0)
    of_tasks = [mean[task == t].mean(0) for t in np.unique(task)]
    return [float(v) for v in np.sqrt(np.mean(of_tasks, axis=0))]
