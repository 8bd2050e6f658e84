"""Claims: one builder at a time, of all processes; a dead one's claim is free."""

import errno
import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

from compression_gap.errors import Interrupted, UserError
from compression_gap.store import claims
from compression_gap.store.artifact import Artifact, Job, build
from compression_gap.store.claims import Busy, claim, under_way
from compression_gap.store.store import Recipe, Store

RECIPE = Recipe("thing", {"size": 3})


class Slow(Artifact, kind="slow", version=1):
    """Is built when it is told to."""

    number: int

    @property
    def label(self) -> str:
        return f"slow {self.number}"

    def build(self, job: Job) -> None:
        np.save(job.out / "value.npy", np.array(self.number))


def test_whoever_follows_a_run_sees_how_far_it_is(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr(claims, "NOTED_EVERY", -1.0)
    assert under_way(store) == []
    with claim(store, RECIPE) as mine:
        mine.note(1234567, 9999999)
        mine.note(3, 10)
        (found,) = under_way(Store(tmp_path))
        assert (found.kind, found.key, found.done, found.total) == ("thing", RECIPE.key, 3, 10)
        assert found.since == mine.since
        claims._file(store, "thing", RECIPE.key).write_text("{half")
        assert under_way(store)[0].total == 0
    (tmp_path / "claims" / "thing-0123").write_text("left by the dead")
    assert under_way(store) == []


def ignore(done, total):
    """No progress is asked for."""


def never():
    """Nobody stops."""
    return False


def test_a_second_claim_is_refused_until_the_first_ends(tmp_path):
    store = Store(tmp_path)
    with claim(store, RECIPE) as mine:
        assert mine
        with claim(Store(tmp_path), RECIPE) as second:
            assert not second
        with claim(store, Recipe("thing", {"size": 4})) as other:
            assert other
    with claim(store, RECIPE) as again:
        assert again
    assert list((tmp_path / "claims").iterdir()) == []


def hold(root, held):
    with claim(Store(root), RECIPE) as mine:
        held.send(mine is not None)
        signal.pause()


def test_the_claim_of_a_killed_process_is_free(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(str(tmp_path), theirs))
    process.start()
    assert ours.recv() is True
    with claim(Store(tmp_path), RECIPE) as mine:
        assert not mine
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with claim(Store(tmp_path), RECIPE) as mine:
        assert mine


def contend(root, turns, won):
    """Take the claim as often as asked; two inside at once would meet the other's file."""
    store, inside = Store(root), os.path.join(root, "inside")
    while turns:
        with claim(store, RECIPE) as mine:
            if mine:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                os.unlink(inside)
                turns -= 1
    won.send("all turns")


def test_of_many_processes_one_is_inside_at_a_time(tmp_path):
    context, pipes = multiprocessing.get_context("fork"), []
    Store(tmp_path)
    for _ in range(4):
        ours, theirs = context.Pipe()
        process = context.Process(target=contend, args=(str(tmp_path), 200, theirs))
        process.start()
        pipes.append((ours, process))
    for ours, process in pipes:
        process.join()
        assert process.exitcode == 0
        assert ours.recv() == "all turns"


def test_a_build_that_another_process_has_begun_is_left_to_it(tmp_path):
    store, step = Store(tmp_path), Slow(number=3)
    with claim(store, step), pytest.raises(Busy):
        build(step, store, progress=ignore, should_stop=never, wait=False)
    with claim(store, step), pytest.raises(Interrupted):
        build(step, store, progress=ignore, should_stop=lambda: True)
    assert not store.has(step)


def test_a_build_that_waits_takes_what_the_other_has_built(tmp_path):
    store, step = Store(tmp_path), Slow(number=3)
    asked = threading.Event()

    def should_stop():
        asked.set()
        return False

    with claim(store, step):
        waits = threading.Thread(
            target=build, args=(step, store), kwargs={"progress": ignore, "should_stop": should_stop}
        )
        waits.start()
        assert asked.wait(30)
        with store.create(step.recipe) as out:
            np.save(out / "value.npy", np.array(7))
    waits.join(30)
    assert not waits.is_alive()
    assert np.load(store.open(step) / "value.npy") == 7


def test_a_claim_on_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(claims, "_locked", full)
    store = Store(tmp_path)
    with pytest.raises(UserError, match=f"the disk with {tmp_path} is full"), claim(store, RECIPE):
        pass
