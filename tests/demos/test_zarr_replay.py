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
