"""What the verbs that measure bits do: ledger, locate, calibrate. Usable from Python."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from .artifacts import Store, write_json
from .commands import (
    at_least,
    check_sigma,
    codebook,
    demos_steps,
    folder_of,
    open_study,
    run_all,
    study_folder,
)
from .errors import UserError
from .study.plan import Step, make_plan
from .study.spec import Cameras, Ledger, Tokenizer, load_study


def make_ledger(
    target: tuple[str, ...],
    preset: str | None,
    encoders: tuple[str, ...],
    tokenizers: tuple[str, ...],
    codebooks: tuple[str, ...],
    fitting: dict[str, Any],
    section: dict[str, Any],
    shape: dict[str, int],
    demo_episodes: int,
    store_root: Path,
    processes: int | None,
    budget: str | None,
) -> dict[str, Any]:
    """The ledger of a study (a YAML file, or a preset) or of demonstrations (a suite, or folders of a store).

    ``section``: what to set in the study's ledger section. Raises ``UserError`` while steps are missing.
    """
    from .study.engine import missing_steps
    from .study.ledger import plan_ledger
    from .study.ledger_reading import read_ledger
    from .study.tokenizer_table import open_demos

    at_least(1, steps=section.get("steps"), tokenizer_steps=fitting.get("steps"))
    check_sigma(section.get("sigma"))
    if is_study(target, preset):
        study = load_study(Path(target[0]) if target else None, preset)
        settings = (study.ledger or Ledger()).model_dump() | section
        study = study.model_copy(update={"ledger": Ledger(**settings)})
        plan: Any = make_plan(study)
        store, folder = Store(store_root), study_folder(study, Store(store_root))
    else:
        at_least(1, **shape)
        if all(Path(d).is_dir() for d in target) and target:
            store, recipes = open_demos([Path(d) for d in target])
            making: list[Step] = []
            name = "-".join(r.key[:8] for r in recipes)
        elif len(target) == 1:
            store, making = Store(store_root), demos_steps(target[0], demo_episodes, Cameras())
            recipes, name = [s.recipe for s in making], re.sub(r"[^a-z0-9]+", "-", target[0])
        else:
            raise UserError("name a study file, --preset, a suite, or folders STORE/demos/KEY that exist")
        books = tuple(codebook(c) for c in codebooks)
        plan = plan_ledger(
            Ledger(**section),
            recipes,
            making,
            encoders,
            tokenizers,
            books,
            Tokenizer(**fitting),
            **shape,
        )
        folder = folder_of(store.root / "ledgers" / name)
    run_all(plan, missing_steps(plan, store), store, folder, processes, budget)
    assert plan.ledger is not None
    found = read_ledger(plan.ledger, store)
    write_json(folder / "ledger.json", found)
    return {**found, "file": str(folder / "ledger.json")}


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
) -> dict[str, Any]:
    """Which stage binds: ``success`` (of a study) and ``bits`` (where there is a ledger), in words and numbers."""
    from .study.engine import missing_steps
    from .study.ledger_reading import read_ledger
    from .study.locate import of_ledger, of_study
    from .study.results import summarise

    if not is_study(target, preset):
        section = {} if sigma is None else {"sigma": sigma}
        shape = {"horizon": 16, "n_obs_steps": 2, "execute": 8}
        ledger = make_ledger(
            target,
            preset,
            encoders,
            tokenizers,
            ("fsq-1000",),
            {},
            section,
            shape,
            100,
            store_root,
            processes,
            budget,
        )
        return {"success": [], "bits": of_ledger(ledger)}
    check_sigma(sigma)
    study, plan, store = open_study(Path(target[0]) if target else None, preset, store_root)
    run_all(plan, missing_steps(plan, store), store, study_folder(study, store), processes, budget)
    bits = [] if plan.ledger is None else of_ledger(read_ledger(plan.ledger, store, sigma))
    return {"success": of_study(summarise(plan, store)), "bits": bits}


def calibrate(
    quick: bool, store_root: Path, processes: int | None, budget: str | None, out: Path
) -> dict[str, Any]:
    """Run the calibration and write its page, ``out``; returns what stands on it."""
    from .report.calibration import write_calibration_page
    from .study.calibrate import plan_calibration, read_calibration
    from .study.engine import missing_steps

    made, store = plan_calibration(quick), Store(store_root)
    begun = time.monotonic()
    run_all(made, missing_steps(made, store), store, study_folder(made.plan.study, store), processes, budget)
    found = {**read_calibration(made, store), "quick": quick, "seconds": time.monotonic() - begun}
    folder_of(out.parent)
    write_calibration_page(found, out)
    write_json(out.with_suffix(".json"), found)
    return found
