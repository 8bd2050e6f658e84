"""A set written as a LeRobotDataset v3.0: the layout of the format, and the numbers of the set."""

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest

from compression_gap.cli import main
from compression_gap.demos.lerobot_export import export_lerobot
from compression_gap.errors import UserError

from .conftest import CAMERAS, FPS


def test_the_layout_is_that_of_the_format(v3_video, recordings):
    info = json.loads((v3_video / "meta/info.json").read_text())
    frames = len(recordings.joined("actions"))
    assert (info["codebase_version"], info["fps"]) == ("v3.0", FPS)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (6, frames, 2)
    for camera in CAMERAS:
        assert info["features"][f"observation.images.{camera}"]["dtype"] == "video"
        assert (v3_video / f"videos/observation.images.{camera}/chunk-000/file-000.mp4").is_file()
    table = parquet.read_table(v3_video / "data/chunk-000/file-000.parquet")
    np.testing.assert_array_equal(np.stack(table["action"].to_pylist()), recordings.joined("actions"))
    np.testing.assert_array_equal(table["index"].to_numpy(), np.arange(frames))
    starts = np.cumsum([0, *(len(a) for a in recordings.actions)])
    episodes = parquet.read_table(v3_video / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [e["dataset_from_index"] for e in episodes] == starts[:-1].tolist()
    assert [e["dataset_to_index"] for e in episodes] == starts[1:].tolist()
    assert [e["tasks"] for e in episodes] == [[t] for t in recordings.tasks]
    assert [e["videos/observation.images.front/from_timestamp"] for e in episodes] == pytest.approx(
        starts[:-1] / FPS
    )


def test_statistics_are_those_of_the_numbers(v3, recordings):
    stats = json.loads((v3 / "meta/stats.json").read_text())["action"]
    actions = recordings.joined("actions").astype(np.float64)
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(stats[name], getattr(actions, name)(0), rtol=1e-5)


def test_a_folder_that_is_there_is_left_alone(recordings, tmp_path):
    demos = recordings.demoset(tmp_path / "made")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(UserError, match="out"):
        export_lerobot(demos, tmp_path / "out", fps=FPS)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_verb_exports_what_it_imported(hdf5, recordings, tmp_path, capsys):
    store = ["--store", str(tmp_path / "store")]
    assert main(["demos", "import", str(hdf5), *store, "--json"]) == 0
    folder = json.loads(capsys.readouterr().out)["folder"]
    assert main(["demos", "export", folder, str(tmp_path / "out"), "--images"]) == 0
    capsys.readouterr()
    assert main(["demos", "import", str(tmp_path / "out"), *store, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["format"], again["frames"], again["fps"]) == ("lerobot-v3.0", 57, 20.0)
    assert main(["demos", "export", str(tmp_path), str(tmp_path / "out2")]) == 2
