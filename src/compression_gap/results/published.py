"""What the published tables show by themselves: contrasts with binomial errors, and the seed spread they bear.

The tables hold one run per cell, so the errors are those of the rollouts alone, counted as independent between
cells. Every number is in points (percent of episodes).
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from ..sims import EvaluationProtocol
from ..statistics.distributions import normal_quantile, normal_tail
from ..statistics.intervals import holm, peak_optimism, wilson
from ..study.file import Study
from .records.cells import Cell as OwnCell
from .records.cells import Success
from .records.comparisons import OwnRate, Published, PublishedContrast, PublishedRow, Setting

ALPHA = 0.05
Cell = tuple[str, str, str]  # head, size, encoder
Tables = Mapping[str, Any]  # the published tables, as the file holds them


@cache
def _published_text() -> str:
    return (files("compression_gap") / "presets" / "published.json").read_text(encoding="utf-8")


def published() -> Tables:
    """The published tables with their source and protocol."""
    tables: Tables = json.loads(_published_text())
    return tables


def _rates(tables: Tables) -> dict[Cell, float]:
    """Every published cell once."""
    cells: dict[Cell, float] = {}
    for row in tables["factorial"] + tables["codebook"]:
        for encoder in ("resnet18", "siglip"):
            cells[row["head"], row["size"], encoder] = row[encoder]
    for row in tables["encoder_gradient"]:
        for head in ("diffusion", "oat-1000"):
            cells[head, row["size"], row["encoder"]] = row[head]
    return cells


def _terms(tables: Tables) -> dict[str, list[tuple[float, Cell]]]:
    """The contrasts, each as weighted cells; none occurs twice, since Holm counts them."""
    out: dict[str, list[tuple[float, Cell]]] = {}

    def gain(
        head: str, size: str, worse: str = "resnet18", better: str = "siglip"
    ) -> list[tuple[float, Cell]]:
        return [(1.0, (head, size, better)), (-1.0, (head, size, worse))]

    def minus(a: list[tuple[float, Cell]], b: list[tuple[float, Cell]]) -> list[tuple[float, Cell]]:
        return a + [(-w, cell) for w, cell in b]

    for row in tables["factorial"]:
        out[f"delta_enc/{row['head']}/{row['size']}"] = gain(row["head"], row["size"])
    for row in tables["codebook"][1:]:
        out[f"delta_enc/{row['head']}/{row['size']}"] = gain(row["head"], row["size"])
    for size in ("M", "L"):
        out[f"interaction/{size}"] = minus(gain("diffusion", size), gain("oat-1000", size))
    for row in tables["codebook"][1:]:
        out[f"interaction/M/{row['head']}"] = minus(gain("diffusion", "M"), gain(row["head"], "M"))
    for first, second in combinations([row["head"] for row in tables["codebook"]], 2):
        for encoder in ("resnet18", "siglip"):
            pair = [(1.0, (second, "M", encoder)), (-1.0, (first, "M", encoder))]
            out[f"codebook/{first}>{second}/{encoder}"] = pair
        out[f"codebook/{first}>{second}/delta_enc"] = minus(gain(second, "M"), gain(first, "M"))
    encoders = [row["encoder"] for row in tables["encoder_gradient"]]
    for head in ("diffusion", "oat-1000"):
        for worse, better in combinations(encoders, 2):
            if (worse, better) != ("resnet18", "siglip"):  # that one is delta_enc
                out[f"encoder/{head}/{worse}>{better}"] = gain(head, "M", worse, better)
    return out


WORDS = {
    "resnet18": "ResNet-18",
    "siglip": "SigLIP",
    "siglip2": "SigLIP 2",
    "dinov2": "DINOv2",
    "diffusion": "Diffusion Policy",
}


def _words(word: str) -> str:
    return WORDS.get(word, word.replace("oat-", "OAT-"))


def _label(name: str) -> str:
    """A contrast in words: what is subtracted from what, then where."""
    kind, *at = name.split("/")
    if kind == "delta_enc":
        return f"SigLIP − ResNet-18, {_words(at[0])} {at[1]}"
    if kind == "interaction":
        return f"gain of SigLIP, Diffusion Policy − {_words((*at, 'oat-1000')[1])}, {at[0]}"
    worse, better = at[1 if kind == "encoder" else 0].split(">")
    pair = f"{_words(better)} − {_words(worse)}"
    if kind == "encoder":
        return f"{pair}, {_words(at[0])} M"
    return f"gain of SigLIP, {pair}, M" if at[1] == "delta_enc" else f"{pair}, {_words(at[1])} M"


def _claimed(name: str, tables: Tables) -> bool:
    """Whether the paper itself makes this comparison.

    Its three lines of evidence: the gain of SigLIP by head and size with the interaction of the two heads, the gain
    by codebook, and the steps of the encoder gradient.
    """
    if name.startswith("delta_enc/") or name in ("interaction/M", "interaction/L"):
        return True
    encoders = [row["encoder"] for row in tables["encoder_gradient"]]
    steps = {f"{worse}>{better}" for worse, better in pairwise(encoders)}
    return name.startswith("encoder/") and name.split("/")[2] in steps


def _adjusted(difference: np.ndarray, variance: np.ndarray) -> list[float]:
    return holm((2 * normal_tail(np.abs(difference) / np.sqrt(variance))).tolist())


def _largest_seed_sd(index: int, difference: np.ndarray, variance: np.ndarray, squares: np.ndarray) -> float:
    """The spread between seeds, the same in every cell, at which a contrast's Holm-adjusted p reaches ALPHA."""
    if _adjusted(difference, variance)[index] >= ALPHA:
        return 0.0
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        if _adjusted(difference, variance + squares * middle**2)[index] < ALPHA:
            low = middle
        else:
            high = middle
    return low


def _values(
    rates: dict[Cell, float], terms: Sequence[tuple[float, Cell]], n: int
) -> tuple[float, float, float]:
    difference = sum(w * rates[cell] for w, cell in terms)
    variance = sum(w * w * rates[cell] * (100.0 - rates[cell]) / n for w, cell in terms)
    return difference, variance, sum(w * w for w, _ in terms)


def published_contrasts() -> list[PublishedContrast]:
    """The published differences in points, with 95 % binomial intervals.

    ``claim`` says that the paper makes the comparison; the others are exploratory, and their p is not adjusted.
    ``p_holm`` is adjusted over the claims; ``stands`` says that it is below 0.05 with the rollouts' errors alone.
    ``max_seed_sd`` is the standard deviation over seeds of one run's success, equal in all cells, at which it no
    longer stands (0 where it does not stand anyway). All three are None where the comparison is exploratory.
    ``peak_optimism`` is the largest expected gain of a cell from reporting the best of its evaluations.
    """
    tables = published()
    rates = _rates(tables)
    contrasts = _terms(tables)
    n, evaluations = int(tables["n"]), int(tables["evaluations"])
    rows = np.array([_values(rates, terms, n) for terms in contrasts.values()])
    difference, variance, squares = rows.T
    p = 2 * normal_tail(np.abs(difference) / np.sqrt(variance))
    claims = [i for i, name in enumerate(contrasts) if _claimed(name, tables)]
    adjusted = dict(zip(claims, holm(p[claims].tolist()), strict=True))
    z = normal_quantile(0.975)
    out = []
    for i, (name, terms) in enumerate(contrasts.items()):
        half = z * float(np.sqrt(variance[i]))
        optimism = max(100 * peak_optimism(n, evaluations, rates[cell] / 100) for _, cell in terms)
        out.append(
            PublishedContrast(
                name=name,
                label=_label(name),
                claim=i in adjusted,
                difference=float(difference[i]),
                low=float(difference[i]) - half,
                high=float(difference[i]) + half,
                p=float(p[i]),
                p_holm=adjusted.get(i),
                stands=adjusted[i] < ALPHA if i in adjusted else None,
                max_seed_sd=_largest_seed_sd(
                    claims.index(i), difference[claims], variance[claims], squares[claims]
                )
                if i in adjusted
                else None,
                peak_optimism=optimism,
                n=n,
                protocol=tables["protocol"],
            )
        )
    return out


# What the study file calls the published encoders: SigLIP and SigLIP 2 so400m (1152-d), DINOv2 ViT-L/14 (1024-d).
OWN_ENCODERS = {
    "resnet18": "resnet18",
    "siglip": "siglip-so400m",
    "siglip2": "siglip2-so400m",
    "dinov2": "dinov2-l",
}


def experiment_cells(name: str) -> list[Cell]:
    """The cells of one published experiment (a word of the study file's key ``published``), in its order."""
    tables = published()
    if name == "encoder-gradient":
        rows = tables["encoder_gradient"]
        return [(head, r["size"], r["encoder"]) for head in ("diffusion", "oat-1000") for r in rows]
    rows = tables[{"factorial": "factorial", "codebook-size": "codebook"}[name]]
    return [(r["head"], r["size"], encoder) for r in rows for encoder in ("resnet18", "siglip")]


def _is(cell: OwnCell[Success], head: str, size: str, encoder: str) -> bool:
    """Whether a summary's cell is the one that was published; the matched-head ablation's are not."""
    if (cell.size, cell.encoder) != (size, OWN_ENCODERS[encoder]):
        return False
    if (cell.trained_on, cell.executed) != ("chunk", "chunk"):
        return False
    if head == "diffusion":
        return cell.action == "diffusion"
    codes = {int(np.prod(levels)) for levels in cell.code.codebook or ()}
    return cell.action == "oat" and codes == {int(head.removeprefix("oat-"))}


def published_beside(
    study: Study, protocol: EvaluationProtocol, cells: Sequence[OwnCell[Success]]
) -> Published | None:
    """The published table of the study's experiment beside the study's own cells; None if it names none.

    Never pooled: the published rates carry Wilson's interval for the episodes they rest on, and ``settings`` says
    where the two protocols differ.
    """
    if study.published is None:
        return None
    tables = published()
    n, rates = int(tables["n"]), _rates(tables)
    own_settings = _own_settings(study, protocol)
    return Published(
        experiment=study.published,
        mark=f"published (arXiv {tables['arxiv']})",
        protocol=tables["protocol"],
        n=n,
        rows=[
            PublishedRow(
                head=head,
                size=size,
                encoder=OWN_ENCODERS[encoder],
                published=wilson(rates[head, size, encoder] * n / 100, n),
                own=[
                    OwnRate(
                        label=c.label, seeds=len(c.seeds), episodes=c.outcome.episodes, rate=c.outcome.rate
                    )
                    for c in cells
                    if c.outcome.rate is not None and _is(c, head, size, encoder)
                ],
            )
            for head, size, encoder in experiment_cells(study.published)
        ],
        settings=[
            Setting(
                what=what,
                published=entry["value"],
                source=entry["source"],
                own=own_settings[what],
                same=own_settings[what] == entry["value"],
            )
            for what, entry in tables["settings"].items()
        ],
    )


def _own_settings(study: Study, protocol: EvaluationProtocol) -> dict[str, str]:
    """The study's values of the published settings, in the same words where they are the same."""
    rollout, factors = study.rollout, study.factors
    best = f"the best of {rollout.checkpoints} evaluations" if rollout.select == "peak" else "the last"
    crops = {"resnet-only": "resnet18 alone", "all": "the same for every encoder", "none": "none"}
    return {
        "tasks": "LIBERO-10" if study.suite == "libero/libero_10" else str(study.suite),
        "checkpoint": best,
        "training seeds": str(len(factors.seed)),
        "episodes of a cell": str(len(protocol.episodes())),
        "chunk": f"{study.policy.horizon} steps predicted, {protocol.execute} executed",
        "step limit": str(protocol.step_limit),
        "episodes begin": str(protocol.settings.get("name", protocol.sim.sim)),
        "crop": crops[study.cameras.crop],
        "attention of the diffusion head": study.policy.attention,
        "target tokens": study.tokenizer.mode,
        "task enters as": ", ".join(factors.task),
        "training": f"{study.training.steps} steps",
    }
