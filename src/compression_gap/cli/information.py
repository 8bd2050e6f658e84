"""The verbs that measure bits: ledger, locate, calibrate."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..errors import UserError
from .options import Running, Runs, print_json

if TYPE_CHECKING:
    from ..results.records.bits import Ledger, Located
    from ..store.store import Store
    from ..study.ledger import LedgerPlan
    from ..study.offline import OfflinePlan
    from ..study.plan import Plan

    Measurable = tuple[
        Plan | OfflinePlan | LedgerPlan, Store, Path
    ]  # a graph, its store, the folder of its ledger


@dataclass(frozen=True)
class LedgerOptions:
    """Measure in bits: what the task demands, each encoder supplies, each code keeps, and each policy delivers.

    Example: cgap ledger metaworld/push,pick-place --encoders retina-4 retina-16 oracle --tokenizers fast oat
    """

    target: tyro.conf.Positional[tuple[str, ...]] = ()
    """a study file, a suite, or folders STORE/demos/KEY of demonstrations."""
    preset: str | None = None
    """a preset in place of a study file."""
    encoders: tuple[str, ...] = ("retina-16", "oracle")
    """frozen encoders; blind is always among them (not for a study, which has its own)."""
    tokenizers: tuple[str, ...] = ("fast", "oat")
    """action tokenizers (not for a study)."""
    codebooks: tuple[str, ...] = ("fsq-1000",)
    """FSQ codebooks of quest and oat."""
    sigma: float | None = None
    """resolution in standard deviations; measured in the simulator by default, 0.1 without one."""
    horizon: int = 16
    """steps of a chunk."""
    n_obs_steps: int = 2
    """observation steps that a policy sees."""
    execute: int = 8
    """actions executed per decision where the resolution is measured."""
    steps: int | None = None
    """training steps of the denoiser."""
    prior_steps: int | None = None
    """training steps of each code's prior, which finds the bits that the code uses."""
    tokenizer_steps: int = 1500
    """training steps of tokenizers that have a network."""
    demo_episodes: int = 100
    """demonstrations per task, when a suite is named."""
    store: Path = Path("store")
    """folder of all artefacts, when a suite or a study is named."""
    running: Runs = field(default_factory=Running)
    json: bool = False
    """print the ledger as JSON."""

    @property
    def section(self) -> dict[str, float]:
        """What is set in a study's ledger section."""
        given = {"sigma": self.sigma, "steps": self.steps, "prior_steps": self.prior_steps}
        return {name: value for name, value in given.items() if value is not None}


def ledger(options: LedgerOptions) -> None:
    """Measure, and print the ledger."""
    found = make_ledger(options)
    if options.json:
        print_json(found)
    else:
        from .terminal_bits import ledger_tables

        ledger_tables(found)


def make_ledger(options: LedgerOptions) -> Ledger:
    """The ledger of a study or of demonstrations. Raises ``UserError`` while steps are missing."""
    from ..api.build import build_all
    from ..api.options import at_least, check_sigma
    from ..results.information import read_ledger
    from ..results.records.json import as_json
    from ..store.store import write_json

    o = options
    at_least(1, steps=o.steps, prior_steps=o.prior_steps, tokenizer_steps=o.tokenizer_steps)
    check_sigma(o.sigma)
    plan, store, folder = _of_study(o) if is_study(o.target, o.preset) else _of_demos(o)
    build_all(plan, store, folder, o.running)
    assert plan.ledger is not None
    found = read_ledger(plan.ledger, store)
    write_json(folder / "ledger.json", as_json(found))
    return replace(found, file=str(folder / "ledger.json"))


def _of_study(options: LedgerOptions) -> Measurable:
    """The graph of a study with a ledger, its store, and the folder of what is made."""
    from ..api.study import open_study
    from ..study.file import Ledger as Section
    from ..study.file import load_study

    study = load_study(_file(options.target), options.preset)
    section = Section.model_validate((study.ledger or Section()).model_dump() | options.section)
    opened = open_study(study.model_copy(update={"ledger": section}), options.store)
    return opened.plan, opened.store, opened.folder


def _of_demos(options: LedgerOptions) -> Measurable:
    """The graph of the ledger of demonstrations, their store, and the folder of what is made."""
    from ..api.demos import find_demos
    from ..api.options import at_least, folder_of
    from ..study.file import Cameras, Tokenizer
    from ..study.file import Ledger as Section
    from ..study.ledger import plan_ledger
    from .tokenizers import codebook

    o = options
    at_least(1, horizon=o.horizon, n_obs_steps=o.n_obs_steps, execute=o.execute)
    demos = find_demos(o.target, o.demo_episodes, Cameras(), o.store)
    if demos is None:
        raise UserError("name a study file, --preset, a suite, or folders STORE/demos/KEY that exist")
    plan = plan_ledger(
        Section.model_validate(o.section),
        demos.sets,
        o.encoders,
        o.tokenizers,
        tuple(codebook(c) for c in o.codebooks),
        Tokenizer(steps=o.tokenizer_steps),
        horizon=o.horizon,
        n_obs_steps=o.n_obs_steps,
        execute=o.execute,
    )
    return plan, demos.store, folder_of(demos.store.root / "ledgers" / demos.name)


def is_study(target: tuple[str, ...], preset: str | None) -> bool:
    """Whether a target names a study: a YAML file, or a preset."""
    return preset is not None or (len(target) == 1 and Path(target[0]).suffix in (".yaml", ".yml"))


def _file(target: tuple[str, ...]) -> Path | None:
    return Path(target[0]) if target else None


@dataclass(frozen=True)
class LocateOptions:
    """Say which stage is the bottleneck, what replacing it gains and costs, and what to run next.

    Of a study: from success, and from bits if it has a ledger section. Of demonstrations: from bits alone.

    Example: cgap locate --preset tiny
    """

    target: tyro.conf.Positional[tuple[str, ...]] = ()
    """a study file, a suite, or folders STORE/demos/KEY of demonstrations."""
    preset: str | None = None
    """a preset in place of a study file."""
    encoders: tuple[str, ...] = ("retina-16", "oracle")
    """frozen encoders, for demonstrations."""
    tokenizers: tuple[str, ...] = ("fast", "oat")
    """action tokenizers, for demonstrations."""
    sigma: float | None = None
    """resolution in standard deviations, as in cgap ledger."""
    store: Path = Path("store")
    """folder of all artefacts."""
    running: Runs = field(default_factory=Running)
    json: bool = False
    """print the answers as JSON."""


def locate(options: LocateOptions) -> None:
    """Measure what is missing, and print the answers."""
    found = locate_stages(options)
    if options.json:
        print_json(found)
    else:
        from .terminal_bits import locate_list

        locate_list(found)


def locate_stages(options: LocateOptions) -> Located:
    """Which stage is the bottleneck: ``success`` (of a study) and ``bits`` (where there is a ledger), in words and numbers."""
    from ..api.build import build_all
    from ..api.options import check_sigma
    from ..api.results import summarise_study
    from ..api.study import open_study
    from ..results.information import read_ledger
    from ..results.locate import of_ledger, of_study
    from ..results.records.bits import Located
    from ..study.file import load_study

    o = options
    if not is_study(o.target, o.preset):
        measured = make_ledger(
            LedgerOptions(
                o.target, encoders=o.encoders, tokenizers=o.tokenizers, sigma=o.sigma, store=o.store, running=o.running
            )
        )  # fmt: skip
        return Located(success=[], bits=of_ledger(measured))
    check_sigma(o.sigma)
    opened = open_study(load_study(_file(o.target), o.preset), o.store)
    study, plan, store = opened.study, opened.plan, opened.store
    build_all(plan, store, opened.folder, o.running)
    summary = summarise_study(opened)
    if study.data is not None and plan.ledger is None:
        raise UserError(
            f"the study '{study.name}' learns from recordings, whose success is not known, and has no bits: add a "
            "section 'ledger' to its file"
        )
    bits = summary.ledger
    if plan.ledger is not None and o.sigma is not None:
        bits = read_ledger(plan.ledger, store, o.sigma)
    return Located(success=of_study(summary), bits=[] if bits is None else of_ledger(bits))


@dataclass(frozen=True)
class CalibrateOptions:
    """Hold every instrument to a known truth: estimators, the channel with its dials, verdicts, intervals.

    Example: cgap calibrate --quick
    """

    quick: bool = False
    """fewer and smaller parts, in minutes."""
    out: Path | None = None
    """the page (Markdown); by default calibration.md in the store."""
    store: Path = Path("store")
    """folder of all artefacts."""
    running: Runs = field(default_factory=Running)
    json: bool = False
    """print the figures as JSON."""


def calibrate(options: CalibrateOptions) -> None:
    """Run the calibration, write its page, and print it in short."""
    from ..api.build import build_all
    from ..api.options import folder_of
    from ..api.study import OpenStudy
    from ..report.calibration import write_calibration_page
    from ..results.calibration import read_calibration
    from ..results.records.json import as_json
    from ..store.store import Store, write_json
    from ..study.calibration import plan_calibration

    made, store = plan_calibration(options.quick), Store(options.store)
    begun = time.monotonic()
    build_all(made, store, OpenStudy(made.plan.study, made.plan, store).folder, options.running)
    seconds = time.monotonic() - begun
    found = replace(read_calibration(made, store), quick=options.quick, seconds=seconds)
    page = options.out or options.store / "calibration.md"
    folder_of(page.parent)
    write_calibration_page(found, page)
    write_json(page.with_suffix(".json"), as_json(found))
    if options.json:
        print_json(found)
    else:
        from .terminal_bits import calibration_tables

        calibration_tables(found)
        print(f"page: {page}")
