"""Simulators and suites by name."""

import sys
from importlib import metadata

import pytest

from compression_gap.errors import UserError
from compression_gap.sims import (
    DEMONSTRATION_STATES,
    EVALUATION_STATES,
    TUNING_STATES,
    SimSpec,
    make_sim,
    sim_info,
    suite,
)
from compression_gap.sims.channel import Channel


def test_suites_name_their_tasks():
    assert suite("metaworld/precision-4") == (
        "metaworld",
        ("push-v3", "pick-place-v3", "peg-insert-side-v3", "hammer-v3"),
    )
    sim, eight = suite("metaworld/8")
    assert sim == "metaworld"
    assert eight[4:] == ("basketball-v3", "assembly-v3", "button-press-topdown-v3", "door-open-v3")
    assert suite("channel") == ("channel", ("reach",))
    assert suite("metaworld/push") == suite("metaworld/push-v3") == ("metaworld", ("push-v3",))
    assert suite("metaworld/push,hammer-v3") == ("metaworld", ("push-v3", "hammer-v3"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "metaword/8",
            r"unknown simulator 'metaword' .did you mean 'metaworld'.*known: channel, libero, metaworld",
        ),
        ("metaworld/pusj", r"unknown suite or task 'metaworld/pusj' \(did you mean 'metaworld/push'"),
        ("metaworld", r"unknown suite 'metaworld'.*metaworld/precision-4"),
        ("metaworld/push,push-v3", "names a task twice"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name, message):
    with pytest.raises(UserError, match=message):
        suite(name)


def test_info_is_cheap_and_complete():
    info = sim_info(SimSpec(sim="metaworld", tasks=("push-v3",)))
    assert (info.action_dim, info.proprio_dim, info.state_dim, info.step_limit) == (4, 4, 23, 250)
    assert info.cameras == ("corner2",)
    assert len(info.state_names) == 23
    assert set(info.versions) >= {"metaworld", "mujoco"}
    channel = sim_info(SimSpec(sim="channel", tasks=("reach",)))
    assert (channel.action_dim, channel.proprio_dim, channel.state_dim, channel.step_limit) == (2, 3, 2, 16)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SimSpec(sim="metaworld", tasks=("push",)), "unknown Meta-World task 'push' .did you mean 'push-v3'"),
        (SimSpec(sim="metaworld", tasks=("push-v3",), cameras=("corner9",)), "unknown Meta-World camera"),
        (SimSpec(sim="nothing", tasks=()), "unknown simulator 'nothing'"),
    ],
)
def test_a_wrong_specification_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        make_sim(spec)
    with pytest.raises(UserError, match=message):
        sim_info(spec)


def test_other_packages_bring_simulators(monkeypatch):
    class Entry:
        name = "borrowed"

        @staticmethod
        def load():
            return Channel

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Entry] if group.endswith("sims") else [])
    sim = make_sim(SimSpec(sim="borrowed", tasks=("reach",)))
    assert isinstance(sim, Channel)
    assert suite("borrowed") == ("borrowed", ("reach",))


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys.modules["compression_gap.sims.metaworld"].metadata, "version", missing)
    with pytest.raises(UserError, match=r'pip install "compression-gap\[metaworld\]"'):
        sim_info(SimSpec(sim="metaworld", tasks=("push-v3",)))


def test_initial_states_of_different_uses_never_meet():
    assert DEMONSTRATION_STATES < TUNING_STATES < EVALUATION_STATES
    assert TUNING_STATES - DEMONSTRATION_STATES == EVALUATION_STATES - TUNING_STATES == 1_000_000
