"""The model card of a policy: what its store knows of its training, its data and its success."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demos.demoset import read_episodes
from ..errors import UserError, counted
from ..nn.convergence import convergence
from ..records import read_object
from ..results.records.json import as_json
from ..store.store import MANIFEST, Recipe, Store, read_manifest, recipe_in
from ..study.file import Study
from .results import summarise_study
from .study import open_study

if TYPE_CHECKING:
    from ..policies.card import Card, CellError, CellRate, Evaluation, Rate
    from ..sims import EvaluationProtocol
    from ..statistics.intervals import Interval

    Measured = tuple[Iterable[CellRate], Iterable[CellError]]


@dataclass(frozen=True)
class _Evidence:
    """A protocol and its tasks, as evidence is read for."""

    protocol: EvaluationProtocol

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.protocol.sim.tasks


def policy_card(folder: Path, study: Study | None = None) -> Card:
    """What the store knows of the policy in ``STORE/policy/KEY``; an empty card of a folder elsewhere.

    Raises ``UserError`` if the policy is damaged, or is not one of the study that is named.
    """
    from ..policies.card import Card

    folder = folder.resolve()
    root = folder.parent.parent
    if not ((folder / MANIFEST).is_file() and (root / "store.json").is_file()):
        if study is not None:
            raise UserError(f"{folder} is in no store, so no study knows it; name STORE/policy/KEY")
        return Card()
    store = Store(root)
    recipe = _recipe(folder)
    if recipe.kind != "policy" or recipe.key != folder.name:
        raise UserError(f"{folder} is no policy of its store; name STORE/policy/KEY")
    store.open(recipe)  # all of it is to be exported
    about = store.manifest(recipe)
    meta, spec = about["meta"], about["spec"]
    if study is not None:
        summary = as_json(summarise_study(open_study(study, root)))
        if not list(_cells_with(summary, recipe.key)):
            raise UserError(f"the study '{study.name}' has no policy {recipe.key}")
        found: list[Measured] = [(_cell_rates(summary, recipe.key), _cell_errors(summary, recipe.key))]
    else:
        found = [_measured_in(f, recipe.key) for f in sorted(root.glob("studies/*/summary.json"))]
    with _readable(folder / MANIFEST):
        training = _trained(spec, meta)
        ended = convergence(meta["curve"]["validation"]) if "curve" in meta else None
    return Card(
        key=recipe.key,
        training=training,
        convergence=ended,
        demonstrations=tuple(_demonstrations(store, about["inputs"])),
        evaluations=tuple(_evaluations(store, recipe.key)),
        cells=tuple(c for cells, _ in found for c in cells),
        errors=tuple(e for _, errors in found for e in errors),
    )


def _trained(spec: Mapping[str, Any], meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the policy was trained, as far as its manifest says."""
    training = {
        **{k: v for k, v in spec.get("training", {}).items() if v is not None},
        "seed": spec.get("seed"),
        "trained_on": {"coded": "chunks through a code"}.get(spec.get("target", "chunk"), "recorded chunks"),
        "decision_points": meta.get("decision_points"),
        "seconds": None if meta.get("train_seconds") is None else round(meta["train_seconds"], 1),
        **{k: v for k, v in meta.get("machine", {}).items() if k in ("torch", "device")},
    }
    return {k: v for k, v in training.items() if v is not None}


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what comes of a record with other content than its own into a sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UserError(
            f"{file} cannot be read ({words}); run or report its study again, or remove it"
        ) from error


def _measured_in(file: Path, key: str) -> Measured:
    """What a study's summary says of the policy. Raises ``UserError`` for a file that is no summary."""
    with _readable(file):
        summary = read_object(file)
        if not summary.keys() & {"protocol", "recordings"}:
            raise ValueError("it is no summary of a study")
        return list(_cell_rates(summary, key)), list(_cell_errors(summary, key))


def _recipe(folder: Path) -> Recipe:
    """The recipe in an artefact's manifest."""
    with _readable(folder / MANIFEST):
        return recipe_in(read_manifest(folder / MANIFEST))


def _demonstrations(store: Store, inputs: dict[str, str]) -> Iterator[str]:
    """One line for each set that the policy was trained on, as far as the store still has it."""
    for role, key in inputs.items():
        if not role.startswith("demos/"):
            continue
        file = store.root / "demos" / key / "demos.json"
        if not file.is_file():
            yield f"demos {key}, which the store no longer holds"
            continue
        episodes = read_episodes(file.parent)
        frames = sum(e.length for e in episodes)
        trained = sum(e.split == "train" for e in episodes)
        for task, count in Counter(e.task for e in episodes).items():
            yield f"{task}: {counted(count, 'demonstration')} ({trained} of them for training), {counted(frames, 'frame')}, demos {key}"


def _evaluations(store: Store, key: str) -> Iterator[Evaluation]:
    """Success of this policy, executed as it is, under every protocol that its store has episodes of."""
    from ..policies.card import Evaluation
    from ..results.evidence import read_rows, strata, success_matrix
    from ..sims import EVALUATION_STATES, EvaluationProtocol
    from ..statistics.intervals import rate_interval

    for manifest in sorted(store.root.glob(f"episodes/*/{MANIFEST}")):
        recipe = _recipe(manifest.parent)
        if recipe.inputs.get("policy") != key or recipe.spec.get("actor") != "policy":
            continue
        if "checkpoint" in recipe.spec:
            continue  # of earlier weights than the policy's
        with _readable(manifest):
            protocol = EvaluationProtocol.model_validate_json(json.dumps(recipe.spec["protocol"]))
        if protocol.first_initial_state < EVALUATION_STATES:
            continue  # tuning states, or those of demonstrations: never reported
        measured = _Evidence(protocol)
        rows = read_rows(measured, store, recipe)
        assert rows is not None
        success, tasks = success_matrix(measured, rows), strata(measured)
        yield Evaluation(
            protocol=protocol.hash,
            conditions=_conditions(protocol),
            tasks={
                task: _rate(rate_interval(success[None, tasks == i], tasks[tasks == i] * 0))
                for i, task in enumerate(measured.tasks)
            },
            episodes=protocol.episodes_per_task * protocol.repeats,
            overall=_rate(rate_interval(success[None], tasks)),
        )


def _conditions(protocol: EvaluationProtocol) -> str:
    states = protocol.initial_states
    parts = [
        f"{protocol.sim.sim}, initial states {states.start} to {states.stop - 1} of each task",
        f"{counted(protocol.execute, 'action')} executed per decision",
        f"at most {counted(protocol.step_limit, 'step')}",
        *(f"{name} {version}" for name, version in sorted(protocol.versions.items())),
    ]
    return ", ".join(parts)


def _rate(of: Interval) -> Rate:
    from ..policies.card import Rate

    return Rate(of.value, of.low, of.high)


def _cells_with(summary: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    """A study's cells that hold a policy and execute it as it is."""
    for cell in summary["cells"]:
        if cell["executed"] == "chunk" and key in {Path(p).name for p in cell["policies"]}:
            yield cell


def _cell_rates(summary: Mapping[str, Any], key: str) -> Iterator[CellRate]:
    from ..policies.card import CellRate, Rate
    from ..sims import EVALUATION_STATES

    if "protocol" not in summary or summary["protocol"]["first_initial_state"] < EVALUATION_STATES:
        return  # a study of recordings, or of states that are never reported
    chosen = summary.get("selection")
    for cell in _cells_with(summary, key):
        if cell["rate"] is not None:
            yield CellRate(
                study=summary["study"]["name"],
                protocol=summary["protocol"]["hash"],
                cell=f"{cell['label']}, {chosen['mark']}" if chosen else cell["label"],
                seeds=tuple(cell["seeds"]),
                rate=Rate(**{n: cell["rate"][n] for n in ("value", "low", "high")}),
            )


def _cell_errors(summary: Mapping[str, Any], key: str) -> Iterator[CellError]:
    """Chunk errors in a study of recordings; its summary has no protocol."""
    from ..policies.card import CellError

    if "recordings" not in summary:
        return
    for cell in _cells_with(summary, key):
        if cell["error"] is not None:
            yield CellError(
                study=summary["study"]["name"],
                cell=cell["label"],
                seeds=tuple(cell["seeds"]),
                **{n: cell["error"][n] for n in ("value", "low", "high")},
                episodes=summary["held_out"]["episodes"],
                points=summary["held_out"]["points"],
            )
