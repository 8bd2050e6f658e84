"""The comparison of tokenizers on a set of demonstrations: a graph of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..sims import EVALUATION_STATES, EvaluationProtocol, SimSpec, sim_info
from ..store.store import Recipe, Store, read_manifest, recipe_in
from ..tokenizers import tokenizer_entry
from ..tokenizers.levels import Levels, prefix_lengths
from .file import Tokenizer
from .plan import Code, Graph, Step, add_base, add_tokenizer, check_code, codes_of


@dataclass(frozen=True)
class TableSpec:
    """What is compared, and how."""

    tokenizers: tuple[str, ...]
    codebooks: tuple[Levels, ...] = (((8, 5, 5, 5),),)
    seeds: tuple[int, ...] = (0,)
    section: Tokenizer = field(default_factory=Tokenizer)
    horizon: int = 16
    execute: int = 8
    sigma: float = 0.1
    prior_steps: int = 500
    episodes: int = 20  # of expert-coded per task; 0: no rollouts


@dataclass
class Row:
    """One code, or a prefix of it, with the steps that measure it."""

    code: Code
    health: Recipe
    prefix: int | None = None  # None: the whole code
    coded: Recipe | None = None
    replay: Recipe | None = None


@dataclass
class TablePlan(Graph):
    """The graph, and what the table reads from it."""

    spec: TableSpec
    demos: tuple[Recipe, ...]
    tasks: tuple[str, ...]
    protocol: EvaluationProtocol | None
    rows: list[Row] = field(default_factory=list)
    references: dict[str, Recipe] = field(default_factory=dict)

    @property
    def wanted(self) -> list[Recipe]:
        """Health and rollouts of every row, and the references' rollouts."""
        rows = [r for row in self.rows for r in (row.health, row.coded, row.replay) if r is not None]
        return [*self.references.values(), *rows]


def open_demos(folders: Sequence[Path]) -> tuple[Store, list[Recipe]]:
    """The store and the recipes of folders ``STORE/demos/KEY``. Raises ``UserError`` for any other folder."""
    roots, recipes = set(), []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}: name folders STORE/demos/KEY as 'cgap demos make' prints them"
            )
        try:
            recipe = recipe_in(read_manifest(folder))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder} holds no demonstrations: name a suite, or folders STORE/demos/KEY "
                f"as 'cgap demos make' prints them ({error})"
            ) from error
        if recipe.kind != "demos":
            raise UserError(f"{folder} is a {recipe.kind}, not demonstrations; name a folder STORE/demos/KEY")
        recipes.append(recipe)
        roots.add(folder.resolve().parent.parent)
    if len(roots) != 1:
        raise UserError("the demonstrations lie in several stores; name folders of one store")
    return Store(roots.pop()), recipes


def plan_table(spec: TableSpec, recipes: Sequence[Recipe], making: Sequence[Step] = ()) -> TablePlan:
    """The graph of a comparison. ``making``: steps that collect the demonstrations, where they are not there."""
    sim, tasks = simulator_of(recipes)
    protocol = None
    if sim is not None and spec.episodes:
        protocol = reference_protocol(sim, spec.episodes, horizon=spec.horizon, execute=spec.execute)
    plan = TablePlan(spec, tuple(recipes), tasks, protocol, steps={s.recipe.key: s for s in making})
    base = add_base(plan, recipes)
    if protocol is not None:
        _add_references(plan, base)
    for name in dict.fromkeys(spec.tokenizers):
        for code in codes_of(name, spec.codebooks, spec.seeds):
            check_code(code, spec.section, spec.horizon)
            _add_code(plan, base, code)
    return plan


def simulator_of(recipes: Sequence[Recipe]) -> tuple[SimSpec | None, tuple[str, ...]]:
    """The simulator that the demonstrations come from, if it is one and the same, and their tasks."""
    known = [r.spec["sim"] for r in recipes if "sim" in r.spec]
    named = (r.spec.get("tasks") or [r.spec.get("task", r.key)] for r in recipes)
    tasks = tuple(dict.fromkeys(str(task) for tasks in named for task in tasks))
    others = [{k: v for k, v in s.items() if k != "tasks"} for s in known]
    if any(
        "origin" in r.spec for r in recipes
    ):  # recorded elsewhere: their initial states have no numbers here
        return None, tasks
    if len(known) < len(recipes) or any(o != others[0] for o in others):
        return None, tasks
    return SimSpec.model_validate_json(json.dumps({**known[0], "tasks": list(tasks)})), tasks


def reference_protocol(
    sim: SimSpec, episodes_per_task: int, *, horizon: int, execute: int
) -> EvaluationProtocol:
    """How the expert's chunks are rolled out, where there is no study to say it."""
    if execute > horizon:
        raise UserError(f"--execute {execute} is longer than --horizon {horizon}")
    info = sim_info(sim)
    return EvaluationProtocol(
        sim=sim,
        episodes_per_task=episodes_per_task,
        first_initial_state=EVALUATION_STATES,
        execute=execute,
        n_obs_steps=1,
        step_limit=info.step_limit,
        versions=info.versions,
        settings=info.settings,
    )


def _rollout(plan: TablePlan, actor: str, prefix: int | None = None) -> dict[str, Any]:
    assert plan.protocol is not None
    spec = {"protocol": plan.protocol.model_dump(mode="json"), "horizon": plan.spec.horizon}
    spec |= {"actor": actor} if actor else {}
    return spec if prefix is None else {**spec, "prefix": prefix}


def _add_references(plan: TablePlan, base: dict[str, Recipe]) -> None:
    assert plan.protocol is not None
    cost = 5 + 0.6 * len(plan.protocol.episodes())
    spec = _rollout(plan, "expert-chunked")
    plan.references["expert-chunked"] = plan.add("episodes", spec, {}, "episodes of expert-chunked", cost)
    demos = {r: i for r, i in base.items() if r != "normaliser"}
    plan.references["replay"] = plan.add("replay", _rollout(plan, ""), demos, "open-loop replay", 20)


def _add_code(plan: TablePlan, base: dict[str, Recipe], code: Code) -> None:
    spec = plan.spec
    tokenizer, tokens = add_tokenizer(plan, base, code, spec.section, spec.horizon)
    inputs = {**base, "tokenizer": tokenizer}
    health = plan.add(
        "health",
        {"horizon": spec.horizon, "stride": 1, "sigma": spec.sigma, "prior_steps": spec.prior_steps},
        {**inputs, "tokens": tokens},
        f"health of {code.name}",
        20 + 0.15 * spec.prior_steps,
    )
    for prefix in (*_prefixes(code, spec.section), None):
        row = Row(code, health, prefix)
        if plan.protocol is not None:
            name = code.name if prefix is None else f"{code.name}, first {prefix}"
            row.coded = plan.add(
                "episodes",
                _rollout(plan, "expert-coded", prefix),
                {"tokenizer": tokenizer, "normaliser": base["normaliser"]},
                f"episodes of expert-coded ({name})",
                5 + 0.6 * len(plan.protocol.episodes()),
            )
            row.replay = plan.add(
                "replay", _rollout(plan, "", prefix), inputs, f"open-loop replay ({name})", 20
            )
        plan.rows.append(row)


def _prefixes(code: Code, section: Tokenizer) -> list[int]:
    """Shorter prefixes that are rolled out, of codes whose prefixes decode."""
    option = tokenizer_entry(code.tokenizer).ordered_by
    return prefix_lengths(getattr(section, option))[:-1] if option else []
