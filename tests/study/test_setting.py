"""A study's simulator and evaluation: what the file says, and what it leaves to the simulator."""

import pytest

from compression_gap.errors import UserError
from compression_gap.study import setting as module
from compression_gap.study.file import Cameras, parse_study
from compression_gap.study.setting import evaluation_of, resolve_suite

FILE = """\
name: s
suite: {suite}
factors: {{encoder: [retina-4], action: [diffusion]}}
policy: {{horizon: {horizon}}}
{more}
"""


@pytest.fixture(autouse=True)
def any_versions(monkeypatch):
    """LIBERO need not be installed to plan a study of it."""
    from compression_gap.sims import libero

    monkeypatch.setattr(libero, "versions", lambda: {"libero": "1", "robosuite": "1.4.0", "mujoco": "3.3.0"})


def evaluation(suite, more="", horizon=32):
    study = parse_study(FILE.format(suite=suite, more=more, horizon=horizon), "s.yaml")
    spec, info = resolve_suite(study.suite, study.cameras, study.rollout.protocol)
    return evaluation_of(study, spec, info)


def test_liberos_default_protocol_fills_what_the_file_leaves_open():
    found = evaluation("libero/libero_10")
    assert (found.execute, found.step_limit, found.sim.rendering) == (16, 520, "default")
    assert found.sim.cameras == ("agentview", "robot0_eye_in_hand")
    assert found.settings == {
        "name": "libero-fixed",
        "initial_states": "official",
        "settling_steps": 10,
        "first_observation": "settled",
    }
    assert set(found.versions) == {"libero", "robosuite", "mujoco"}


def test_a_named_protocol_changes_the_evaluation_and_its_hash():
    fixed = evaluation("libero/libero_10")
    oat = evaluation("libero/libero_10", "rollout: {protocol: oat-as-published}")
    assert (oat.step_limit, oat.settings["first_observation"]) == (550, "before-settling")
    openpi = evaluation("libero/libero_spatial", "rollout: {protocol: openpi}")
    assert (openpi.execute, openpi.step_limit) == (5, 220)
    other = evaluation("libero/libero_10", "rollout: {protocol: lerobot, execute: 16}")
    assert other.execute == fixed.execute
    assert other.step_limit == fixed.step_limit
    assert len({fixed.hash, oat.hash, openpi.hash, other.hash}) == 4
    explicit = evaluation("libero/libero_10", "rollout: {protocol: libero-fixed, execute: 8, step_limit: 99}")
    assert (explicit.execute, explicit.step_limit) == (8, 99)
    with pytest.raises(UserError, match="unknown LIBERO protocol 'openpy'"):
        evaluation("libero/libero_10", "rollout: {protocol: openpy}")


def test_more_episodes_than_official_states_are_refused_before_anything_runs():
    assert evaluation("libero/libero_10", "rollout: {episodes_per_task: 50}").episodes_per_task == 50
    with pytest.raises(
        UserError, match=r"episodes_per_task is 51, and libero has 50 initial states of each task"
    ):
        evaluation("libero/libero_10", "rollout: {episodes_per_task: 51}")
    evaluation("libero/libero_10", "rollout: {episodes_per_task: 51, protocol: oat-as-published}")
    evaluation("libero/libero_10", "rollout: {episodes_per_task: 51, states: tuning}")


def test_other_simulators_keep_their_defaults_and_their_hashes():
    found = evaluation("channel", horizon=16)
    assert (found.execute, found.sim.rendering, found.settings) == (module.EXECUTE, "fast", {})
    assert "settings" not in found.model_dump(mode="json")
    assert "protocol" not in found.model_dump(mode="json")["sim"]
    with pytest.raises(UserError, match=r"rollout.execute \(16\) is longer than policy.horizon \(8\)"):
        evaluation("libero/libero_10", horizon=8)
    with pytest.raises(UserError, match="channel has one protocol"):
        evaluation("channel", "rollout: {protocol: openpi}")


def test_rendering_can_be_chosen():
    fast = Cameras(rendering="fast")
    assert resolve_suite("libero/libero_10", fast)[0].rendering == "fast"
    assert resolve_suite("libero/libero_10", Cameras())[0].rendering == "default"
