"""HDF5 that is not as it should be: demonstrations of different shapes, links to other files, damage."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from compression_gap.demos import DemoSet
from compression_gap.demos.importing import Wanted, import_demos, open_source, resolve
from compression_gap.errors import UserError
from compression_gap.store.store import Store


@pytest.fixture
def first(hdf5):
    return min(hdf5.iterdir())


def refused(path, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_demonstrations_of_different_shapes(hdf5, first):
    with h5py.File(first, "a") as file:
        rows = len(file["data/demo_1/actions"])
        del file["data/demo_1/actions"]
        file["data/demo_1/actions"] = np.zeros((rows, 5))
    refused(hdf5, r"data/demo_1 has actions of shape \(5,\), the demonstrations before have \(3,\)")


def test_a_field_with_other_rows_than_actions(hdf5, first):
    with h5py.File(first, "a") as file:
        del file["data/demo_0/obs/ee_states"]
        file["data/demo_0/obs/ee_states"] = np.zeros((3, 2))
    refused(hdf5, r"data/demo_0 has 3 rows of obs/ee_states for 8 actions")


def test_links_to_other_files_are_not_followed(hdf5, first, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["actions"] = np.zeros((7, 3))
    with h5py.File(first, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/actions")
    refused(hdf5, "has the link /data/demo_0/actions to another place or file, which is not followed")


def test_external_storage_is_not_read(hdf5, first, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(7 * 3 * 4))
    with h5py.File(first, "a") as file:
        del file["data/demo_0/actions"]
        outside = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        file["data/demo_0"].create_dataset("actions", (7, 3), "f4", external=outside)
    refused(hdf5, "external files, which are not read")


def test_damage_and_other_layouts(hdf5, first, tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["numbers"] = np.zeros(3)
    refused(tmp_path / "other.hdf5", "holds no group 'data' with demonstrations")
    first.write_bytes(first.read_bytes()[:2000])
    refused(hdf5, "is damaged or incomplete")


def test_demo_2_comes_before_demo_10(tmp_path):
    with h5py.File(tmp_path / "many.hdf5", "w") as file:
        for i in range(12):
            file[f"data/demo_{i}/actions"] = np.full((2, 1), i, np.float32)
    rows = np.concatenate(list(open_source(tmp_path / "many.hdf5").read("actions")))
    assert rows[::2, 0].tolist() == list(range(12))


def test_observations_taken_after_their_actions_are_paired_with_the_next(tmp_path):
    """What the joints in ``states`` say counts, whoever wrote the file; without them LIBERO's mark."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(300, 12))
    after = np.concatenate([states[1:, 1:8], np.zeros((1, 7))])
    cases = {"after": (after, True), "before": (states[:, 1:8], True), "unknown": (np.zeros((300, 7)), False)}
    for name, (joints, libero) in cases.items():
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            data = file.create_group("data")
            if libero:
                data.attrs["problem_info"] = '{"language_instruction": "lift"}'
            demo = data.create_group("demo_0")
            demo["actions"] = np.arange(300.0)[:, None]
            demo["states"], demo["obs/joint_states"] = states, joints
            demo["obs/seen"] = demo["robot_states"] = np.arange(300.0)[:, None]
        source = open_source(tmp_path / f"{name}.hdf5")
        read = {n: np.concatenate(list(source.read(n))) for n in source.fields}
        late = name == "after"
        assert source.lengths == (300 - late,)
        assert len(source.notes) == late
        np.testing.assert_array_equal(read["actions"][:, 0], np.arange(300.0)[late:])
        np.testing.assert_array_equal(read["obs/seen"][:, 0], np.arange(300.0)[: 300 - late])
        np.testing.assert_array_equal(read["robot_states"], read["obs/seen"])
        np.testing.assert_array_equal(read["states"], states[late:])
        if libero:
            np.testing.assert_array_equal(read["obs/joint_states"], read["states"][:, 1:8])


def test_a_demonstration_of_one_late_observation(tmp_path):
    with h5py.File(tmp_path / "short.hdf5", "w") as file:
        file.create_group("data").attrs["problem_info"] = "{}"
        file["data/demo_0/actions"] = np.zeros((1, 2))
    refused(tmp_path / "short.hdf5", "data/demo_0 has no frames; remove it")


# As robomimic and robosuite write them


def robomimic(file, episodes=6, *, observations=True, masks=None, success=None):
    """A file of robomimic's layout; ``masks``: the names of each filter key."""
    with h5py.File(file, "w") as opened:
        data = opened.create_group("data")
        data.attrs["total"] = 5 * episodes
        data.attrs["env_args"] = '{"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}'
        for i in range(episodes):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"], demo.attrs["model_file"] = 5, "<mujoco/>"
            demo["actions"], demo["states"] = np.full((5, 7), i / 10), np.ones((5, 32))
            if success is not None:
                demo.attrs["success"] = success[i]
            if observations:
                for name, size in (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2)):
                    demo[f"obs/robot0_{name}"] = demo[f"next_obs/robot0_{name}"] = np.ones((5, size))
                demo["obs/agentview_image"] = np.zeros((5, 8, 8, 3), np.uint8)
        for name, demos in (masks or {}).items():
            opened[f"mask/{name}"] = np.array([f"demo_{i}" for i in demos], dtype="S8")
    return file


def imported(path, tmp_path, **wanted):
    store = Store(tmp_path / "store")
    source = open_source(path)
    recipe, _ = import_demos(source, Wanted(**wanted), store)
    return DemoSet.load(store.open(recipe)), source.notes, recipe


def test_the_masks_are_the_split(tmp_path):
    """Those for validation are held out, by turns for validation and test; a mask of fewer is another thing."""
    masks = {"train": [0, 2, 4, 5], "valid": [3, 1], "20_percent": [0], "20_percent_train": [0]}
    demos, notes, _ = imported(robomimic(tmp_path / "a.hdf5", masks=masks), tmp_path)
    assert [e.split for e in demos.episodes] == ["train", "validation", "train", "test", "train", "train"]
    assert any("its own split is kept (4 train, 1 validation, 1 test)" in n for n in notes)


def test_a_mask_for_testing(tmp_path):
    masks = {"train": [0, 1, 2], "valid": [3], "test": [4, 5]}
    demos, _, _ = imported(robomimic(tmp_path / "a.hdf5", masks=masks), tmp_path)
    assert [e.split for e in demos.episodes] == [*["train"] * 3, "validation", "test", "test"]


@pytest.mark.parametrize(
    ("masks", "why"),
    [
        ({"train": [0, 1, 2, 3], "valid": [4]}, r"it names 5 of 6 episodes"),
        ({"train": [0, 1, 2, 3], "valid": [3, 4, 5]}, r"it names 5 of 6 episodes"),
        ({"train": [0, 1, 2, 3, 4], "valid": [5]}, r"it leaves 'Lift' without test episodes"),
    ],
)
def test_masks_that_give_no_split_are_told(tmp_path, masks, why):
    demos, notes, recipe = imported(robomimic(tmp_path / "a.hdf5", masks=masks), tmp_path)
    assert any("its own split is not taken, and episodes are split anew" in n and why in n for n in notes)
    assert "episode_splits" not in recipe.spec["import"]
    assert {e.split for e in demos.episodes} == {"train", "validation", "test"}


def test_demonstrations_that_failed_are_told(tmp_path):
    success = [True, np.False_, True, False, 0, 1]
    _, notes, _ = imported(robomimic(tmp_path / "a.hdf5", success=success), tmp_path)
    (note,) = notes
    assert "3 demonstrations (demo_1, demo_3, demo_4) have the attribute success=False" in note
    _, notes, _ = imported(robomimic(tmp_path / "b.hdf5", success=[True] * 6), tmp_path)
    assert notes == []


def test_without_observations_the_true_state_is_not_offered(tmp_path):
    file = robomimic(tmp_path / "raw.hdf5", observations=False)
    for wanted in (Wanted(), Wanted(state=("states",))):
        with pytest.raises(
            UserError, match=r"hold no observations \(no group obs\).*dataset_states_to_obs"
        ) as caught:
            resolve(open_source(file), wanted)
        assert "--state" not in str(caught.value)


def test_states_are_never_listed_as_the_robots_own(tmp_path):
    file = robomimic(tmp_path / "a.hdf5")
    with h5py.File(file, "a") as opened:
        for demo in opened["data"].values():
            demo.move("obs/robot0_eef_pos", "obs/arm")
            demo["obs/object"] = np.ones((5, 3))
    with pytest.raises(UserError, match="give --state") as caught:
        resolve(open_source(file), Wanted())
    assert str(caught.value).endswith("(found: obs/arm, obs/robot0_eef_quat, obs/robot0_gripper_qpos)")
    _, notes, _ = imported(file, tmp_path, state=("states",))
    assert any("states[0:32] is taken as the robot's own state" in n for n in notes)


def test_a_filter_that_is_not_installed_is_the_cause(tmp_path):
    """LZF's number in the file is replaced by one that no filter has."""
    file = robomimic(tmp_path / "a.hdf5", 3)
    with h5py.File(file, "a") as opened:
        del opened["data/demo_1/actions"]
        about = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        about.set_chunk((5, 7))
        about.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((5, 7))
        made = h5py.h5d.create(opened["data/demo_1"].id, b"actions", h5py.h5t.IEEE_F32LE, space, about)
        h5py.Dataset(made)[:] = np.ones((5, 7), np.float32)
    data = file.read_bytes()
    code = h5py.h5z.FILTER_LZF.to_bytes(2, "little")
    at = (
        data.index(code + b"\x04\x00\x01\x00", 0)
        if code + b"\x04\x00\x01\x00" in data
        else data.rindex(b"lzf\0") - 8
    )
    file.write_bytes(data[:at] + (31999).to_bytes(2, "little") + data[at + 2 :])
    with pytest.raises(
        UserError, match=r"data/demo_1/actions is stored with the HDF5 filter 31999 .*not installed here"
    ):
        list(open_source(file).read("actions"))


def test_a_file_that_is_open_elsewhere_is_not_called_damaged(tmp_path):
    file = robomimic(tmp_path / "a.hdf5", 3)
    data = bytearray(file.read_bytes())
    at = data.index(b"\x89HDF")
    if data[at + 8] < 3:  # the superblock of this version has no flag for writers
        with h5py.File(file, "r") as old, h5py.File(tmp_path / "b.hdf5", "w", libver="latest") as new:
            old.copy("data", new)
        file = tmp_path / "b.hdf5"
    program = f"import h5py, os; f = h5py.File({str(file)!r}, 'a'); f['data'].attrs['x'] = 1; f.flush(); os._exit(0)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    with pytest.raises(UserError, match=r"is open in another program, or was not closed by it .*h5clear"):
        open_source(file)


@pytest.mark.parametrize("rate", ["NaN", "-5", "1e400", '"20"'])
def test_a_control_rate_that_is_none(tmp_path, rate):
    file = robomimic(tmp_path / "a.hdf5", 3)
    with h5py.File(file, "a") as opened:
        opened["data"].attrs["env_args"] = f'{{"env_kwargs": {{"control_freq": {rate}}}}}'
    refused(file, r"gives control_freq as .*, not a finite number above 0")
