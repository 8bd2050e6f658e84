"""The command line: one short function per verb. Heavy libraries are imported where a verb needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import tyro
from tyro.extras import SubcommandApp

from .. import __version__
from ..errors import UserError, counted
from ..store.store import disk_error
from .demos import demos_export, demos_import
from .information import calibrate, ledger, locate
from .options import Json, Preset, StorePath, StudyFile, print_json
from .policy import export, serve

DESCRIPTION = "Which stage of a robot policy binds: the encoder, the policy or the action code, in success points and bits."

app = SubcommandApp()
study_app = SubcommandApp()
demos_app = SubcommandApp()
policy_app = SubcommandApp()


@app.command(name="doctor")
def doctor(*, store: StorePath = Path("store"), json: Json = False) -> int:
    """Check Python, torch, rendering, cores, memory and disk, and say what to do.

    Example: cgap doctor
    """
    from .doctor import checks

    found = checks(store)
    if json:
        print_json({"ok": all(c.ok for c in found), "checks": [vars(c) for c in found]})
    else:
        from .terminal import doctor_table

        doctor_table(found)
    return 0 if all(c.ok for c in found) else 2


@app.command(name="published")
def published(*, json: Json = False) -> int:
    """Re-analyse the paper's tables: which of the published contrasts stand, with intervals.

    Example: cgap published
    """
    from ..results.published import published_contrasts

    contrasts = published_contrasts()
    if json:
        print_json({"contrasts": contrasts})
    else:
        from .terminal import published_table

        published_table(contrasts)
    return 0


@app.command(name="power")
def power(
    difference: tyro.conf.Positional[float],
    *,
    rate: float = 50.0,
    seed_sd: float = 4.0,
    pairing: float = 0.3,
    tasks: int = 1,
    json: Json = False,
) -> int:
    """How many episodes and seeds find a difference of so many points (power of 80 % or more).

    Example: cgap power 10 --rate 50 --seed-sd 4

    Args:
        difference: the difference of two success rates, in points.
        rate: success of the weaker cell, in percent.
        seed_sd: standard deviation between training seeds, in points.
        pairing: correlation of two policies' outcomes on one initial state.
        tasks: tasks that the episodes are divided among.
        json: print the result as JSON.
    """
    from ..statistics.power import table

    rows = table(difference, rate, seed_sd, pairing, tasks=tasks)
    if json:
        print_json({"difference": difference, "designs": rows})
    else:
        from .terminal import power_table

        power_table(difference, rows)
    return 0


@demos_app.command(name="make")
def demos_make(
    suite: tyro.conf.Positional[str],
    *,
    episodes: int = 100,
    cameras: tuple[str, ...] = (),
    image_size: int = 84,
    store: StorePath = Path("store"),
    processes: int | None = None,
    preset: Preset = None,
    official: Path | None = None,
    json: Json = False,
) -> int:
    """Collect demonstrations of every task of a suite: from its scripted expert, or from LIBERO's own files.

    Example: cgap demos make metaworld/precision-4 --episodes 100

    Args:
        suite: metaworld/precision-4, metaworld/8, a single task such as metaworld/push, or channel.
        episodes: successful episodes per task.
        cameras: camera names; none takes the simulator's default camera.
        image_size: pixels, square.
        store: folder of all artefacts.
        processes: worker processes; as many as cores by default.
        preset: take the number of episodes and the cameras from this preset.
        official: folder with LIBERO's official HDF5 files, whose images are rendered again.
        json: print the result as JSON.
    """
    if official is not None:
        from .commands_data import make_official

        made = make_official(suite, official, episodes, cameras, image_size, store, processes)
    else:
        from .commands import make_demos

        made = make_demos(suite, episodes, cameras, image_size, store, processes, preset)
    if json:
        print_json({"demos": made})
    else:
        for one in made:
            size = f"{counted(one['episodes'], 'episode')}, {counted(one['frames'], 'frame')}"
            print(f"{one['task']}: {size}, {one['folder']}")
    return 0


demos_app.command(name="import")(demos_import)
demos_app.command(name="export")(demos_export)


@app.command(name="tokenizers")
def tokenizers(
    demos: tyro.conf.Positional[tuple[str, ...]],
    *,
    tokenizers: tuple[str, ...] = ("bins", "fast", "rvq", "quest", "oat"),
    codebooks: tuple[str, ...] = ("fsq-1000",),
    seeds: tuple[int, ...] = (0,),
    horizon: int = 16,
    execute: int = 8,
    tokens: int = 8,
    size: Literal["xs", "S", "M"] = "xs",
    steps: int = 1500,
    batch_size: int = 128,
    sigma: float = 0.1,
    demo_episodes: int = 100,
    episodes: int = 20,
    prior_steps: int = 500,
    preset: Preset = None,
    out: Path | None = None,
    store: StorePath = Path("store"),
    budget: str | None = None,
    processes: int | None = None,
    json: Json = False,
) -> int:
    """Compare action tokenizers on a set of demonstrations: bits, distortion, health, success; and draw it.

    Example: cgap tokenizers metaworld/push,pick-place --tokenizers bins fast oat

    Args:
        demos: a suite, or folders STORE/demos/KEY of demonstrations.
        tokenizers: bins, bins-quantile, fast, rvq, quest, oat, oat-unordered.
        codebooks: FSQ codebooks of quest and oat: fsq-240 to fsq-64000, or levels as 8,5,5,5.
        seeds: seeds of the tokenizers that are trained.
        horizon: steps of a chunk.
        execute: actions executed per decision in rollouts.
        tokens: tokens a chunk of quest and oat.
        size: network of quest, oat and rvq: xs, S or M (published).
        steps: training steps of quest, oat and rvq.
        batch_size: chunks per training step.
        sigma: resolution of "within σ", in standard deviations.
        demo_episodes: demonstrations per task, when a suite is named.
        episodes: rollouts of the coded expert per task; 0 for none.
        prior_steps: training steps of the prior that measures used bits.
        preset: take demonstrations, tokenizer section and rollouts per task from this preset.
        out: the page; by default in the store, under tokenizer-tables/.
        store: folder of all artefacts, when a suite is named.
        budget: stop cleanly after this time, as in 90s, 9m or 2h.
        processes: worker processes; as many as cores by default, 0 for this process alone.
        json: print the table as JSON.
    """
    from ..study.tokenizer_table import TableSpec
    from .commands import codebook, compare_tokenizers, tokenizer_section

    spec = TableSpec(
        tokenizers=tokenizers,
        codebooks=tuple(codebook(c) for c in codebooks),
        seeds=seeds,
        section=tokenizer_section(tokens=tokens, size=size, steps=steps, batch_size=batch_size),
        horizon=horizon,
        execute=execute,
        sigma=sigma,
        prior_steps=prior_steps,
        episodes=episodes,
    )
    path, found = compare_tokenizers(demos, spec, demo_episodes, preset, store, processes, budget, out)
    if json:
        print_json(found)
    else:
        from .terminal import tokenizer_tables

        tokenizer_tables(found)
        print(f"page: {path}")
    return 0


for verb in (ledger, locate, calibrate, serve):
    app.command(name=verb.__name__)(verb)


@study_app.command(name="plan")
def study_plan(
    file: StudyFile = None,
    *,
    preset: Preset = None,
    store: StorePath = Path("store"),
    measure: bool = False,
    json: Json = False,
) -> int:
    """Show what a study would build, what of it is there already, and what it would cost.

    Example: cgap study plan --preset demo

    Args:
        file: a study file.
        preset: a study that ships with the program; beside a file: its scale.
        store: folder of all artefacts.
        measure: run a few training steps of each policy on this machine first (minutes); the store keeps them.
        json: print the result as JSON.
    """
    from .commands import describe_plan

    plan = describe_plan(file, preset, store, measure=measure)
    if json:
        print_json(plan)
    else:
        from .terminal_plan import plan_table

        plan_table(plan)
    return 0


@study_app.command(name="run")
def study_run(
    file: StudyFile = None,
    *,
    preset: Preset = None,
    store: StorePath = Path("store"),
    budget: str | None = None,
    processes: int | None = None,
    retry: bool = False,
    report: bool = True,
    json: Json = False,
) -> int:
    """Run a study: build what is missing, then write the report. The same command goes on where it stopped.

    Example: cgap study run --preset tiny

    Args:
        file: the study file.
        preset: a study that ships with the program; beside a file: its scale.
        store: folder of all artefacts.
        budget: stop cleanly after this time, as in 90s, 9m or 2h.
        processes: worker processes; as many as cores by default, 0 for this process alone.
        retry: try cells again whose training diverged.
        report: write the report at the end.
        json: print the summary as JSON.
    """
    from .commands import run_study

    return run_study(file, preset, store, budget, processes, retry, report, json)


@study_app.command(name="status")
def study_status(
    file: StudyFile = None, *, preset: Preset = None, store: StorePath = Path("store"), json: Json = False
) -> int:
    """Say how far a study is: steps done, missing, failed.

    Example: cgap study status --preset demo
    """
    from .commands import status

    state = status(file, preset, store)
    if json:
        print_json(state)
    else:
        print(
            f"{state['study']}: {state['done']} of {counted(state['steps'], 'step')} done, {len(state['failed'])} failed"
        )
        for failure in state["failed"]:
            print(f"  failed: {failure['step']}: {failure['sentence']}")
    return 0


@app.command(name="report")
def report(
    file: StudyFile = None,
    *,
    preset: Preset = None,
    store: StorePath = Path("store"),
    out: Path | None = None,
    videos: int = 2,
    json: Json = False,
) -> int:
    """Write the one-page HTML report of what a study has measured so far.

    Example: cgap report --preset demo --out report.html

    Args:
        file: the study file.
        preset: a study that ships with the program; beside a file: its scale.
        store: folder of all artefacts.
        out: the page; by default in the store, under studies/.
        videos: cells whose rollouts are filmed (one success, one failure each); 0 for none.
        json: print the summary as JSON.
    """
    from .commands import write_report

    path, summary = write_report(file, preset, store, out, videos)
    if json:
        print_json(summary)
    else:
        from .terminal import study_tables

        study_tables(summary)
        print(f"report: {path}")
    return 0


@app.command(name="rollout")
def rollout(
    policy: tyro.conf.Positional[Path],
    *,
    suite: str | None = None,
    episodes: int = 5,
    execute: int = 8,
    first_initial_state: int | None = None,
    out: Path | None = None,
    preset: Preset = None,
    json: Json = False,
) -> int:
    """Roll out a saved policy, and film its first episode of each task.

    Example: cgap rollout store/policy/KEY --episodes 5 --out films

    Args:
        policy: the policy's folder (``cgap study status --json`` lists those of a study).
        suite: the suite; by default the policy's own simulator and tasks.
        episodes: episodes per task.
        execute: actions executed per decision.
        first_initial_state: number of the first initial state; by default the evaluation's.
        out: folder for the MP4 files; none are made without it.
        preset: take the number of episodes from this preset.
        json: print the rows as JSON.
    """
    from .commands_policies import roll_out

    rows, films = roll_out(policy, suite, episodes, execute, first_initial_state, out, preset)
    if json:
        print_json({"episodes": rows, "films": [str(film) for film in films]})
    else:
        from .terminal import episode_table

        episode_table(rows)
        for film in films:
            print(f"film: {film}")
    return 0


policy_app.command(name="export")(export)
app.command(demos_app, name="demos", help="Make, import and export demonstrations.")
app.command(policy_app, name="policy", help="Export policies.")
app.command(study_app, name="study", help="Plan, run and follow studies.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``cgap``. A user's error is one sentence on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if arguments[:1] == ["--version"]:
        print(f"compression-gap {__version__}")
        return 0
    try:
        return int(app.cli(args=arguments, prog="cgap", description=DESCRIPTION) or 0)
    except UserError as error:
        if debug:
            raise
        print(f"cgap: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        sentence = disk_error(error, Path(error.filename or "."))
        if debug or not isinstance(sentence, UserError):
            raise
        print(f"cgap: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        how = str(interrupt) or "stopped; the same command goes on where this one ended"
        print(f"cgap: {how}", file=sys.stderr)
        return 130
