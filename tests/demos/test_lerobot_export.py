"""A set written as a LeRobotDataset v3.0: the layout of the format, and the numbers of the set."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from compression_gap.api.recordings import frame_rate
from compression_gap.cli.main import main
from compression_gap.demos import DemoSet
from compression_gap.demos.importing import open_source
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


def test_a_simulators_tasks_are_one_set_at_its_own_rate(tmp_path, capsys):
    """The channel's 16 steps are a second; two sets of it stand for two tasks."""
    store = ["--store", str(tmp_path / "store"), "--json"]
    folders = []
    for episodes in (3, 4):
        assert (
            main(["demos", "make", "channel", "--episodes", str(episodes), "--processes", "0", *store]) == 0
        )
        folders.append(json.loads(capsys.readouterr().out)["demos"][0]["folder"])
    assert main(["demos", "export", *folders, str(tmp_path / "out"), "--images", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["frames"], found["fps"]) == (7, 7 * 16, 16)
    assert main(["demos", "import", str(tmp_path / "out"), *store]) == 0
    demos = DemoSet.load(Path(json.loads(capsys.readouterr().out)["folder"]))
    made = [DemoSet.load(Path(f)) for f in folders]
    for name in ("actions", "proprio"):
        np.testing.assert_array_equal(getattr(demos, name), np.concatenate([getattr(m, name) for m in made]))
    np.testing.assert_array_equal(
        demos.images["channel"], np.concatenate([m.images["channel"] for m in made])
    )


def test_rates_of_the_simulators():
    """Meta-World: five physics steps of 2.5 ms; LIBERO: 20 Hz, as its demonstrations were recorded."""
    from compression_gap.sims import SimSpec, sim_info

    assert sim_info(SimSpec(sim="metaworld", tasks=("push-v3",))).control_rate == 1 / (5 * 0.0025)
    assert sim_info(SimSpec(sim="channel", tasks=("reach",))).control_rate == 16
    pytest.importorskip("libero")
    assert sim_info(SimSpec(sim="libero", tasks=("libero_object-0",))).control_rate == 20


def test_sets_of_two_tasks_are_joined(recordings, tmp_path):
    sets = []
    for task in dict.fromkeys(recordings.tasks):
        own = [i for i, t in enumerate(recordings.tasks) if t == task]
        part = replace(
            recordings,
            tasks=tuple(task for _ in own),
            actions=[recordings.actions[i] for i in own],
            proprio=[recordings.proprio[i] for i in own],
            images={c: [f[i] for i in own] for c, f in recordings.images.items()},
        )
        sets.append(part.demoset(tmp_path / f"made-{len(sets)}"))
    found = export_lerobot(sets, tmp_path / "joined", fps=FPS, images=True)
    assert (found.tasks, found.episodes) == (("open the drawer", "push the cube"), 6)
    source = open_source(tmp_path / "joined")
    assert source.tasks(None) == ["open the drawer"] * 3 + ["push the cube"] * 3
    rows = np.concatenate(list(source.read("action")))
    np.testing.assert_array_equal(rows, np.concatenate([s.actions for s in sets]))
    table = parquet.read_table(tmp_path / "joined/data/chunk-000/file-000.parquet")
    np.testing.assert_array_equal(table["index"].to_numpy(), np.arange(len(rows)))


def test_sets_that_differ_are_not_joined(recordings, tmp_path):
    one = recordings.demoset(tmp_path / "one")
    other = replace(one, actions=one.actions[:, :2])
    with pytest.raises(UserError, match="the sets differ in their fields"):
        export_lerobot([one, other], tmp_path / "out", fps=FPS)


def test_a_set_without_a_rate_asks_for_one(recordings, tmp_path):
    demos = replace(recordings.demoset(tmp_path / "made"), source={"kind": "test"})
    with pytest.raises(UserError, match="does not say how many frames a second it has; give --fps"):
        frame_rate(tmp_path, demos)


def test_an_export_needs_demonstrations_and_a_new_folder(tmp_path, capsys):
    assert main(["demos", "export", str(tmp_path)]) == 2
    assert "name the demonstrations, and at the end the new folder" in capsys.readouterr().err
