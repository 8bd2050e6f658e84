"""What is set for a while, and put back."""

import os

import pytest

from compression_gap.store.environment import environment


def test_variables_are_set_and_put_back_also_after_an_error(monkeypatch):
    monkeypatch.setenv("THERE", "before")
    monkeypatch.delenv("ABSENT", raising=False)

    def failing():
        with environment({"THERE": "meanwhile", "ABSENT": "meanwhile"}):
            assert (os.environ["THERE"], os.environ["ABSENT"]) == ("meanwhile", "meanwhile")
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert os.environ["THERE"] == "before"
    assert "ABSENT" not in os.environ


def test_a_variable_that_was_removed_meanwhile_stays_absent(monkeypatch):
    monkeypatch.delenv("ABSENT", raising=False)
    with environment({"ABSENT": "meanwhile"}):
        del os.environ["ABSENT"]
    assert "ABSENT" not in os.environ
