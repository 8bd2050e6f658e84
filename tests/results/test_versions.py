"""The versions behind a page: one of each is silent, several are named, a simulator that was not tested is."""

from types import SimpleNamespace

import pytest

from compression_gap.artifacts.demonstrations import Demonstrations
from compression_gap.artifacts.episodes import Episodes
from compression_gap.artifacts.normaliser import FittedNormaliser
from compression_gap.artifacts.policy import TrainedPolicy
from compression_gap.results.versions import version_words
from compression_gap.sims import EvaluationProtocol, SimSpec
from compression_gap.store.store import Store


def demos(task, **versions):
    return Demonstrations(task=task, versions=versions)


def policy(seed):
    """The least that a training is."""
    own = demos("t")
    normaliser = FittedNormaliser(demos=(own,))
    levels = {
        "sim": "s",
        "encoder": "blind",
        "head": "flow",
        "size": "xs",
        "target": "chunk",
        "tasks": ("t",),
    }
    shape = {"horizon": 4, "n_obs_steps": 1, "stride": 1, "training": {}, "options": {}}
    return TrainedPolicy(seed=seed, demos=(own,), normaliser=normaliser, **levels, **shape)


def evaluated(actor, **versions):
    sim = SimSpec(sim="channel", tasks=("reach",), image_size=8)
    protocol = EvaluationProtocol(sim=sim, episodes_per_task=1, execute=1, step_limit=1, versions=versions)
    return Episodes(protocol=protocol, actor=actor)


def made(store, of, **machine):
    """The artefact, once it is in the store."""
    with store.create(of.recipe, {"machine": machine}) as out:
        (out / "x").write_text("x")
    return of


def graph(*steps):
    return SimpleNamespace(steps={s.key: s for s in steps})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def policies(store, *torches):
    return [made(store, policy(i), torch=t, device="cpu") for i, t in enumerate(torches)]


def test_one_version_of_each_is_silent(store):
    own = made(store, demos("a", mujoco="3.3.0"))
    episodes = made(store, evaluated("expert", mujoco="3.3.0"))
    assert version_words(graph(own, episodes, *policies(store, "2.13.0", "2.13.0")), store) == []


def test_demonstrations_and_episodes_of_two_versions_are_named(store):
    own = made(store, demos("a", robosim="1"))
    episodes = [made(store, evaluated(a, robosim="2")) for a in ("expert", "policy")]
    assert version_words(graph(own, *episodes), store) == [
        "These results were made with several versions of robosim, and may differ for that alone: 1 (1), 2 (2)."
    ]


def test_sets_that_a_study_takes_as_they_are_count(store):
    sets = [made(store, demos("a", robosim=v)) for v in ("1", "2")]
    (words,) = version_words(graph(), store, sets)
    assert "several versions of robosim" in words


def test_policies_of_two_builds_of_torch_are_named(store):
    (words,) = version_words(graph(*policies(store, "2.7.0", "2.13.0", "2.13.0")), store)
    assert words.endswith("several versions of torch, and may differ for that alone: 2.13.0 (2), 2.7.0 (1).")


def test_a_simulator_outside_of_its_tested_range_is_named(store):
    (words,) = version_words(graph(made(store, demos("a", mujoco="3.17.0"))), store)
    assert words.startswith("mujoco 3.17.0 lies outside of the tested range ==3.3.0:")


def test_what_is_not_built_yet_does_not_count(store):
    there = made(store, demos("a", robosim="1"))
    assert version_words(graph(there, demos("b", robosim="2")), store) == []
