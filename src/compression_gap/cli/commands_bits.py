"""What the verbs that measure bits do: ledger, locate, calibrate. Usable from Python."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..store.store import Store, write_json
from ..study.file import Cameras, Ledger, Tokenizer, load_study
from .commands import (
    at_least,
    check_sigma,
    codebook,
    find_demos,
    folder_of,
    open_study,
    plan_of,
    run_all,
    study_folder,
    summarise_study,
)

if TYPE_CHECKING:
    from ..results.records.bits import Ledger as LedgerResult
    from ..results.records.bits import Located
    from ..results.records.calibration import Calibration


def make_ledger(
    target: tuple[str, ...],
    preset: str | None = None,
    *,
    encoders: tuple[str, ...],
    tokenizers: tuple[str, ...],
    store_root: Path,
    codebooks: tuple[str, ...] = ("fsq-1000",),
    tokenizer_steps: int = 1500,
    section: dict[str, Any] | None = None,
    horizon: int = 16,
    n_obs_steps: int = 2,
    execute: int = 8,
    demo_episodes: int = 100,
    processes: int | None = None,
    budget: str | None = None,
) -> LedgerResult:
    """The ledger of a study (a YAML file, or a preset) or of demonstrations (a suite, or folders of a store).

    ``section``: what to set in the study's ledger section. Raises ``UserError`` while steps are missing.
    """
    from ..results.information import read_ledger
    from ..results.records.json import as_json
    from ..study.ledger import plan_ledger

    section = section or {}
    at_least(
        1, steps=section.get("steps"), prior_steps=section.get("prior_steps"), tokenizer_steps=tokenizer_steps
    )
    check_sigma(section.get("sigma"))
    if is_study(target, preset):
        study = load_study(Path(target[0]) if target else None, preset)
        settings = (study.ledger or Ledger()).model_dump() | section
        study = study.model_copy(update={"ledger": Ledger(**settings)})
        plan: Any
        plan, store = plan_of(study, store_root)
        folder = study_folder(study, store)
    else:
        at_least(1, horizon=horizon, n_obs_steps=n_obs_steps, execute=execute)
        demos = find_demos(target, demo_episodes, Cameras(), store_root)
        if demos is None:
            raise UserError("name a study file, --preset, a suite, or folders STORE/demos/KEY that exist")
        store, sets, name = demos
        plan = plan_ledger(
            Ledger(**section),
            sets,
            encoders,
            tokenizers,
            tuple(codebook(c) for c in codebooks),
            Tokenizer(steps=tokenizer_steps),
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            execute=execute,
        )
        folder = folder_of(store.root / "ledgers" / name)
    run_all(plan, store, folder, processes, budget)
    assert plan.ledger is not None
    found = read_ledger(plan.ledger, store)
    write_json(folder / "ledger.json", as_json(found))
    return replace(found, file=str(folder / "ledger.json"))


def is_study(target: tuple[str, ...], preset: str | None) -> bool:
    """Whether a target names a study: a YAML file, or a preset."""
    return preset is not None or (len(target) == 1 and Path(target[0]).suffix in (".yaml", ".yml"))


def locate(
    target: tuple[str, ...],
    preset: str | None,
    encoders: tuple[str, ...],
    tokenizers: tuple[str, ...],
    sigma: float | None,
    store_root: Path,
    processes: int | None,
    budget: str | None,
) -> Located:
    """Which stage binds: ``success`` (of a study) and ``bits`` (where there is a ledger), in words and numbers."""
    from ..results.information import read_ledger
    from ..results.locate import of_ledger, of_study
    from ..results.records.bits import Located

    if not is_study(target, preset):
        ledger = make_ledger(
            target,
            encoders=encoders,
            tokenizers=tokenizers,
            store_root=store_root,
            section={} if sigma is None else {"sigma": sigma},
            processes=processes,
            budget=budget,
        )
        return Located(success=[], bits=of_ledger(ledger))
    check_sigma(sigma)
    study, plan, store = open_study(Path(target[0]) if target else None, preset, store_root)
    run_all(plan, store, study_folder(study, store), processes, budget)
    summary = summarise_study(plan, store)
    if study.data is not None and plan.ledger is None:
        raise UserError(
            f"the study '{study.name}' learns from recordings, whose success is not known, and has no bits: add a "
            "section 'ledger' to its file"
        )
    found = summary.ledger
    if plan.ledger is not None and sigma is not None:
        found = read_ledger(plan.ledger, store, sigma)
    return Located(success=of_study(summary), bits=[] if found is None else of_ledger(found))


def calibrate(
    quick: bool, store_root: Path, processes: int | None, budget: str | None, out: Path
) -> Calibration:
    """Run the calibration and write its page, ``out``; returns what stands on it."""
    from ..report.calibration import write_calibration_page
    from ..results.calibration import read_calibration
    from ..results.records.json import as_json
    from ..study.calibration import plan_calibration

    made, store = plan_calibration(quick), Store(store_root)
    begun = time.monotonic()
    run_all(made, store, study_folder(made.plan.study, store), processes, budget)
    found = replace(read_calibration(made, store), quick=quick, seconds=time.monotonic() - begun)
    folder_of(out.parent)
    write_calibration_page(found, out)
    write_json(out.with_suffix(".json"), as_json(found))
    return found
