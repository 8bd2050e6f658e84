"""The worker pool: lockstep, replacement of dead workers, and their end."""

import os
import signal
import subprocess
import sys
import textwrap
import traceback

import numpy as np
import pytest

from compression_gap import extras
from compression_gap.errors import UserError
from compression_gap.extras import Extra
from compression_gap.sims import SimPool, SimSpec, SimulatorError, failure
from compression_gap.sims import pool as pool_module
from compression_gap.sims.episode import Drive

CHANNEL = SimSpec(sim="channel", tasks=("reach",), image_size=16)
LOOK = Drive("observation", execute=4, step_limit=16, n_obs_steps=3, images=True)


def steer(asked):
    """A chunk from what is seen: towards the goal, at a speed that depends on the goal."""
    toward = asked.state[0, -1] - asked.proprio[0, -1, :2]
    return np.tile(np.clip(toward * 2, -1, 1), (4, 1)).astype(np.float32)


def play(pool, episodes, drive=LOOK, on_batch=None):
    outcomes, batches = {}, []

    def decide(jobs, asked):
        batches.append([job.index for job in jobs])
        if on_batch:
            on_batch(jobs)
        return [steer(a) for a in asked]

    def done(job, outcome):
        outcomes[job.index] = outcome

    pool.run([("reach", k) for k in range(episodes)], drive, decide, done)
    return outcomes, batches


@pytest.fixture(scope="module")
def pool():
    with SimPool(CHANNEL, 3) as made:
        yield made


def test_workers_give_what_one_process_gives_and_batches_repeat(pool):
    with SimPool(CHANNEL, 0) as inline:
        want, _ = play(inline, 10)
    got, batches = play(pool, 10)
    assert got == want
    assert sorted(got) == list(range(10))
    assert any(o.success for o in got.values())
    assert all(batch == sorted(batch) for batch in batches)
    assert play(pool, 10)[1] == batches  # a function of the episode list, not of timing


def test_workers_are_kept_between_runs(pool):
    play(pool, 4)
    before = pool.pids()
    play(pool, 4)
    assert pool.pids() == before


def test_a_killed_worker_is_replaced_and_nothing_changes(pool):
    want, batches = play(pool, 6)
    rounds = []

    def kill(jobs):
        rounds.append(len(jobs))
        if len(rounds) in (2, 4):  # in the middle of episodes
            os.kill(pool.pids()[1], signal.SIGKILL)

    before = pool.pids()
    got, again = play(pool, 6, on_batch=kill)
    assert got == want
    assert again == batches
    assert pool.pids() != before


def test_an_episode_that_kills_its_workers_is_reported():
    with SimPool(CHANNEL, 1) as pool:

        def kill(jobs):
            os.kill(pool.pids()[0], signal.SIGKILL)

        drive = Drive("observation", execute=1, step_limit=16)
        with pytest.raises(UserError, match="episode reach, initial state 0, died 3 times"):
            play(pool, 1, drive, on_batch=kill)


def test_a_workers_sentence_reaches_the_user():
    with SimPool(CHANNEL, 1) as pool:
        with pytest.raises(UserError, match="unknown task of this simulator 'swim'"):
            pool.run([("swim", 0)], LOOK, lambda jobs, asked: [], lambda job, outcome: None)
        assert play(pool, 2)[0]  # and the pool is usable afterwards


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_inside_a_simulator_is_a_sentence_that_names_the_episode(workers):
    wrong = Drive("expert-chunk", execute=1, step_limit=4, horizon="eight")
    with SimPool(CHANNEL, workers) as pool, pytest.raises(SimulatorError) as caught:
        pool.run([("reach", 7)], wrong, lambda jobs, asked: [], lambda job, outcome: None)
    said = str(caught.value)
    assert said.startswith(
        "the simulator 'channel' failed at reach, initial state 7 (TypeError: 'str' object"
    )
    assert "\n" not in said
    cause = "".join(traceback.format_exception(caught.value))
    assert "in expert_chunk" in cause  # where it arose, for the log


def test_an_error_inside_a_simulator_suggests_what_the_installed_versions_do(monkeypatch):
    def seen(missing=(), untested=None):
        found = Extra("libero", {"mujoco": "3.17.0"}, missing, untested or {})
        monkeypatch.setattr(extras, "installed", lambda name: found)
        return failure.describe("libero", "libero_object-0", 3, KeyError("mujoco.gl_context"))

    start = (
        "the simulator 'libero' failed at libero_object-0, initial state 3 (KeyError: 'mujoco.gl_context')"
    )
    install = 'pip install "compression-gap[libero]"'
    assert seen(untested={"mujoco": "==3.3.0"}) == (
        f"{start}; not a tested version: mujoco 3.17.0 (tested: ==3.3.0): {install}"
    )
    assert seen(missing=("h5py",)) == f"{start}; h5py is not installed: {install}"
    assert seen().startswith(f"{start}, with the tested versions mujoco 3.17.0: see what  cgap doctor")


def test_an_error_of_the_decider_leaves_no_old_answers_behind(pool):
    want, _ = play(pool, 3)

    def fail(jobs):
        raise RuntimeError("policy")

    with pytest.raises(RuntimeError, match="policy"):
        play(pool, 5, on_batch=fail)
    assert play(pool, 3)[0] == want


@pytest.mark.parametrize("hangs", [False, True])
def test_workers_end_when_their_parent_is_killed(hangs):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from compression_gap.sims import SimPool, SimSpec
        from compression_gap.sims.pool import Drive

        hangs = sys.argv[1] == "True"

        pool = SimPool(SimSpec(sim="channel", tasks=("reach",)), 2)

        def die(jobs, asked):
            print(*pool.pids(), flush=True)
            if hangs:  # the end of its pipe is nothing to it
                os.kill(pool.pids()[0], signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGKILL)

        pool.run([("reach", 0), ("reach", 1)], Drive("step", 1, 16), die, print)
        """
    )
    # The workers hold the write ends of these pipes, so this returns only when all of them have gone.
    command = [sys.executable, "-c", script, str(hangs)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL
    assert len(run.stdout.split()) == 2
    assert run.stderr == ""


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(UserError, match="workers must be 0 or more"):
        SimPool(CHANNEL, -1)


def test_a_worker_that_hangs_is_killed_and_its_episode_runs_again(pool):
    want, batches = play(pool, 6)
    rounds = []

    def stop(jobs):
        rounds.append(len(jobs))
        if len(rounds) == 2:  # in the middle of episodes
            os.kill(pool.pids()[1], signal.SIGSTOP)
            pool._started[1].seconds = 0.1

    before = pool.pids()
    got, again = play(pool, 6, on_batch=stop)
    assert got == want
    assert again == batches
    assert pool.pids()[1] != before[1]
    assert not os.path.exists(f"/proc/{before[1]}")


def test_an_episode_that_always_hangs_is_reported():
    with SimPool(CHANNEL, 1) as pool:

        def stop(jobs):
            os.kill(pool.pids()[0], signal.SIGSTOP)
            pool._started[0].seconds = 0.1

        drive = Drive("observation", execute=1, step_limit=16)
        said = "'channel' did not answer within 600 s 3 times, at reach, initial state 0: the lines above"
        with pytest.raises(SimulatorError, match=said):
            play(pool, 1, drive, on_batch=stop)


def test_the_limit_of_an_answer_is_a_number_of_seconds(monkeypatch):
    from compression_gap.sims.pool import ANSWER_SECONDS, SECONDS_VARIABLE, answer_seconds

    for said, seconds in (("", ANSWER_SECONDS), ("0", float("inf")), ("2.5", 2.5)):
        monkeypatch.setenv(SECONDS_VARIABLE, said)
        assert answer_seconds() == seconds
    for wrong in ("soon", "-1", "nan"):
        monkeypatch.setenv(SECONDS_VARIABLE, wrong)
        with pytest.raises(UserError, match=f"{SECONDS_VARIABLE}={wrong} is no number of seconds"):
            answer_seconds()


def test_a_fork_server_that_is_killed_is_started_again(monkeypatch):
    """At the very moment at which a worker is started, too."""
    from multiprocessing import forkserver

    with SimPool(CHANNEL, 2) as pool:
        want, _ = play(pool, 4)

        def kill(jobs):
            if not killed:
                killed.append(forkserver._forkserver._forkserver_pid)
                os.kill(killed[0], signal.SIGKILL)

        killed = []
        assert play(pool, 4, on_batch=kill)[0] == want
    started, tries = pool_module._Worker, []

    def at_that_moment(spec):
        tries.append(spec)
        if len(tries) < 3:
            raise EOFError("unexpected EOF")
        return started(spec)

    monkeypatch.setattr(pool_module, "_Worker", at_that_moment)
    worker = pool_module._started(CHANNEL)
    assert worker.process.is_alive()
    assert len(tries) == 3
    worker.close()
