"""HDF5 that is not as it should be: demonstrations of different shapes, links to other files, damage."""

import h5py
import numpy as np
import pytest

from compression_gap.demos.importing import open_source
from compression_gap.errors import UserError


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
