"""The versions behind a page: one of each is silent, several are named, a simulator that was not tested is."""

from types import SimpleNamespace

import pytest

from compression_gap.results.versions import version_words
from compression_gap.store.store import Recipe, Store


def made(store, kind, spec, **machine):
    """An artefact in the store: its recipe."""
    recipe = Recipe(kind, spec)
    with store.create(recipe, {"machine": machine}) as out:
        (out / "x").write_text("x")
    return recipe


def graph(*recipes):
    return SimpleNamespace(steps={r.key: SimpleNamespace(recipe=r) for r in recipes})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def policies(store, *torches):
    return [made(store, "policy", {"seed": i}, torch=t, device="cpu") for i, t in enumerate(torches)]


def test_one_version_of_each_is_silent(store):
    demos = made(store, "demos", {"versions": {"mujoco": "3.3.0"}})
    episodes = made(store, "episodes", {"protocol": {"versions": {"mujoco": "3.3.0"}}})
    assert version_words(graph(demos, episodes, *policies(store, "2.13.0", "2.13.0")), store) == []


def test_demonstrations_and_episodes_of_two_versions_are_named(store):
    demos = made(store, "demos", {"versions": {"robosim": "1"}})
    episodes = [
        made(store, "episodes", {"actor": a, "protocol": {"versions": {"robosim": "2"}}}) for a in "ab"
    ]
    assert version_words(graph(demos, *episodes), store) == [
        "These results were made with several versions of robosim, and may differ for that alone: 1 (1), 2 (2)."
    ]


def test_sets_that_a_study_takes_as_they_are_count(store):
    sets = [made(store, "demos", {"versions": {"robosim": v}}) for v in ("1", "2")]
    (words,) = version_words(graph(), store, sets)
    assert "several versions of robosim" in words


def test_policies_of_two_builds_of_torch_are_named(store):
    (words,) = version_words(graph(*policies(store, "2.7.0", "2.13.0", "2.13.0")), store)
    assert words.endswith("several versions of torch, and may differ for that alone: 2.13.0 (2), 2.7.0 (1).")


def test_a_simulator_outside_of_its_tested_range_is_named(store):
    (words,) = version_words(graph(made(store, "demos", {"versions": {"mujoco": "3.17.0"}})), store)
    assert words.startswith("mujoco 3.17.0 lies outside of the tested range ==3.3.0:")


def test_what_is_not_built_yet_does_not_count(store):
    there = made(store, "demos", {"versions": {"robosim": "1"}})
    assert version_words(graph(there, Recipe("demos", {"versions": {"robosim": "2"}})), store) == []
