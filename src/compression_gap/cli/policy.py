"""The verbs on a saved policy: policy export, rollout, serve."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..api.options import PolicyOptions
from ..errors import UserError, counted
from .options import Served, print_json

if TYPE_CHECKING:
    from ..policies import Policy


@dataclass(frozen=True)
class ExportOptions:
    """Write a policy to a folder of its own, with a model card that says how it was trained and measured.

    The success on the card is that of the policy's own episodes in its store, and of its cell in the studies
    there. Tuning states are left out: they are never reported.

    Example: cgap policy export store/policy/KEY my-policy
    """

    policy: tyro.conf.Positional[Path]
    """the policy's folder (``cgap study status --json`` lists those of a study)."""
    out: tyro.conf.Positional[Path]
    """a new folder; it can be loaded, served, or uploaded to the Hugging Face Hub."""
    study: Annotated[Path | None, tyro.conf.arg(metavar="STUDY.yaml")] = None
    """name this study's cell alone, summarised anew."""
    preset: str | None = None
    """a preset in place of a study file; beside one: its scale."""
    json: bool = False
    """print what was written as JSON."""


def export(options: ExportOptions) -> None:
    """Write the folder, and print the success that its card names."""
    from ..api.policies import export_policy
    from ..study.file import load_study

    named = options.study is not None or options.preset is not None
    study = load_study(options.study, options.preset) if named else None
    made = export_policy(options.policy, options.out, study)
    if options.json:
        print_json(asdict(made))
        return
    print(f"{made.folder}: {', '.join(made.files)}")
    for e in made.card.evaluations:
        for task, rate in e.tasks.items():
            value, low, high = (f"{100 * part:.0f}" for part in (rate.value, rate.low, rate.high))
            print(f"{task}: {value} % [{low}, {high}] of {counted(e.episodes, 'episode')}")
    if not made.card.evaluations:
        print("no success rates of this policy are known here; the card says so")
    for error in made.card.errors:
        print(f"held-out chunk error of {error.cell}: {error.value:.3g} standard deviations²")


@dataclass(frozen=True)
class RolloutOptions:
    """Roll out a saved or a served policy, and film its first episode of each task.

    Example: cgap rollout store/policy/KEY --episodes 5 --out videos
    """

    policy: tyro.conf.Positional[tuple[str, ...]]
    """the policy's folder (``cgap study status --json`` lists those of a study), or ws://HOST:PORT where it is served;
    several addresses serve one policy."""
    suite: str | None = None
    """the suite; by default the policy's own simulator and tasks."""
    episodes: int = 5
    """episodes per task."""
    execute: int | None = None
    """actions executed per decision; by default the binding's, or 8."""
    first_initial_state: int | None = None
    """number of the first initial state; by default the evaluation's."""
    out: Path | None = None
    """folder for the MP4 files; none are made without it."""
    preset: str | None = None
    """take the number of episodes from this preset."""
    served: Served = field(default_factory=PolicyOptions)
    json: bool = False
    """print the rows as JSON."""


def rollout(options: RolloutOptions) -> None:
    """Roll out, and print the success a task."""
    from ..api.policies import roll_out
    from ..study.file import load_study

    o = options
    rows, films = roll_out(
        o.policy,
        o.suite,
        episodes=o.episodes if o.preset is None else load_study(None, o.preset).rollout.episodes_per_task,
        execute=o.execute,
        first_initial_state=o.first_initial_state,
        out=o.out,
        options=o.served,
    )
    if o.json:
        print_json({"episodes": rows, "films": [str(film) for film in films]})
        return
    from .terminal import episode_table

    episode_table(rows)
    for film in films:
        print(f"video: {film}")


@dataclass(frozen=True)
class ServeOptions:
    """Answer observations with actions over a websocket, as clients of openpi or vla-eval ask; Ctrl-C stops it.

    Example: cgap serve store/policy/KEY --port 8000
    """

    policy: tyro.conf.Positional[str]
    """a policy's folder, or a Hugging Face Hub id, OWNER/NAME."""
    host: str = "127.0.0.1"
    """address to listen on; by default this machine alone can connect."""
    port: int = 8000
    """port to listen on; 0 takes a free one."""
    max_message_mb: float = 64
    """largest message in MiB; the connection of a larger one is closed."""
    max_total_mb: float = 512
    """all clients' messages that wait for an answer, in MiB; who exceeds it is disconnected."""
    task: str | None = None
    """the task of observations that name none."""
    history: Literal["consecutive", "repeat"] = "consecutive"
    """repeat the newest step, for clients that show only the steps at which they decide."""
    execute: int | None = None
    """actions of each chunk that a vla-eval client executes; by default 8, or all of a shorter chunk."""
    revision: str | None = None
    """branch, tag or commit on the Hub."""
    json: bool = False
    """print address and policy as JSON once clients can connect."""


def serve(options: ServeOptions) -> None:
    """Serve until it is interrupted."""
    from ..policies import Policy
    from ..serving.server import PolicyServer, is_loopback, serve_forever

    o = options
    policy = Policy.from_pretrained(o.policy, revision=o.revision)
    server = PolicyServer(
        policy, host=o.host, port=o.port, max_message_mb=o.max_message_mb, max_total_mb=o.max_total_mb,
        task=o.task, history=o.history, execute=o.execute,
    )  # fmt: skip
    _try_out(policy, o.policy)
    if not is_loopback(server.host):
        print(
            f"cgap: warning: {server.host} can be reached from other machines, and this server knows neither passwords "
            "nor encryption; use it in a network that you trust, or a tunnel to 127.0.0.1",
            file=sys.stderr,
        )

    def ready() -> None:
        about = server.metadata
        if o.json:
            print(json.dumps({"url": server.url, **about}, allow_nan=False), flush=True)
            return
        tasks = ", ".join(policy.spec.tasks)
        print(f"{about['head']} · {about['encoder']} on {about['sim']} ({tasks}) at {server.url}", flush=True)
        print("Ctrl-C stops it", flush=True)

    serve_forever(server, ready)
    print("cgap: stopped", file=sys.stderr)


def _try_out(policy: Policy, name: str) -> None:
    """One decision before clients connect: what fails now would fail at each of them, and the first one waits less."""
    import numpy as np

    try:
        policy.act(policy.example(), np.zeros(1, np.int64))
    except UserError:
        raise
    except Exception as error:  # whatever an encoder or a head of another package may raise
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"the policy {name} cannot act ({words}); train or export it again") from error
