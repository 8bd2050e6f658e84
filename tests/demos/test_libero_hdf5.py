"""Official HDF5 demonstrations: files in their layout, written from the simulator here, are read and shown again."""

import json

import numpy as np
import pytest

pytest.importorskip("libero", reason="LIBERO is not installed: pip install 'compression-gap[libero]'")
pytest.importorskip("h5py")

import h5py

from compression_gap.demos import DemoSet
from compression_gap.demos import libero_hdf5 as module
from compression_gap.demos.experts import Stopped
from compression_gap.demos.libero_hdf5 import check_file, fixture_places, import_hdf5, read_recording, task_of
from compression_gap.errors import UserError
from compression_gap.sims import SimSpec, make_sim
from compression_gap.sims.libero_tasks import full_name

TASK = "libero_object-0"
SPEC = SimSpec(sim="libero", tasks=(TASK,), cameras=("agentview",), image_size=40)
LENGTH = 14


@pytest.fixture(scope="module")
def sim():
    made = make_sim(SPEC)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def one_simulator(sim, monkeypatch):
    """The import uses the module's simulator: an environment takes seconds and two gigabytes."""
    monkeypatch.setattr(module, "_simulators", {SPEC.model_dump_json(): sim})
    monkeypatch.setattr(module, "_close_simulator", lambda: None)


def record(sim, seed, *, solved):
    """States before the actions, and actions; the soup falls into the basket, or does not."""
    sim.reset(TASK, seed)
    env = sim.environment
    if solved:
        basket = env.model.site("basket_1_contain_region").id
        joint = env.model.joint(env.model.body("alphabet_soup_1_main").jntadr[0])
        above = env.data.site_xpos[basket] + [0, 0, 0.03]
        env.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = above
        env.set_flat(env.flat())
    moves = np.random.default_rng(seed).uniform(-0.2, 0.2, (LENGTH, 7))
    moves[:, 6] = -1
    states = []
    for action in moves:
        states.append(env.flat())
        sim.step(action)
    return np.array(states), moves


@pytest.fixture(scope="module")
def recordings(sim):
    return [record(sim, 0, solved=True), record(sim, 1, solved=False), record(sim, 2, solved=True)]


def write(path, recordings, *, names=None, task=TASK, attributes=None, env=None):
    """A file in the layout in which LIBERO's authors publish theirs."""
    env = env or {"controller_configs": {"type": "OSC_POSE"}, "control_freq": 20}
    with h5py.File(path, "w") as store:
        data = store.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": "pick up the alphabet soup"})
        data.attrs["bddl_file_name"] = f"chiliocosm/bddl_files/libero_object/{full_name(task)}.bddl"
        data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "Libero", "env_kwargs": env})
        data.attrs["num_demos"] = len(recordings)
        for name, value in (attributes or {}).items():
            data.attrs[name] = value
        for i, (states, actions) in enumerate(recordings):
            demo = data.create_group(names[i] if names else f"demo_{i}")
            demo.attrs["num_samples"] = len(actions)
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"], demo["states"] = actions, states
            demo["robot_states"], demo["dones"] = (
                np.zeros((len(actions), 9)),
                np.zeros(len(actions), np.uint8),
            )
            seen = demo.create_group("obs")
            seen["agentview_rgb"] = np.zeros((len(actions), 128, 128, 3), np.uint8)
            seen["ee_states"] = np.zeros((len(actions), 6))
    return path


def test_every_demonstration_is_kept_and_failed_replays_are_listed(tmp_path, recordings, sim):
    file = write(tmp_path / "soup_demo.hdf5", recordings)
    out, told = tmp_path / "set", []
    out.mkdir()
    meta = import_hdf5(SPEC, TASK, file, out, progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert meta["replay_failed"] == ["demo_1"]
    assert meta["replay_success_rate"] == pytest.approx(2 / 3)
    assert 0 < meta["replay_drift"] < 0.02  # a state does not hold the controller's memory
    demos = DemoSet.load(out)
    assert [(e.task, e.length, e.initial_state) for e in demos.episodes] == [(TASK, LENGTH, -1)] * 3
    assert demos.source["kind"] == "libero-hdf5"
    assert demos.source["sha256"] == meta["sha256"] == module.sha256(file)
    assert "robosuite" in demos.source["versions"]
    for episode, (states, actions) in zip(demos.episodes, recordings, strict=True):
        rows = slice(episode.start, episode.start + episode.length)
        assert np.array_equal(demos.actions[rows], actions.astype(np.float32))
        for t in (0, 5, LENGTH - 1):  # row t shows the stored state before action t, at the size asked for
            sim.reset_to(TASK, states[t], {})
            now = sim.observe()
            assert demos.images["agentview"][rows].shape[1:] == (40, 40, 3)
            for camera, frames in demos.images.items():
                assert np.array_equal(frames[rows][t], now.images[camera][0, 0])
            assert np.array_equal(demos.proprio[rows][t], now.proprio[0, 0])
            assert np.array_equal(demos.state[rows][t], now.state[0, 0])


def test_the_published_pairing_shows_each_state_after_its_action(tmp_path, recordings):
    file = write(tmp_path / "d.hdf5", [recordings[0]] * 3)
    for frames in ("before", "after-as-published"):
        (tmp_path / frames).mkdir()
        import_hdf5(SPEC, TASK, file, tmp_path / frames, frames=frames)
    before, after = (DemoSet.load(tmp_path / f) for f in ("before", "after-as-published"))
    assert np.array_equal(before.actions, after.actions)
    one = slice(0, LENGTH)
    assert np.array_equal(before.images["agentview"][one][1:], after.images["agentview"][one][:-1])
    assert np.array_equal(before.proprio[one][1:], after.proprio[one][:-1])
    assert not np.array_equal(before.proprio[LENGTH - 1], after.proprio[LENGTH - 1])


def test_the_first_demonstrations_come_in_the_order_of_their_numbers(tmp_path, recordings):
    file = write(tmp_path / "d.hdf5", recordings * 2, names=[f"demo_{i}" for i in (10, 2, 1, 0, 9, 3)])
    assert task_of(file) == TASK
    assert check_file(file, TASK, 4) == ["demo_0", "demo_1", "demo_2", "demo_3"]
    assert check_file(file, TASK, None)[-1] == "demo_10"
    assert np.array_equal(read_recording(file, "demo_10").states, recordings[0][0])
    with pytest.raises(UserError, match="holds 6 demonstrations, not 7"):
        check_file(file, TASK, 7)


def test_an_import_stops_when_asked(tmp_path, recordings):
    file = write(tmp_path / "d.hdf5", recordings)
    (tmp_path / "set").mkdir()
    done = []
    with pytest.raises(Stopped):
        import_hdf5(
            SPEC,
            TASK,
            file,
            tmp_path / "set",
            progress=lambda at, total: done.append(at),
            should_stop=lambda: len(done) == 1,
        )
    assert not (tmp_path / "set" / "demos.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributes": {"repository_version": "1.5.1"}}, r"recorded with robosuite 1\.5\.1, and its states"),
        (
            {"env": {"controller_configs": {"type": "JOINT_POSITION"}}},
            "with the controller JOINT_POSITION at 20 Hz",
        ),
        ({"env": {"control_freq": 10}}, "OSC_POSE at 10 Hz, not OSC_POSE at 20 Hz"),
        ({"attributes": {"env_args": "{"}}, "env_args is not valid JSON"),
        ({"attributes": {"bddl_file_name": ""}}, "does not say its task"),
        ({"attributes": {"bddl_file_name": "x/y.bddl"}}, "unknown LIBERO suite or task 'y'"),
        ({"task": "libero_10-3"}, "demonstrates libero_10-3, not libero_object-0"),
        ({"names": ["a", "b", "c"]}, "holds no demonstrations"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(tmp_path, recordings, changes, message):
    file = write(tmp_path / "d.hdf5", recordings, **changes)
    with pytest.raises(UserError, match=message) as caught:
        import_hdf5(SPEC, TASK, file, tmp_path)
    assert "\n" not in str(caught.value)


def test_states_of_another_version_are_refused(tmp_path, recordings):
    states, actions = recordings[0]
    file = write(tmp_path / "d.hdf5", [(states[:, :-3], actions)])
    with pytest.raises(
        UserError, match=r"have 107 numbers, and libero_object-0 has 110 here: it was recorded with"
    ):
        import_hdf5(SPEC, TASK, file, tmp_path)


@pytest.mark.parametrize(
    ("states", "actions", "message"),
    [
        (np.zeros((4, 110)), np.zeros((4, 6)), r"actions \(4, 6\) and states"),
        (np.zeros((4, 110)), np.zeros((5, 7)), "are not .T, 7. and"),
        (np.full((4, 110), np.nan), np.zeros((4, 7)), "not finite"),
        (np.zeros((0, 110)), np.zeros((0, 7)), "is empty"),
        (np.zeros((4, 110)), np.array([b"x"] * 4), "no array of numbers 'actions'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, states, actions, message):
    file = write(tmp_path / "d.hdf5", [(states, actions)])
    with pytest.raises(UserError, match=message):
        read_recording(file, "demo_0")


def test_links_into_other_files_are_not_followed(tmp_path, recordings):
    other = write(tmp_path / "other.hdf5", recordings)
    file = write(tmp_path / "d.hdf5", recordings)
    with h5py.File(file, "a") as store:
        del store["data/demo_0/states"]
        store["data/demo_0/states"] = h5py.ExternalLink(str(other), "data/demo_0/states")
    with pytest.raises(UserError, match=r"has the link .data.demo_0.states to another place or file"):
        read_recording(file, "demo_0")
    with h5py.File(file, "w") as store:
        store["data"] = h5py.ExternalLink(str(other), "data")
    with pytest.raises(UserError, match="has the link /data to another place or file"):
        task_of(file)


def test_a_file_that_is_no_hdf5_is_one_sentence(tmp_path):
    (tmp_path / "x.hdf5").write_text("no")
    with pytest.raises(UserError, match="is no HDF5 file"):
        task_of(tmp_path / "x.hdf5")
    with pytest.raises(UserError, match="is missing"):
        task_of(tmp_path / "missing.hdf5")


def test_where_the_fixtures_stood_is_read_from_the_model(tmp_path, recordings):
    model = (
        "<mujoco><worldbody><body name='stove' pos='1 2 3' quat='0 1 0 0'><body name='knob' pos='9 9 9'/></body>"
        "<body name='rack'/></worldbody></mujoco>"
    )
    places = fixture_places(model, ("stove", "rack", "none"))
    assert set(places) == {"stove", "rack"}
    assert [p.tolist() for p in places["stove"]] == [[1, 2, 3], [0, 1, 0, 0]]
    assert [p.tolist() for p in places["rack"]] == [[0, 0, 0], [1, 0, 0, 0]]
    file = write(tmp_path / "d.hdf5", recordings[:1])
    with h5py.File(file, "a") as store:
        store["data/demo_0"].attrs["model_file"] = "<mujoco>"
    with pytest.raises(UserError, match="model_file is not MuJoCo's XML"):
        import_hdf5(SPEC, TASK, file, tmp_path)
