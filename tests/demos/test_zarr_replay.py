"""Zarr replay buffers: folders and zips; pickles are never decoded."""

import json
import shutil

import numpy as np
import pytest
import zarr

from compression_gap.artifacts import Store
from compression_gap.demos import DemoSet
from compression_gap.demos.importing import Wanted, import_demos, open_source
from compression_gap.errors import UserError


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
