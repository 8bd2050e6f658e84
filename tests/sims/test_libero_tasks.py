"""LIBERO's tasks and protocols by name: no simulator is made, and LIBERO need not be installed."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from compression_gap.errors import UserError
from compression_gap.sims import EvaluationProtocol, SimSpec, suite
from compression_gap.sims.libero_protocols import DEFAULT, PROTOCOLS, protocol
from compression_gap.sims.libero_tasks import (
    FULL_NAMES,
    SUITES,
    TASKS,
    canonical_task,
    full_name,
    instruction,
    suite_of,
)


def test_five_suites_and_130_tasks_with_names_of_their_own():
    assert {s: len(tasks) for s, tasks in SUITES.items()} == {
        "libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90,
    }  # fmt: skip
    assert len(set(TASKS)) == len({full_name(t) for t in TASKS}) == 130
    assert all(canonical_task(full_name(t)) == canonical_task(t) == t for t in TASKS)
    assert {suite_of(t) for t in TASKS} == set(SUITES)


def test_the_names_and_their_order_are_the_benchmarks_own():
    found = find_spec("libero")
    if found is None:
        pytest.skip("LIBERO is not installed")
    file = Path(found.submodule_search_locations[0]) / "libero" / "benchmark" / "libero_suite_task_map.py"
    text = file.read_text()
    theirs = ast.literal_eval(text[text.index("{") :])
    assert {s: tuple(theirs[s]) for s in FULL_NAMES} == FULL_NAMES


def test_instructions_are_those_that_published_policies_are_given():
    assert instruction("libero_object-0") == "pick up the alphabet soup and place it in the basket"
    # The number of a scene is no part of it, with one digit or two.
    assert instruction("libero_10-2") == "turn on the stove and put the moka pot on it"
    tenth = canonical_task("KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet")
    assert instruction(tenth) == "close the top drawer of the cabinet"
    assert not any("scene" in instruction(t).lower() for t in TASKS)


def test_studies_name_suites_and_tasks():
    assert suite("libero/libero_object") == ("libero", SUITES["libero_object"])
    two = ("libero_object-3", "libero_10-0")
    assert suite("libero/libero_object-3,libero_10-0") == ("libero", two)
    assert suite(f"libero/{full_name('libero_goal-7')}") == ("libero", ("libero_goal-7",))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "libero/libero_objekt",
            r"unknown LIBERO suite or task 'libero_objekt' \(did you mean 'libero_object-",
        ),
        ("libero/libero_10-10", r"unknown LIBERO suite or task 'libero_10-10'.*libero_10-0 to libero_10-9"),
        (
            "libero/pick_up_the_milk_and_place_it_in_the_baskt",
            "did you mean 'pick_up_the_milk_and_place_it_in_the",
        ),
        ("libero", r"unknown suite 'libero'.*libero/libero_90"),
        ("libero/libero_10-1,libero_10-1", "names a task twice"),
    ],
)
def test_unknown_suites_and_tasks_are_answered_with_known_ones(name, message):
    with pytest.raises(UserError, match=message) as caught:
        suite(name)
    assert len(str(caught.value)) < 600  # 130 names would be no answer


def test_the_protocols_differ_as_the_harnesses_do():
    assert protocol("").name == DEFAULT == "libero-fixed"
    fixed, oat = PROTOCOLS["libero-fixed"], PROTOCOLS["oat-as-published"]
    assert (fixed.fixed_states, fixed.settling_steps, fixed.execute, fixed.rendering) == (
        True,
        10,
        16,
        "default",
    )
    assert (oat.fixed_states, oat.first_observation) == (False, "before-settling")
    assert {p: PROTOCOLS[p].step_limit(("libero_10",)) for p in PROTOCOLS} == {
        "libero-fixed": 520, "oat-as-published": 550, "lerobot": 520, "openpi": 520,
    }  # fmt: skip
    assert PROTOCOLS["lerobot"].step_limit(("libero_spatial",)) == 280
    assert PROTOCOLS["openpi"].step_limit(("libero_spatial",)) == 220
    assert fixed.step_limit(("libero_spatial", "libero_goal")) == 300
    with pytest.raises(UserError, match=r"unknown LIBERO protocol 'openpie' \(did you mean 'openpi'"):
        protocol("openpie")


def evaluation(**changes):
    values = {"episodes_per_task": 2, "execute": 8, "step_limit": 9, "versions": {"mujoco": "1"}} | changes
    return EvaluationProtocol(sim=SimSpec(sim="channel", tasks=("reach",)), **values)


def test_the_resolved_settings_are_part_of_the_evaluations_hash():
    one = evaluation(settings=PROTOCOLS["libero-fixed"].settings)
    other = evaluation(settings=PROTOCOLS["libero-fixed"].settings | {"settling_steps": 9})
    assert len({one.hash, other.hash, evaluation().hash}) == 3
    assert one.model_dump(mode="json")["settings"]["initial_states"] == "official"
    again = EvaluationProtocol.model_validate_json(one.model_dump_json())
    assert again == one
    # Simulators without protocols of their own keep the hashes that they had.
    assert "settings" not in evaluation().model_dump(mode="json")
    assert "protocol" not in SimSpec(sim="channel", tasks=("reach",)).model_dump(mode="json")
    named = SimSpec(sim="libero", tasks=("libero_10-0",), protocol="openpi")
    assert SimSpec.model_validate_json(named.model_dump_json()) == named
