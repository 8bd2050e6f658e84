"""The verbs that take policies out of the store: policy export, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import counted
from .options import Json, Preset, print_json


def export(
    policy: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    *,
    study: Annotated[Path | None, tyro.conf.arg(metavar="STUDY.yaml")] = None,
    preset: Preset = None,
    json: Json = False,
) -> int:
    """Write a policy to a folder of its own, with a model card that says how it was trained and measured.

    The success on the card is that of the policy's own episodes in its store, and of its cell in the studies
    there. Tuning states are left out: they are never reported.

    Example: cgap policy export store/policy/KEY my-policy

    Args:
        policy: the policy's folder (``cgap study status --json`` lists those of a study).
        out: a new folder; it can be loaded, served, or uploaded to the Hugging Face Hub.
        study: name this study's cell alone, summarised anew.
        preset: a preset in place of a study file; beside one: its scale.
        json: print what was written as JSON.
    """
    from .commands_policies import export_policy

    made = export_policy(policy, out, study, preset)
    if json:
        print_json(made)
    else:
        print(f"{made['folder']}: {', '.join(made['files'])}")
        for e in made["card"]["evaluations"]:
            for task, rate in e["tasks"].items():
                points = [f"{100 * rate[k]:.0f}" for k in ("value", "low", "high")]
                print(
                    f"{task}: {points[0]} % [{points[1]}, {points[2]}] of {counted(e['episodes'], 'episode')}"
                )
        if not made["card"]["evaluations"]:
            print("no success rates of this policy are known here; the card says so")
        for error in made["card"]["errors"]:
            print(f"held-out chunk error of {error['cell']}: {error['value']:.3g} standard deviations²")
    return 0


def serve(
    policy: tyro.conf.Positional[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_message_mb: float = 64,
    max_total_mb: float = 512,
    task: str | None = None,
    history: Literal["consecutive", "repeat"] = "consecutive",
    execute: int | None = None,
    revision: str | None = None,
    json: Json = False,
) -> int:
    """Answer observations with actions over a websocket, as clients of openpi or vla-eval ask; Ctrl-C stops it.

    Example: cgap serve store/policy/KEY --port 8000

    Args:
        policy: a policy's folder, or a Hugging Face Hub id, OWNER/NAME.
        host: address to listen on; by default this machine alone can connect.
        port: port to listen on; 0 takes a free one.
        max_message_mb: largest message in MiB; the connection of a larger one is closed.
        max_total_mb: all clients' messages that wait for an answer, in MiB; who exceeds it is disconnected.
        task: the task of observations that name none.
        history: repeat the newest step, for clients that show only the steps at which they decide.
        execute: actions of each chunk that a vla-eval client executes; by default 8, or all of a shorter chunk.
        revision: branch, tag or commit on the Hub.
        json: print address and policy as JSON once clients can connect.
    """
    from .commands_policies import serve_policy

    serve_policy(
        policy, revision, json, host=host, port=port, max_message_mb=max_message_mb, max_total_mb=max_total_mb,
        task=task, history=history, execute=execute,
    )  # fmt: skip
    return 0
