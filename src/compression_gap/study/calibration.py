"""Calibration: every instrument against a known truth (docs/theory.md), as a plan of its own.

Estimators alone on distributions with known information; the channel with its dials, with fitted tokenizers and
trained policies, through the same study, ledger and verdicts as anyone's; verdicts on simulated studies of the
channel's whole grid of dials; and the coverage of success intervals. All of it resumes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..artifacts.calibration import (
    Coverage,
    GrowingStudies,
    KnownInformation,
    SimulatedVerdicts,
    WideInformation,
)
from ..information.known import distributions
from ..information.wide import SPECTRA, Wide
from ..statistics.coverage import Quantity, Setting, settings
from ..store.artifact import Artifact
from ..store.graph import Graph
from .file import load_study
from .plan import Plan, make_plan

DRAWS = 8  # of each setting of known information among many columns
WIDE_DENOISING = {"steps": 100, "seeds": 2, "batch_size": 256, "width": 128, "neighbours": 1024}
DIALS = (1, 2, 3, 4, 5)  # bits a dimension, of the encoder and of the code in simulated studies
SAMPLES = {True: (8_000, 300), False: (12_000, 600)}  # of each distribution, and training steps
# simulated: for verdicts (at each pair of dials and number of seeds), for coverage
STUDIES = {True: (2, 200), False: (20, 1000)}
QUANTITIES: tuple[Quantity, ...] = ("rate", "delta", "interaction", "log odds", "waterfall")
SEEDS = (1, 2, 3, 5)  # of simulated studies
# true ones, of studies that grow by seeds; fixed designs are powered for the first
GAINS = (10.0, 20.0, 40.0, 0.0)
GROWING = {True: 60, False: 600}  # of them
EPISODES = 400  # of each policy in a simulated study


@dataclass(kw_only=True)
class Calibration(Graph):
    """The steps of the study, and those of the other parts."""

    plan: Plan
    known: list[KnownInformation] = field(default_factory=list)
    wide: list[WideInformation] = field(default_factory=list)
    verdicts: SimulatedVerdicts
    coverage: list[Coverage] = field(default_factory=list)
    growing: list[GrowingStudies] = field(default_factory=list)

    @property
    def wanted(self) -> list[Artifact]:
        """What the page reads."""
        return [*self.plan.wanted, *self.known, *self.wide, *self.coverage, *self.growing, self.verdicts]


def plan_calibration(quick: bool) -> Calibration:
    """All steps; ``quick``: fewer of them, smaller."""
    plan = make_plan(load_study(None, "calibration-quick" if quick else "calibration"))
    studies, covered = STUDIES[quick]
    verdicts = SimulatedVerdicts(dials=DIALS, studies=studies, seeds=SEEDS, episodes=EPISODES)
    made = Calibration(plan=plan, steps=plan.steps, verdicts=verdicts)
    samples, steps = SAMPLES[quick]
    for known in distributions(quick):
        made.known.append(made.add(KnownInformation(distribution=known.name, samples=samples, steps=steps)))
    for setting, draws in wide_settings(quick):
        # Linear regression finds what is linear.
        how = {**WIDE_DENOISING, "reduction_steps": 400 if setting.nonlinear else 100}
        made.wide.append(made.add(WideInformation(setting=setting, draws=draws, denoising=how)))
    made.add(verdicts)
    for quantity in QUANTITIES:
        for of in settings(quantity, quick):
            made.coverage.append(made.add(Coverage(quantity=quantity, setting=of, studies=covered)))
    for of in growing_settings(quick):
        for gain in GAINS:
            one = GrowingStudies(
                setting=of, gain=gain, studies=GROWING[quick], fixed_designs=gain == GAINS[0]
            )
            made.growing.append(made.add(one))
    return made


def growing_settings(quick: bool) -> list[Setting]:
    """Studies that grow by seeds: the most that they may have, and how these spread."""
    seeds = [(16, 4.0)] if quick else [(12, 2.0), (16, 4.0), (24, 4.0)]
    return [Setting(most, 100, seed_sd=spread, rate=45.0) for most, spread in seeds]


def wide_settings(quick: bool) -> list[tuple[Wide, int]]:
    """Known information among many columns, and how many draws of each."""
    if quick:
        return [(Wide(253, "power law"), 1), (Wide(253, "white", 30), 1)]
    settings = [Wide(0), Wide(0, episodes=30)]
    settings += [
        Wide(nuisance, spectrum, episodes)
        for nuisance in (61, 253, 765)
        for spectrum in SPECTRA
        for episodes in (200, 30)
    ]
    return [(s, DRAWS) for s in settings] + [(Wide(n, nonlinear=True), 5) for n in (0, 20, 100)]
