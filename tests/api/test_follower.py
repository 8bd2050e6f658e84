"""A follower can do what it likes: the run neither waits nor fails."""

import os
from functools import partial

from compression_gap.api import follower
from compression_gap.api.follower import Followed, Follower, following
from fake_mirrors import Told


def test_news_for_one_that_hangs_are_dropped_and_it_is_ended(tmp_path):
    """More than pipe and queue take: nobody waits, and two sentences say so."""
    os.mkfifo(pipe := tmp_path / "pipe")
    said = []
    one = Followed(Follower("the mirror 'slow'", partial(Told, pipe), tmp_path / "log", 0.1), said.append)
    one.tell("begin", [], 0, 1)
    assert pipe.read_text() == "here"  # from now on it hangs
    for _ in range(3 * follower.WAITING):
        one.tell("started", "x" * 1000)
    assert said == ["the mirror 'slow' does not keep up: part of the run will be missing there"]
    one.end()
    assert said[1:] == [
        "the mirror 'slow' did not end within 0.1 s: part of the run may be missing there; the study goes on "
        f"(see {tmp_path / 'log'})"
    ]
    assert not one.process.is_alive()
    one.tell("started", "x")
    assert len(said) == 2


def test_one_that_cannot_be_made_or_told_is_left_behind(tmp_path):
    """A class that is not there; a step that cannot be sent."""
    said = []
    with following([Follower("it", partial(int, "x"), tmp_path / "log", 60.0)], [], 0, 1, said.append):
        pass
    (sentence,) = said
    assert sentence.startswith("it failed (TypeError: ")
    assert "Traceback" in (tmp_path / "log").read_text()
    with following([Follower("it", print, tmp_path / "log", 60.0)], [lambda: 0], 0, 1, said.append):
        pass
    assert said[1].startswith("it cannot be told (")
    assert len(said) == 2
