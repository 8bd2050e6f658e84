"""Kinds of the calibration: estimates and verdicts on what is known ("known", "wide", "verdicts", "coverage")."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..information import channel_truth as channel
from ..information.wide import SHARES, Wide
from ..sims.channel import quantise
from ..statistics.bottleneck import VerdictCounts
from ..statistics.coverage import Quantity, Setting
from ..store.artifact import Artifact, Job

Judged = tuple[str | None, str | None]  # the stage that leads, and the one that a verdict names
DIFFER = 0.05  # single-stage gains that differ by less are a tie
SEED_SPREAD = 0.03


class KnownInformation(Artifact, kind="known", version=3, gpus=0.25):
    """I-MMSE and the probe on one distribution: an 80/10/10 split, and half of the training split."""

    distribution: str
    samples: int
    steps: int

    @property
    def label(self) -> str:
        """Which distribution."""
        return f"known: {self.distribution}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 0.06 * self.steps

    def build(self, job: Job) -> Mapping[str, Any]:
        """Estimate and truth."""
        from ..information.denoising import Denoising
        from ..information.estimate import estimate
        from ..information.gaussian import Part
        from ..information.immse import conditional_rates
        from ..information.known import distributions

        known = next(k for k in distributions() if k.name == self.distribution)
        a, c = known.draw(self.samples, np.random.default_rng(0))
        held = self.samples // 10
        ends = {"train": self.samples - 2 * held, "validation": self.samples - held, "test": self.samples}
        first = {"train": 0, "validation": ends["train"], "test": ends["validation"]}
        values, probe, seeds = {}, np.zeros(0), np.zeros(0)
        how = Denoising(steps=self.steps, batch_size=256)
        for share in SHARES:
            rows = {s: np.arange(first[s], ends[s]) for s in ends}
            rows["train"] = rows["train"][::share]

            def progress(done: int, total: int, share: int = share) -> None:
                job.progress(done + total * SHARES.index(share), len(SHARES) * total)

            rates, _ = conditional_rates(
                {s: a[r] for s, r in rows.items()},
                {"c": Part({s: c[r] for s, r in rows.items()})},
                {"": (), "c": ("c",)},
                rows["train"],
                [known.sigma],
                how if share == 1 else how.shared(share),
                progress=progress,
            )
            values[share] = (rates[""].bits - rates["c"].bits)[:, 0]
            seeds = (rates[""].by_seed - rates["c"].by_seed)[:, 0]
            probe = (rates[""].linear - rates["c"].linear)[:, 0]
        episode = np.arange(held)
        return {
            "truth": known.bits,
            "gaussian": known.gaussian,
            "dimensions": known.dimensions,
            "estimate": asdict(estimate(values, episode, by_seed=seeds, probe=probe)),
            "probe": asdict(estimate({1: probe}, episode)),
        }


class WideInformation(Artifact, kind="wide", version=1, gpus=0.25):
    """Known information among many columns: estimates of one setting's draws.

    Of c alone, of the features, and of the upgrade that is worth nothing.
    """

    setting: Wide
    draws: int
    denoising: Mapping[str, int]

    @property
    def label(self) -> str:
        """Which setting."""
        return f"known: {self.setting.label}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return self.draws * (8 + 0.03 * self.setting.nuisance)

    def build(self, job: Job) -> Mapping[str, Any]:
        """One row of estimates a draw."""
        from ..information.denoising import Denoising
        from ..information.wide import measured

        how, rows = Denoising(**self.denoising), []
        for draw in range(self.draws):
            rows.append({name: asdict(e) for name, e in measured(self.setting, draw, how).items()})
            job.progress(draw + 1, self.draws)
        return {"truth": self.setting.bits, "rows": rows}


class SimulatedVerdicts(Artifact, kind="verdicts", version=1):
    """Verdicts on studies drawn from the truth of nested dials: paired episodes, seeds that differ."""

    dials: tuple[int, ...]
    studies: int
    seeds: tuple[int, ...]
    episodes: int

    @property
    def label(self) -> str:
        """What it is."""
        return "verdicts on simulated studies"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 60.0

    def build(self, job: Job) -> Mapping[str, Any]:
        """Shares of right and wrong names, over all and by the number of seeds."""
        from ..statistics.bottleneck import locate

        rng, rate = np.random.default_rng(0), nested_rates(self.dials)
        pairs = list(itertools.product(self.seeds, self.dials, self.dials))
        strata = np.zeros(self.episodes, int)
        rows: dict[int, list[Judged]] = {seeds: [] for seeds in self.seeds}
        for done, (count, z, t) in enumerate(pairs):
            truth = {"encoder": rate[None, t] - rate[z, t], "code": rate[z, None] - rate[z, t]}
            for _ in range(self.studies):
                luck = rng.random(self.episodes)  # an episode is as hard for one policy as for another

                def outcomes(p: float, luck: np.ndarray = luck, count: int = count) -> np.ndarray:
                    seeds = np.clip(p + SEED_SPREAD * rng.standard_normal((count, 1)), 0, 1)
                    own = rng.random((count, len(luck)))
                    return np.asarray(
                        (np.where(rng.random(own.shape) < 0.5, luck, own) < seeds).astype(float)
                    )

                cell = outcomes(rate[z, t])
                relaxed = {
                    "encoder": (outcomes(rate[None, t]), "replacing the encoder"),
                    "code": (outcomes(rate[z, None]), "replacing the code"),
                }
                verdict = locate(cell, relaxed, outcomes(rate[None, None]), strata, advise=False)
                rows[count].append((leading(truth), verdict.stage))
            job.progress(done + 1, len(pairs))
        several = [row for seeds, found in rows.items() if seeds > 1 for row in found]
        by_seeds = [{"seeds": seeds, **vars(accuracy(found))} for seeds, found in rows.items()]
        return {**vars(accuracy(several)), "by_seeds": by_seeds}


def nested_rates(dials: Sequence[int]) -> dict[tuple[int | None, int | None], float]:
    """Success by bits of Z and T, None for the whole truth: a policy that draws from its posterior."""
    where = channel.goals()
    out = {}
    for z, t in itertools.product((*dials, None), (*dials, None)):
        seen = np.arange(len(where)) if z is None else channel.cells(z, where)
        executed = where if t is None else quantise(where, t)
        out[z, t] = channel.success_sampling(seen, executed)
    return out


def leading(truth: Mapping[str, float]) -> str | None:
    """The stage with the largest true single-stage gain; None if none leads."""
    best = max(truth, key=lambda s: truth[s])
    lead = truth[best] - max([0.0, *(g for s, g in truth.items() if s != best)])
    return best if lead >= DIFFER else None


def accuracy(rows: Sequence[Judged]) -> VerdictCounts:
    """Count the verdicts."""
    lead, tie = [(e, stage) for e, stage in rows if e], [stage for e, stage in rows if not e]
    right = sum(stage == expected for expected, stage in lead)
    wrong = sum(stage not in (None, expected) for expected, stage in lead)
    return VerdictCounts(
        cells=len(lead),
        right=right,
        wrong=wrong,
        unresolved=len(lead) - right - wrong,
        accuracy=right / len(lead) if lead else None,
        ties=len(tie),
        named_in_ties=sum(stage is not None for stage in tie),
    )


class Coverage(Artifact, kind="coverage", version=1):
    """One setting's share of intervals that hold the truth, over simulated ``studies``."""

    quantity: Quantity
    setting: Setting
    studies: int

    @property
    def label(self) -> str:
        """Of which quantity, where."""
        return f"coverage of the {self.quantity}, {self.setting}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 0.02 * self.studies

    def build(self, job: Job) -> Mapping[str, Any]:
        """Simulate and count."""
        from ..statistics.coverage import coverage

        return asdict(coverage(self.quantity, self.setting, self.studies, progress=job.progress))


class GrowingStudies(Artifact, kind="growing", version=1):
    """Simulated studies that grow by seeds, of one setting and true gain (points); ``fixed_designs`` beside them."""

    setting: Setting
    gain: float
    studies: int
    fixed_designs: bool

    @property
    def label(self) -> str:
        """Of which gain, where."""
        return f"studies that grow by seeds, a gain of {self.gain:g} points, {self.setting}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return (0.02 + 0.02 * self.fixed_designs) * self.studies * self.setting.seeds

    def build(self, job: Job) -> Mapping[str, Any]:
        """Simulate and count."""
        from ..statistics.growing import grow

        found = grow(
            self.setting, self.gain, self.studies, fixed_designs=self.fixed_designs, progress=job.progress
        )
        return {**asdict(found), "fixed": [[seeds, share] for seeds, share in found.fixed.items()]}
