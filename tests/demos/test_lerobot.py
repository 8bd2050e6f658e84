"""LeRobotDatasets that are not as they should be: one sentence each, and nothing read from elsewhere."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from compression_gap.demos import DemoSet
from compression_gap.demos.importing import Wanted, import_demos, open_source
from compression_gap.demos.lerobot_export import export_lerobot
from compression_gap.errors import UserError
from compression_gap.store.store import Store

from .conftest import FPS


def load(root, tmp_path):
    store = Store(tmp_path / "store")
    recipe, _ = import_demos(open_source(root), Wanted(), store)
    return DemoSet.load(store.open(recipe))


def refused(root, tmp_path, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        load(root, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "store").rglob("*.npy"))


def edit(file, change):
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))


def test_a_video_shorter_than_its_table(v21, tmp_path):
    films = v21 / "videos/chunk-000/observation.images.front"
    (films / "episode_000001.mp4").write_bytes((films / "episode_000000.mp4").read_bytes())  # 7 frames for 12
    refused(
        v21, tmp_path, r"episode_000001\.mp4 is shorter than its table: it ends at 0\.600 s.* at 0\.700 s"
    )


def test_a_video_that_is_missing(v21, tmp_path):
    (v21 / "videos/chunk-000/observation.images.wrist/episode_000002.mp4").unlink()
    refused(v21, tmp_path, r"episode_000002\.mp4 is missing; the data set is incomplete")


def test_a_video_that_is_none(v21, tmp_path):
    (v21 / "videos/chunk-000/observation.images.wrist/episode_000002.mp4").write_bytes(b"no film" * 100)
    refused(v21, tmp_path, r"episode_000002\.mp4 is damaged or incomplete")


def test_two_rates_in_one_set(v21, tmp_path):
    file = v21 / "data/chunk-000/episode_000003.parquet"
    table = parquet.read_table(file)
    at = table.column_names.index("timestamp")
    slow = pa.array((np.arange(len(table)) / 5).astype(np.float32))
    parquet.write_table(table.set_column(at, "timestamp", slow), file)
    refused(v21, tmp_path, r"not that of fps 10 \(two rates in one set\?\)")


def test_two_rates_in_the_metadata(v21, tmp_path):
    def change(about):
        about["features"]["observation.images.front"]["info"] = {"video.fps": 30}

    edit(v21 / "meta/info.json", change)
    refused(v21, tmp_path, r"has two rates, fps 10 and 30 for the videos of observation\.images\.front")


def test_a_rate_as_a_fraction(v21, recordings, tmp_path):
    def change(rate):
        return lambda about: about["features"]["observation.images.front"].update(info={"video.fps": rate})

    edit(v21 / "meta/info.json", change("10/1"))
    assert len(load(v21, tmp_path).episodes) == len(recordings.tasks)
    edit(v21 / "meta/info.json", change("fast"))
    with pytest.raises(UserError, match=r"gives the videos of observation\.images\.front a rate of 'fast'"):
        open_source(v21)


@pytest.mark.parametrize("width", [2, 5])
def test_a_shape_that_is_not_that_of_the_table(v21, tmp_path, width):
    edit(v21 / "meta/info.json", lambda about: about["features"]["action"].update(shape=[width]))
    refused(v21, tmp_path, rf"has 3 numbers of action a row, meta/info\.json says {width}; correct its shape")


def test_a_corrupt_table(v21, tmp_path):
    file = v21 / "data/chunk-000/episode_000000.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    refused(v21, tmp_path, r"episode_000000\.parquet is damaged or incomplete")


def test_a_table_with_a_row_too_few(v21, tmp_path):
    file = v21 / "data/chunk-000/episode_000000.parquet"
    parquet.write_table(parquet.read_table(file).slice(0, 5), file)
    refused(v21, tmp_path, r"holds 5 rows that are not the 7 frames of the episodes 0 to 0")


@pytest.mark.parametrize(
    "template", ["../../{episode_index:06d}.parquet", "/etc/{episode_index:06d}", "a/../../b"]
)
def test_a_path_that_leaves_the_folder(v21, tmp_path, template):
    edit(v21 / "meta/info.json", lambda about: about.update(data_path=template))
    refused(v21, tmp_path, "leaves the data set's folder, and is not read")


def test_a_template_that_reaches_for_attributes(v21, tmp_path):
    edit(v21 / "meta/info.json", lambda about: about.update(data_path="{episode_index.__class__}"))
    refused(v21, tmp_path, "has no meaning there")


def test_a_link_that_leaves_the_folder(v21, tmp_path):
    film = v21 / "videos/chunk-000/observation.images.front/episode_000000.mp4"
    film.rename(tmp_path / "film.mp4")
    film.symlink_to(tmp_path / "film.mp4")
    refused(v21, tmp_path, "is a link that leaves the data set's folder, and is not followed")


def test_another_version(v21, tmp_path):
    edit(v21 / "meta/info.json", lambda about: about.update(codebase_version="v1.6"))
    refused(v21, tmp_path, r"is a LeRobotDataset v1\.6; convert it to v3\.0")


def test_totals_that_disagree(v3, tmp_path):
    edit(v3 / "meta/info.json", lambda about: about.update(total_frames=1000))
    refused(v3, tmp_path, "says total_frames 1000, the tables hold 57")


def test_metadata_that_is_no_json(v3, tmp_path):
    (v3 / "meta/info.json").write_text('{"features": ')
    refused(v3, tmp_path, "is not valid JSON")


def test_episodes_in_one_video_begin_where_they_should(recordings, tmp_path):
    """v3 joins episodes in a file: frame i of an episode is not confused with its neighbour's."""
    export_lerobot(recordings.demoset(tmp_path / "made"), tmp_path / "set", fps=FPS, video_mb=1e-9)
    apart = load(tmp_path / "set", tmp_path / "one")
    export_lerobot(recordings.demoset(tmp_path / "made2"), tmp_path / "set2", fps=FPS)
    joined = load(tmp_path / "set2", tmp_path / "two")
    assert len(list((tmp_path / "set").rglob("*.mp4"))) == 12
    assert len(list((tmp_path / "set2").rglob("*.mp4"))) == 2
    for demos in (apart, joined):
        for e in demos.episodes:
            seen = demos.images["front"][e.start : e.start + e.length].astype(int).mean((1, 2, 3))
            wanted = recordings.joined("front")[e.start : e.start + e.length].mean((1, 2, 3))
            np.testing.assert_allclose(seen, wanted, atol=2.5)
