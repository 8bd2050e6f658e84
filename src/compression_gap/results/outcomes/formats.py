"""The result files that people have, told apart by what they hold.

Layouts are those that the programs write: diffusion_policy's ``eval_log.json`` (real-stanford/diffusion_policy,
``eval.py``), lerobot's ``eval_info.json`` (huggingface/lerobot, ``scripts/lerobot_eval.py``: ``per_episode`` of one
task, ``per_task`` of several), vla-eval 0.8's results (``results/collector.py``), our own rows, and a CSV.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...records import LARGEST, parse_json
from .record import MOST_EPISODES, Episode, PolicyOutcomes, collect, outcome

TEST_SCORE = re.compile(r"test/sim_max_reward_(\d+)")
COLUMNS = {"policy", "training_seed", "task", "initial_state", "repeat", "success"}
NEEDED = ("task", "initial_state", "success")
KNOWN = (
    "episodes of this program, diffusion_policy's eval_log.json, lerobot's eval_info.json, vla-eval's results, or a CSV "
    "with the columns policy, training seed, task, initial state, success"
)


def read_outcomes(path: Path) -> list[PolicyOutcomes]:
    """The policies in a file, or in a folder of a store. Raises ``UserError``, one sentence, for anything else."""
    file = path / "episodes.parquet" if path.is_dir() else path
    if not file.is_file():
        what = "holds no episodes.parquet" if path.is_dir() else "is no file"
        raise UserError(f"{path} {what}; name {KNOWN}")
    if file.suffix == ".parquet":
        return [_own_table(file, path)]
    if file.stat().st_size > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST:,} bytes: no result file is")
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from error
    if file.suffix.lower() == ".csv":
        return _table(text, path)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({' '.join(str(error).split())[:200]}); name {KNOWN}") from error
    for fits, read in _JSON:
        if isinstance(content, dict) and fits(content):
            try:
                return [read(content, path)]
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
                raise UserError(
                    f"{path} looks like {read.__doc__} but lacks or garbles {' '.join(str(error).split())[:80]}"
                ) from error
    raise UserError(f"{path} is in no layout that is known; name {KNOWN}")


def _name(path: Path) -> str:
    """A policy's, where the file has none: the folder of a file that is always called alike."""
    file = path.stem if path.suffix else path.name
    generic = file in ("eval_log", "eval_info", "results", "episodes")
    return path.resolve().parent.name if generic else file


def _own_table(file: Path, path: Path) -> PolicyOutcomes:
    from ...rollouts.run import EPISODE_SCHEMA
    from ...store.columns import read_columns

    try:
        rows = read_columns(file, EPISODE_SCHEMA, MOST_EPISODES).to_pylist()
    except ValueError as error:
        raise UserError(
            f"{path} holds no episodes that can be read ({' '.join(str(error).split())[:200]})"
        ) from error
    try:
        return _own_rows(rows, path, _name(path))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} holds episodes that lack a value; fetch it again") from error


def _own_rows(rows: Sequence[Mapping[str, Any]], path: Path, name: str) -> PolicyOutcomes:
    protocols = {r["protocol"] for r in rows}
    return collect(
        name,
        [
            (
                0,
                Episode(str(r["task"]), int(r["initial_state"]), int(r["repeat"])),
                outcome(r["success"], str(path)),
            )
            for r in rows
        ],
        str(path),
        protocol=protocols.pop() if len(protocols) == 1 else None,
    )


def _own_json(content: Mapping[str, Any], path: Path) -> PolicyOutcomes:
    """what cgap rollout --json prints,"""
    return _own_rows(content["episodes"], path, _name(path))


def _diffusion_policy(content: Mapping[str, Any], path: Path) -> PolicyOutcomes:
    """diffusion_policy's eval_log.json,"""
    rows = [
        (0, Episode("test", int(match[1]), 0), outcome(value, f"{path}, {key}"))
        for key, value in content.items()
        if (match := TEST_SCORE.fullmatch(key))
    ]
    return collect(_name(path), rows, str(path))


def _lerobot(content: Mapping[str, Any], path: Path) -> PolicyOutcomes:
    """lerobot's eval_info.json,"""
    every = content["per_episode"]
    numbered = all(e["seed"] is not None for e in every)
    rows = [
        (
            0,
            Episode("task", int(e["seed"] if numbered else e["episode_ix"]), 0),
            outcome(e["success"], str(path)),
        )
        for e in every
    ]
    return collect(_name(path), rows, str(path), "numbered" if numbered else "by order")


def _lerobot_tasks(content: Mapping[str, Any], path: Path) -> PolicyOutcomes:
    """lerobot's eval_info.json,"""
    rows = [
        (0, Episode(f"{of['task_group']}-{of['task_id']}", i, 0), outcome(value, str(path)))
        for of in content["per_task"]
        for i, value in enumerate(of["metrics"]["successes"])
    ]
    return collect(_name(path), rows, str(path), "by order")


def _vla_eval(content: Mapping[str, Any], path: Path) -> PolicyOutcomes:
    """vla-eval's results,"""
    if content.get("partial"):
        raise UserError(f"{path} is partial, vla-eval says: merge its shards, or let it finish")
    rows = [
        (0, Episode(str(of["task"]), int(e["episode_id"]), 0), outcome(_of_vla_eval(e), str(path)))
        for of in content["tasks"]
        for e in of["episodes"]
    ]
    seed = content.get("seed")
    return collect(_name(path), rows, str(path), protocol=None if seed is None else f"vla-eval's seed {seed}")


def _of_vla_eval(episode: Mapping[str, Any]) -> Any:
    """An episode that ended in an error counts as failed, as vla-eval counts it."""
    return False if episode.get("failure_reason") else episode["metrics"]["success"]


_JSON = (
    (lambda c: any(TEST_SCORE.fullmatch(k) for k in c), _diffusion_policy),
    (lambda c: "per_episode" in c, _lerobot),
    (lambda c: "per_task" in c and "overall" in c, _lerobot_tasks),
    (lambda c: isinstance(c.get("tasks"), list), _vla_eval),
    (lambda c: isinstance(c.get("episodes"), list), _own_json),
)


def _table(text: str, path: Path) -> list[PolicyOutcomes]:
    """A CSV of one or several policies."""
    lines = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return _of_lines(lines, path)
    except csv.Error as error:
        raise UserError(f"{path} line {lines.line_num} is no line of a CSV ({error})") from error


def _of_lines(lines: csv.DictReader[str], path: Path) -> list[PolicyOutcomes]:
    names = {n: re.sub(r"[ -]+", "_", n.strip().lower()) for n in lines.fieldnames or ()}
    missing = [n for n in NEEDED if n not in names.values()]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(n.replace('_', ' ') for n in missing)}; it has {', '.join(names) or 'none'}"
        )
    rows: dict[str, list[tuple[int, Episode, float]]] = {}
    for number, line in _lines(lines, names, path):
        where = f"{path} line {number}"
        episode = Episode(
            line["task"], _whole(line, "initial_state", where), _whole(line, "repeat", where, 0)
        )
        seed = _whole(line, "training_seed", where, 0)
        rows.setdefault(line.get("policy") or _name(path), []).append(
            (seed, episode, outcome(_success(line["success"]), where))
        )
    if not rows:
        raise UserError(f"{path} holds no episode; name a file of a finished evaluation")
    return [collect(name, of, str(path)) for name, of in rows.items()]


def _lines(
    lines: csv.DictReader[str], names: Mapping[str, str], path: Path
) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise UserError(f"{path} line {number} has another number of columns than the first line")
        yield number, {names[n]: v.strip() for n, v in line.items() if names[n] in COLUMNS}


def _whole(line: Mapping[str, str], name: str, where: str, default: int | None = None) -> int:
    value = line.get(name, "")
    if not value and default is not None:
        return default
    try:
        return int(value)
    except ValueError as error:
        raise UserError(
            f"{where}: the {name.replace('_', ' ')} is '{value[:40]}', no whole number"
        ) from error


def _success(text: str) -> Any:
    known = {"true": True, "false": False, "yes": True, "no": False}
    try:
        return known[text.lower()] if text.lower() in known else float(text)
    except ValueError:
        return text
