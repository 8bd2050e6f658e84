"""Zarr replay buffers: folders and zips; pickles are never decoded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from compression_gap.demos import DemoSet
from compression_gap.demos.importing import Wanted, import_demos, open_source, resolve
from compression_gap.errors import UserError
from compression_gap.store.store import Store


def refused(path, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        list(open_source(path).read("action"))
    assert "\n" not in str(caught.value)


def test_a_zip_holds_the_same_as_its_folder(replay, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "replay"), "zip", replay)
    sets = []
    for path in (replay, tmp_path / "replay.zip"):
        assert str(path) in (str(replay), zipped)
        store = Store(tmp_path / f"store-{path.suffix}")
        recipe, _ = import_demos(open_source(path), Wanted(task_text="t"), store)
        sets.append(DemoSet.load(store.open(recipe)))
    for a, b in zip((sets[0].actions, sets[0].proprio), (sets[1].actions, sets[1].proprio), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ends_that_do_not_rise(replay):
    ends = zarr.open_group(replay, mode="a")["meta/episode_ends"]
    ends[2] = 1
    refused(replay, "episode_ends")


def test_a_pickle_codec_is_refused(replay):
    file = replay / "data" / "action" / ".zarray"
    about = json.loads(file.read_text())
    about["filters"] = [{"id": "pickle"}]
    file.write_text(json.dumps(about))
    refused(replay, "stored with the pickle codec, which can run code")


def test_a_link_out_of_the_folder(replay, tmp_path):
    chunk = next(f for f in (replay / "data" / "action").iterdir() if not f.name.startswith("."))
    chunk.rename(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    refused(replay, "is a link that leaves the data set's folder")


def test_a_damaged_chunk(replay):
    chunk = next(f for f in (replay / "data" / "action").iterdir() if not f.name.startswith("."))
    chunk.write_bytes(b"damage")
    refused(replay, "is damaged or incomplete")


def test_a_missing_chunk_is_not_read_as_zeros(replay):
    (replay / "data" / "action" / "3.0").unlink()
    refused(
        replay, r"1 of 12 chunks of data/action are not there, and would be read as zeros; fetch it again"
    )


def test_a_missing_chunk_of_one_number_is_told(replay):
    """Zarr itself leaves out a chunk of zeros, as that of a task's number 0 or of an open gripper."""
    chunk = next(f for f in (replay / "data" / "task_uid").iterdir() if not f.name.startswith("."))
    held = open_source(replay)
    chunk.unlink()
    source = open_source(replay)
    list(source.read("task_uid"))
    assert ["chunks of data/task_uid are not there, and are read as zeros" in n for n in source.notes] == [
        True
    ]
    assert len(held.fields) == len(source.fields)


def test_an_array_of_another_length(replay):
    rows = zarr.open_group(replay, mode="a")["data/wrist_rgb"]
    rows.resize((rows.shape[0] - 1, *rows.shape[1:]))
    refused(replay, "data/wrist_rgb has 56 rows for the 57 frames of meta/episode_ends")


def test_corrected_tasks_make_another_set(replay, tmp_path):
    store = Store(tmp_path / "store")
    first, _ = import_demos(open_source(replay), Wanted(), store)
    tasks = zarr.open_group(replay, mode="a")["data/task_uid"]
    tasks[:] = 1 - tasks[:]
    second, reused = import_demos(open_source(replay), Wanted(), store)
    assert not reused
    names = [[e.task for e in DemoSet.load(store.open(r)).episodes] for r in (first, second)]
    assert all(a != b for a, b in zip(*names, strict=True))


def buffer(root, **fields):
    """Three episodes of four frames of these fields."""
    group = zarr.open_group(root, mode="w", zarr_format=2)
    arrays = {"img": np.ones((12, 8, 8, 3), np.uint8), **fields}
    for name, rows in arrays.items():
        group.create_array(f"data/{name}", data=rows)
    group.create_array("meta/episode_ends", data=np.array([4, 8, 12]))
    return root


@pytest.mark.parametrize("mark", [{"keypoint": np.ones((12, 9, 2))}, {"n_contacts": np.ones((12, 1))}])
def test_the_robot_of_pusht_is_the_agent_alone(tmp_path, mark):
    root = buffer(tmp_path / "pusht.zarr", action=np.ones((12, 2)), state=np.ones((12, 5)), **mark)
    assert open_source(root).proprio() == ("state[0:2]",)


def test_five_numbers_beside_an_action_of_two_are_asked_about(tmp_path):
    """A cart with a pan-tilt head, say: nothing tells its state from PushT's."""
    root = buffer(tmp_path / "cart.zarr", action=np.ones((12, 2)), state=np.arange(60.0).reshape(12, 5))
    refuse = r"as PushT's has, .*give --state state\[0:2\] if it is PushT's, --state state if all are the robot's own"
    with pytest.raises(UserError, match=refuse):
        resolve(open_source(root), Wanted())
    store = Store(tmp_path / "store")
    recipe, _ = import_demos(open_source(root), Wanted(state=("state",)), store)
    np.testing.assert_array_equal(DemoSet.load(store.open(recipe)).proprio, np.arange(60).reshape(12, 5))


@pytest.mark.parametrize("sizes", [(2, 4), (3, 5)])
def test_another_state_is_the_robots_own(tmp_path, sizes):
    root = buffer(tmp_path / "r.zarr", action=np.ones((12, sizes[0])), state=np.ones((12, sizes[1])))
    assert open_source(root).proprio() == ("state",)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("chunks", [float("nan"), 2], r"data/action gives chunks as nan, not a whole number of at least 1"),
        ("chunks", [0, 2], r"data/action gives chunks as 0, not a whole number of at least 1"),
        ("chunks", [5], r"data/action has chunks of 1 dimensions for 2"),
        ("shape", ["12", 2], r"data/action gives shape as '12', not a whole number"),
        ("shape", None, r"data/action gives no shape"),
        ("chunks", [2**40, 2], r"a chunk of data/action has \d+ MiB, too much to read at once"),
    ],
)
def test_sizes_that_are_none(replay, key, value, sentence):
    file = replay / "data/action/.zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    refused(replay, sentence)


def test_ends_stored_as_floats_count_if_they_are_whole(tmp_path):
    root = buffer(tmp_path / "r.zarr", action=np.ones((12, 2)), agent_pos=np.ones((12, 2)))
    group = zarr.open_group(root, mode="a")
    group.create_array("meta/episode_ends", data=np.array([4.0, 8.0, 12.0]), overwrite=True)
    assert open_source(root).lengths == (4, 4, 4)
    group.create_array("meta/episode_ends", data=np.array([4.0, 8.5, 12.0]), overwrite=True)
    refused(root, r"gives meta/episode_ends of episode 1 as 8\.5, not a whole number")
    group.create_array("meta/episode_ends", data=np.array([4, 4, 12]), overwrite=True)
    refused(root, r"does not increase: episode 1 would have 0 frames")


def test_tasks_of_large_numbers_stay_apart(tmp_path):
    uid = np.repeat([1234567, 1234568], 6)
    root = buffer(tmp_path / "r.zarr", action=np.ones((12, 2)), agent_pos=np.ones((12, 2)), task_uid=uid)
    group = zarr.open_group(root, mode="a")
    group.create_array("meta/episode_ends", data=np.arange(2, 13, 2), overwrite=True)
    assert open_source(root).tasks(None) == ["task 1234567"] * 3 + ["task 1234568"] * 3


def test_format_3_with_consolidated_metadata(replay_v3, recordings, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "replay3"), "zip", replay_v3)
    for path in (replay_v3, Path(zipped)):
        rows = np.concatenate(list(open_source(path).read("action")))
        np.testing.assert_array_equal(rows, recordings.joined("actions"))


def test_a_codec_that_is_not_installed_is_the_cause(replay):
    file = replay / "data/action/.zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), "compressor": {"id": "imagecodecs_jpegxl"}}))
    refused(
        replay,
        r"data/action cannot be opened \(.*jpegxl.*\); if its codec is not installed here, store it with Blosc",
    )
