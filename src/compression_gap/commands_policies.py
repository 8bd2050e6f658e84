"""What the verbs do that take policies out of the store: export with a model card, and serve."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifacts import MANIFEST, Recipe, Store
from .commands import open_study, summarise_study
from .errors import UserError
from .nn.convergence import convergence

if TYPE_CHECKING:
    from .policies.card import Card, CellError, CellRate, Evaluation, Rate
    from .sims import EvaluationProtocol


@dataclass(frozen=True)
class _Evidence:
    """A protocol and its tasks, as evidence is read for."""

    protocol: EvaluationProtocol

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.protocol.sim.tasks


def export_policy(folder: Path, out: Path, study: Path | None, preset: str | None) -> dict[str, Any]:
    """Save a policy and its card in a new folder; returns its folder, files and the card's figures."""
    from .policies import Policy
    from .policies.sharing import save_pretrained

    card = policy_card(folder, study, preset)
    made = save_pretrained(Policy.from_pretrained(folder), out, card=card)
    files = sorted(str(f.relative_to(made)) for f in made.rglob("*") if f.is_file())
    return {"folder": str(made), "files": files, "card": asdict(card)}


def policy_card(folder: Path, study: Path | None = None, preset: str | None = None) -> Card:
    """What the store knows of the policy in ``STORE/policy/KEY``; an empty card of a folder elsewhere.

    Raises ``UserError`` if the policy is damaged, or is not one of the study that is named.
    """
    from .policies.card import Card

    folder = folder.resolve()
    root = folder.parent.parent
    named = study is not None or preset is not None
    if not ((folder / MANIFEST).is_file() and (root / "store.json").is_file()):
        if named:
            raise UserError(f"{folder} is in no store, so no study knows it; name STORE/policy/KEY")
        return Card()
    store = Store(root)
    recipe = _recipe(folder)
    if recipe.kind != "policy" or recipe.key != folder.name:
        raise UserError(f"{folder} is no policy of its store; name STORE/policy/KEY")
    about = store.manifest(recipe)
    meta, spec = about["meta"], about["spec"]
    if named:
        summaries = [_summary(study, preset, root)]
        if not list(_cells_with(summaries[0], recipe.key)):
            raise UserError(f"the study '{summaries[0]['study']['name']}' has no policy {recipe.key}")
    else:
        summaries = [json.loads(f.read_text()) for f in sorted(root.glob("studies/*/summary.json"))]
    training = {
        **{k: v for k, v in spec.get("training", {}).items() if v is not None},
        "seed": spec.get("seed"),
        "trained_on": {"coded": "chunks through a code"}.get(spec.get("target", "chunk"), "recorded chunks"),
        "decision_points": meta.get("decision_points"),
        "seconds": None if meta.get("train_seconds") is None else round(meta["train_seconds"], 1),
        **{k: v for k, v in meta.get("machine", {}).items() if k in ("torch", "device")},
    }
    return Card(
        key=recipe.key,
        training={k: v for k, v in training.items() if v is not None},
        convergence=convergence(meta["curve"]["validation"]) if "curve" in meta else None,
        demonstrations=tuple(_demonstrations(store, about["inputs"])),
        evaluations=tuple(_evaluations(store, recipe.key)),
        cells=tuple(c for s in summaries for c in _cell_rates(s, recipe.key)),
        errors=tuple(e for s in summaries for e in _cell_errors(s, recipe.key)),
    )


def _recipe(folder: Path) -> Recipe:
    """The recipe in an artefact's manifest."""
    try:
        about = json.loads((folder / MANIFEST).read_text())
        return Recipe(about["kind"], about["spec"], about["inputs"], about["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} cannot be read; run the study again to make it anew") from error


def _summary(study: Path | None, preset: str | None, root: Path) -> dict[str, Any]:
    _, plan, store = open_study(study, preset, root)
    return summarise_study(plan, store)


def _demonstrations(store: Store, inputs: dict[str, str]) -> Iterator[str]:
    """One line for each set that the policy was trained on, as far as the store still has it."""
    for role, key in inputs.items():
        if not role.startswith("demos/"):
            continue
        file = store.root / "demos" / key / "demos.json"
        if not file.is_file():
            yield f"demos {key}, which the store no longer holds"
            continue
        episodes = json.loads(file.read_text())["episodes"]
        frames = sum(e["length"] for e in episodes)
        trained = sum(e["split"] == "train" for e in episodes)
        for task, count in Counter(e["task"] for e in episodes).items():
            yield f"{task}: {count} demonstrations ({trained} of them for training), {frames} frames, demos {key}"


def _evaluations(store: Store, key: str) -> Iterator[Evaluation]:
    """Success of this policy, executed as it is, under every protocol that its store has episodes of."""
    from .policies.card import Evaluation
    from .sims import EVALUATION_STATES, EvaluationProtocol
    from .study.evidence import rate, read_rows, strata, success_matrix

    for manifest in sorted(store.root.glob(f"episodes/*/{MANIFEST}")):
        recipe = _recipe(manifest.parent)
        if recipe.inputs.get("policy") != key or recipe.spec.get("actor") != "policy":
            continue
        if "checkpoint" in recipe.spec:
            continue  # of earlier weights than the policy's
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
                task: _rate(rate(success[None, tasks == i], tasks[tasks == i] * 0))
                for i, task in enumerate(measured.tasks)
            },
            episodes=protocol.episodes_per_task * protocol.repeats,
            overall=_rate(rate(success[None], tasks)),
        )


def _conditions(protocol: EvaluationProtocol) -> str:
    states = protocol.initial_states
    parts = [
        f"{protocol.sim.sim}, initial states {states.start} to {states.stop - 1} of each task",
        f"{protocol.execute} actions executed per decision",
        f"at most {protocol.step_limit} steps",
        *(f"{name} {version}" for name, version in sorted(protocol.versions.items())),
    ]
    return ", ".join(parts)


def _rate(interval: dict[str, Any]) -> Rate:
    from .policies.card import Rate

    return Rate(interval["value"], interval["low"], interval["high"])


def _cells_with(summary: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """A study's cells that hold a policy and execute it as it is."""
    for cell in summary["cells"]:
        if cell["executed"] == "chunk" and key in {Path(p).name for p in cell["policies"]}:
            yield cell


def _cell_rates(summary: dict[str, Any], key: str) -> Iterator[CellRate]:
    from .policies.card import CellRate
    from .sims import EVALUATION_STATES

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
                rate=_rate(cell["rate"]),
            )


def _cell_errors(summary: dict[str, Any], key: str) -> Iterator[CellError]:
    """Chunk errors in a study of recordings; its summary has no protocol."""
    from .policies.card import CellError

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


def serve_policy(
    policy: str,
    host: str,
    port: int,
    max_message_mb: float,
    task: str | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Serve until it is interrupted."""
    from .policies import Policy
    from .serving.server import PolicyServer, is_loopback, metadata, serve_forever

    server = PolicyServer(
        loaded := Policy.from_pretrained(policy, revision=revision),
        host=host,
        port=port,
        max_message_mb=max_message_mb,
        task=task,
    )
    if not is_loopback(host):
        print(
            f"cgap: warning: {host} can be reached from other machines, and this server knows neither passwords "
            "nor encryption; use it in a network that you trust, or a tunnel to 127.0.0.1",
            file=sys.stderr,
        )

    def ready() -> None:
        about = metadata(loaded)
        if as_json:
            print(json.dumps({"url": server.url, **about}, allow_nan=False), flush=True)
        else:
            tasks = ", ".join(about["tasks"])
            print(
                f"{about['head']} · {about['encoder']} on {about['sim']} ({tasks}) at {server.url}",
                flush=True,
            )
            print("Ctrl-C stops it", flush=True)

    serve_forever(server, ready)
    print("cgap: stopped", file=sys.stderr)
