"""The verb that compares policies by their result files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from .options import print_json


@dataclass(frozen=True)
class CompareOptions:
    """Compare policies by their result files, on the episodes that they share, with intervals and exact tests.

    Files: episodes of this program (a folder STORE/episodes/KEY, or what rollout --json prints), diffusion_policy's
    eval_log.json, lerobot's eval_info.json, vla-eval's results, or a CSV with the columns policy, training seed, task,
    initial state, success.

    Example: cgap compare small=runs/a/eval_info.json large=runs/b/eval_info.json
    """

    files: tyro.conf.Positional[tuple[str, ...]]
    """result files, each a path or NAME=PATH; several of one NAME are its training seeds."""
    out: Path | None = None
    """write a page here."""
    json: bool = False
    """print the result as JSON."""


def compare(options: CompareOptions) -> None:
    """Print the sentences and the tables."""
    from ..api.compare import compare as run

    found = run(options.files)
    if options.out is not None:
        from ..api.options import folder_of
        from ..report.compared import write_compared

        folder_of(options.out.parent)
        write_compared(found, options.out)
    if options.json:
        print_json(found)
        return
    from .terminal_compare import compared_tables

    compared_tables(found)
    if options.out is not None:
        print(f"page: {options.out}")
