"""The verb that compares action tokenizers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ..errors import UserError
from .options import Running, Runs, print_json

if TYPE_CHECKING:
    from ..results.records.tokenizers import TokenizerTable
    from ..study.tokenizer_table import TableSpec
    from ..tokenizers.levels import Levels


@dataclass(frozen=True)
class TokenizersOptions:
    """Compare action tokenizers on a set of demonstrations: bits, distortion, health, success; and draw it.

    Example: cgap tokenizers metaworld/push,pick-place --tokenizers bins fast oat
    """

    demos: tyro.conf.Positional[tuple[str, ...]]
    """a suite, or folders STORE/demos/KEY of demonstrations."""
    tokenizers: tuple[str, ...] = ("bins", "fast", "rvq", "quest", "oat")
    """bins, bins-quantile, fast, rvq, quest, oat, oat-unordered."""
    codebooks: tuple[str, ...] = ("fsq-1000",)
    """FSQ codebooks of quest and oat: fsq-240 to fsq-64000, or levels as 8,5,5,5."""
    seeds: tuple[int, ...] = (0,)
    """seeds of the tokenizers that are trained."""
    horizon: int = 16
    """steps of a chunk."""
    execute: int = 8
    """actions executed per decision in rollouts."""
    tokens: int = 8
    """tokens a chunk of quest and oat."""
    size: Literal["xs", "S", "M"] = "xs"
    """network of quest, oat and rvq: xs, S or M (published)."""
    steps: int = 1500
    """training steps of quest, oat and rvq."""
    batch_size: int = 128
    """chunks per training step."""
    sigma: float = 0.1
    """resolution of "within σ", in standard deviations."""
    demo_episodes: int = 100
    """demonstrations per task, when a suite is named."""
    episodes: int = 20
    """rollouts of the coded expert per task; 0 for none."""
    prior_steps: int = 500
    """training steps of the prior that measures used bits."""
    preset: str | None = None
    """take demonstrations, tokenizer section and rollouts per task from this preset."""
    out: Path | None = None
    """the page; by default in the store, under tokenizer-tables/."""
    store: Path = Path("store")
    """folder of all artefacts, when a suite is named."""
    running: Runs = field(default_factory=Running)
    json: bool = False
    """print the table as JSON."""


def tokenizers(options: TokenizersOptions) -> None:
    """Fit, measure, and print the table."""
    path, found = compare(options)
    if options.json:
        print_json(found)
    else:
        from .terminal import tokenizer_tables

        tokenizer_tables(found)
        print(f"page: {path}")


def compare(options: TokenizersOptions) -> tuple[Path, TokenizerTable]:
    """Fit and measure tokenizers on demonstrations; the page, and what stands on it."""
    from ..api.build import build_all
    from ..api.demos import find_demos
    from ..api.options import folder_of
    from ..report.tokenizers import write_tokenizer_page
    from ..results.records.json import as_json
    from ..results.tokenizer_table import read_table
    from ..store.store import write_json
    from ..study.file import Cameras, load_study
    from ..study.tokenizer_table import plan_table

    spec, episodes, cameras = _spec(options), options.demo_episodes, Cameras()
    if options.preset is not None:
        at = load_study(None, options.preset)
        episodes, cameras = max(at.factors.demos), at.cameras
        spec = replace(spec, section=at.tokenizer, episodes=at.rollout.episodes_per_task)
    demos = find_demos(options.demos, episodes, cameras, options.store)
    if demos is None:
        raise UserError(f"{', '.join(options.demos)}: name one suite, or folders STORE/demos/KEY that exist")
    plan = plan_table(spec, demos.sets)
    folder = folder_of(demos.store.root / "tokenizer-tables" / demos.name)
    build_all(plan, demos.store, folder, options.running)
    found = read_table(plan, demos.store, demos.suite)
    path = options.out or folder / "tokenizers.html"
    folder_of(path.parent)
    write_tokenizer_page(found, path)
    write_json(folder / "tokenizers.json", as_json(found))
    return path, found


def _spec(options: TokenizersOptions) -> TableSpec:
    """What is compared, and how."""
    from ..api.options import at_least, check_sigma
    from ..study.file import Tokenizer
    from ..study.tokenizer_table import TableSpec

    o = options
    codebooks = tuple(codebook(c) for c in o.codebooks)
    at_least(1, tokens=o.tokens, steps=o.steps, batch_size=o.batch_size)
    at_least(1, horizon=o.horizon, execute=o.execute, prior_steps=o.prior_steps)
    at_least(0, episodes=o.episodes)
    check_sigma(o.sigma)
    section = {"tokens": o.tokens, "size": o.size, "steps": o.steps, "batch_size": o.batch_size}
    return TableSpec(
        tokenizers=o.tokenizers,
        codebooks=codebooks,
        seeds=o.seeds,
        section=Tokenizer.model_validate(section),
        horizon=o.horizon,
        execute=o.execute,
        sigma=o.sigma,
        prior_steps=o.prior_steps,
        episodes=o.episodes,
    )


def codebook(text: str) -> Levels:
    """``fsq-1000`` or ``8,5,5,5`` → levels."""
    from ..tokenizers.levels import as_levels

    if re.fullmatch(r"\d+(,\d+)*", text):
        return as_levels([int(n) for n in text.split(",")])
    return as_levels(text)
