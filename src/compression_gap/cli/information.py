"""The verbs that measure bits: ledger, locate, calibrate."""

from __future__ import annotations

from pathlib import Path

import tyro

from .options import Json, Preset, StorePath, print_json


def ledger(
    target: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    preset: Preset = None,
    encoders: tuple[str, ...] = ("retina-16", "oracle"),
    tokenizers: tuple[str, ...] = ("fast", "oat"),
    codebooks: tuple[str, ...] = ("fsq-1000",),
    sigma: float | None = None,
    horizon: int = 16,
    n_obs_steps: int = 2,
    execute: int = 8,
    steps: int | None = None,
    prior_steps: int | None = None,
    tokenizer_steps: int = 1500,
    demo_episodes: int = 100,
    store: StorePath = Path("store"),
    budget: str | None = None,
    processes: int | None = None,
    json: Json = False,
) -> int:
    """Measure in bits: what the task demands, each encoder supplies, each code keeps, and each policy delivers.

    Example: cgap ledger metaworld/push,pick-place --encoders retina-4 retina-16 oracle --tokenizers fast oat

    Args:
        target: a study file, a suite, or folders STORE/demos/KEY of demonstrations.
        preset: a preset in place of a study file.
        encoders: frozen encoders; blind is always among them (not for a study, which has its own).
        tokenizers: action tokenizers (not for a study).
        codebooks: FSQ codebooks of quest and oat.
        sigma: resolution in standard deviations; measured in the simulator by default, 0.1 without one.
        horizon: steps of a chunk.
        n_obs_steps: observation steps that a policy sees.
        execute: actions executed per decision where the resolution is measured.
        steps: training steps of the denoiser.
        prior_steps: training steps of each code's prior, which finds the bits that the code uses.
        tokenizer_steps: training steps of tokenizers that have a network.
        demo_episodes: demonstrations per task, when a suite is named.
        store: folder of all artefacts, when a suite or a study is named.
        budget: stop cleanly after this time, as in 90s, 9m or 2h.
        processes: worker processes; as many as cores by default, 0 for this process alone.
        json: print the ledger as JSON.
    """
    from .commands_bits import make_ledger

    given = {"sigma": sigma, "steps": steps, "prior_steps": prior_steps}
    section = {k: v for k, v in given.items() if v is not None}
    found = make_ledger(
        target, preset, encoders=encoders, tokenizers=tokenizers, codebooks=codebooks, section=section,
        tokenizer_steps=tokenizer_steps, horizon=horizon, n_obs_steps=n_obs_steps, execute=execute,
        demo_episodes=demo_episodes, store_root=store, processes=processes, budget=budget,
    )  # fmt: skip
    if json:
        print_json(found)
    else:
        from .terminal_bits import ledger_tables

        ledger_tables(found)
    return 0


def locate(
    target: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    preset: Preset = None,
    encoders: tuple[str, ...] = ("retina-16", "oracle"),
    tokenizers: tuple[str, ...] = ("fast", "oat"),
    sigma: float | None = None,
    store: StorePath = Path("store"),
    budget: str | None = None,
    processes: int | None = None,
    json: Json = False,
) -> int:
    """Say which stage binds, what relaxing it gains and costs, and what to run next.

    Of a study: from success, and from bits if it has a ledger section. Of demonstrations: from bits alone.

    Example: cgap locate --preset tiny

    Args:
        target: a study file, a suite, or folders STORE/demos/KEY of demonstrations.
        preset: a preset in place of a study file.
        encoders: frozen encoders, for demonstrations.
        tokenizers: action tokenizers, for demonstrations.
        sigma: resolution in standard deviations, as in cgap ledger.
        store: folder of all artefacts.
        budget: stop cleanly after this time, as in 90s, 9m or 2h.
        processes: worker processes; as many as cores by default, 0 for this process alone.
        json: print the answers as JSON.
    """
    from .commands_bits import locate as run

    found = run(target, preset, encoders, tokenizers, sigma, store, processes, budget)
    if json:
        print_json(found)
    else:
        from .terminal_bits import locate_list

        locate_list(found)
    return 0


def calibrate(
    *,
    quick: bool = False,
    out: Path | None = None,
    store: StorePath = Path("store"),
    budget: str | None = None,
    processes: int | None = None,
    json: Json = False,
) -> int:
    """Hold every instrument to a known truth: estimators, the channel with its dials, verdicts, intervals.

    Example: cgap calibrate --quick

    Args:
        quick: fewer and smaller parts, in minutes.
        out: the page (Markdown); by default calibration.md in the store.
        store: folder of all artefacts.
        budget: stop cleanly after this time, as in 90s, 9m or 2h.
        processes: worker processes; as many as cores by default, 0 for this process alone.
        json: print the figures as JSON.
    """
    from .commands_bits import calibrate as run

    page = out or store / "calibration.md"
    found = run(quick, store, processes, budget, page)
    if json:
        print_json(found)
    else:
        from .terminal_bits import calibration_tables

        calibration_tables(found)
        print(f"page: {page}")
    return 0
