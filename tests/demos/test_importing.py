"""Recordings in, the same set of demonstrations out, whatever the format; what cannot be read is a sentence."""

import json
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from compression_gap.cli.main import main
from compression_gap.demos import DemoSet
from compression_gap.demos.importing import Wanted, import_demos, locate, open_source, resize, resolve
from compression_gap.demos.lerobot_export import export_lerobot
from compression_gap.errors import UserError
from compression_gap.store.store import Store

from .conftest import CAMERAS, FPS


def imported(path, store, **wanted):
    store = Store(store)
    recipe, _ = import_demos(open_source(path), Wanted(**wanted), store)
    return DemoSet.load(store.open(recipe))


def same(demos, recordings, *, cameras=CAMERAS, tolerance=0, tasks=True):
    """The set holds the recordings: order, numbers, frames."""
    lengths = [e.length for e in demos.episodes]
    if tasks:
        assert [e.task for e in demos.episodes] == list(recordings.tasks)
    assert lengths == [len(a) for a in recordings.actions]
    np.testing.assert_array_equal(demos.actions, recordings.joined("actions"))
    np.testing.assert_array_equal(demos.proprio, recordings.joined("proprio"))
    assert tuple(demos.images) == cameras
    for own, camera in zip(cameras, CAMERAS, strict=True):
        off = np.abs(demos.images[own].astype(int) - recordings.joined(camera))
        assert off.mean() <= tolerance


def test_lerobot_v3_with_images_comes_back_identical(v3, recordings, tmp_path):
    same(imported(v3, tmp_path / "store"), recordings)


def test_lerobot_v3_with_videos_comes_back_but_for_their_loss(v3_video, recordings, tmp_path):
    same(imported(v3_video, tmp_path / "store"), recordings, tolerance=3)


def test_lerobot_v21(v21, recordings, tmp_path):
    demos = imported(v21, tmp_path / "store")
    same(demos, recordings, tolerance=3)
    assert demos.source["fps"] == FPS


def test_hdf5(hdf5, recordings, tmp_path):
    """A file a task, in the order of the files; obs/ee_states and obs/gripper_states are the robot's own state."""
    demos = imported(hdf5, tmp_path / "store")
    order = [i for t in sorted(set(recordings.tasks)) for i, u in enumerate(recordings.tasks) if u == t]
    assert [e.task for e in demos.episodes] == [recordings.tasks[i] for i in order]
    np.testing.assert_array_equal(demos.actions, np.concatenate([recordings.actions[i] for i in order]))
    np.testing.assert_array_equal(demos.proprio, np.concatenate([recordings.proprio[i] for i in order]))
    for own, camera in (("front_rgb", "front"), ("wrist_rgb", "wrist")):
        np.testing.assert_array_equal(
            demos.images[own], np.concatenate([recordings.images[camera][i] for i in order])
        )
    assert (demos.state, demos.source["fps"]) == (None, 20.0)


def test_zarr(replay, recordings, tmp_path):
    demos = imported(replay, tmp_path / "store", task_text="anything")
    same(demos, recordings, cameras=("front_rgb", "wrist_rgb"), tasks=False)
    assert demos.tasks == ("anything",)
    by_number = imported(replay, tmp_path / "store", task_key="task_uid")
    assert [e.task for e in by_number.episodes] == ["task 0", "task 1"] * 3


def test_numbers_that_hardly_move_are_named_by_their_field(recordings, tmp_path, capsys):
    """A joint that holds, up to rounding: said at import, with the source's own name and column."""
    still = [a.copy() for a in recordings.actions]
    still[2][3, 1] = np.nextafter(np.float32(90), np.float32(0))
    for i, actions in enumerate(still):
        actions[:, 1] = 90 if i != 2 else np.where(np.arange(len(actions)) == 3, actions[3, 1], 90)
    made = replace(recordings, actions=still).demoset(tmp_path / "made")
    export_lerobot(made, tmp_path / "v3", fps=FPS, images=True)
    words = ["demos", "import", tmp_path / "v3", "--store", tmp_path / "store"]
    for said in ("imported", "there already"):
        code, out, err = run(capsys, *words)
        assert code == 0
        assert said in out
        assert err.strip() == (
            "action[1] stays within 3.8e-06 of 90, which is rounding: it counts as constant"
        )


def test_every_task_is_split_three_ways(v3, tmp_path):
    demos = imported(v3, tmp_path / "store")
    for task in demos.tasks:
        assert {e.split for e in demos.episodes if e.task == task} == {"train", "validation", "test"}


def test_the_second_import_finds_the_first_and_a_change_makes_another(v3, tmp_path):
    store = Store(tmp_path / "store")
    first, again = import_demos(open_source(v3), Wanted(), store)
    assert again is False
    assert import_demos(open_source(v3), Wanted(), store) == (first, True)
    smaller, _ = import_demos(open_source(v3), Wanted(image_size=8), store)
    assert smaller.key != first.key
    shutil.copytree(v3, tmp_path / "elsewhere")
    assert import_demos(open_source(tmp_path / "elsewhere"), Wanted(), store) == (first, True)


def test_frames_are_resized_by_averages_over_areas(v3, recordings, tmp_path):
    demos = imported(v3, tmp_path / "store", image_size=8)
    wanted = recordings.joined("front").reshape(-1, 8, 2, 8, 2, 3).mean((2, 4))
    assert np.abs(demos.images["front"] - wanted).max() <= 0.5
    flat = np.full((1, 6, 4, 3), 77, np.uint8)
    assert (resize(flat, 9) == 77).all()


def test_parts_of_fields_are_joined_in_order(hdf5, tmp_path):
    source = open_source(hdf5)
    wanted = Wanted(
        state=("gripper_states[1:2]", "obs/ee_states"), true_state=("states[0:3]",), cameras=("wrist_rgb",)
    )
    mapping = resolve(source, wanted)
    assert [str(v) for v in mapping.proprio] == ["obs/gripper_states[1:2]", "obs/ee_states[0:2]"]
    demos = imported(
        hdf5, tmp_path / "store", state=wanted.state, true_state=wanted.true_state, cameras=wanted.cameras
    )
    assert (demos.proprio.shape[1], demos.state.shape[1], list(demos.images)) == (3, 3, ["wrist_rgb"])


def test_memory_is_bounded_by_blocks_and_not_by_the_set(tmp_path):
    """A set of 25 MB of frames goes through less than 6 MB."""
    import h5py

    with h5py.File(tmp_path / "large.hdf5", "w") as file:
        for i in range(4):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"] = np.zeros((500, 2), np.float32)
            demo["obs/robot0_eef_pos"] = np.zeros((500, 3), np.float32)
            frames = demo.create_dataset("obs/view_image", (500, 64, 64, 3), np.uint8, chunks=(10, 64, 64, 3))
            frames[:] = np.ones(frames.shape, np.uint8)
    source, store = open_source(tmp_path / "large.hdf5"), Store(tmp_path / "store")
    tracemalloc.start()
    recipe, _ = import_demos(source, Wanted(state=("obs/robot0_eef_pos",)), store)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    frames = DemoSet.load(store.open(recipe)).images["view_image"]
    assert frames.nbytes > 24e6
    assert peak < 6e6


# The command line


def run(capsys, *words):
    code = main([str(w) for w in words])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_the_verb_says_what_it_found(v3, tmp_path, capsys, recordings):
    code, out, _ = run(capsys, "demos", "import", v3, "--store", tmp_path / "store", "--json")
    found = json.loads(out)
    assert code == 0
    wanted = {
        "format": "lerobot-v3.0", "episodes": 6, "frames": len(recordings.joined("actions")), "fps": FPS,
        "cameras": {"front": [16, 16], "wrist": [16, 16]}, "action": 3, "state": 4, "true_state": None,
        "tasks": ["open the drawer", "push the cube"], "reused": False,
    }  # fmt: skip
    assert {k: found[k] for k in wanted} == wanted
    assert found["folder"].endswith(f"demos/{found['key']}")
    code, out, _ = run(capsys, "demos", "import", v3, "--store", tmp_path / "store", "--json")
    assert json.loads(out)["reused"] is True


def test_the_summary_names_what_became_what(hdf5, tmp_path, capsys):
    words = ("demos", "import", hdf5, "--true-state", "states[0:3]", "--store", tmp_path / "store")
    _, out, err = run(capsys, *words)
    assert "action: actions[0:3]; state: obs/ee_states[0:2], obs/gripper_states[0:2]" in out
    assert "true state, for the oracle encoder alone: states[0:3]" in out
    assert "2 tasks" in out
    assert "--image-size" not in err
    _, out, _ = run(capsys, *words[:3], "--task-text", "one", "--store", tmp_path / "store")
    assert "57 frames, 1 task\n" in out
    assert "true state" not in out


def test_cameras_that_no_study_takes_get_a_hint(hdf5, tmp_path, capsys):
    import h5py

    for file in hdf5.iterdir():
        with h5py.File(file, "a") as opened:
            for demo in opened["data"].values():
                rows = len(demo["actions"])
                demo["obs/side_rgb"] = np.zeros((rows, 24, 32, 3), np.uint8)
    words = ("demos", "import", hdf5, "--store", tmp_path / "store")
    code, _, err = run(capsys, *words)
    assert code == 0
    hint = "a study needs square cameras of one size: for one, import the recording again with --image-size"
    assert f"{hint}, as in --image-size 16" in err
    for options in (("--image-size", 16), ("--cameras", "front_rgb", "wrist_rgb")):
        assert hint not in run(capsys, *words, *options)[2]


def refused(capsys, tmp_path, path, *options):
    """One sentence, exit code 2, and a store without a set."""
    code, _, err = run(capsys, "demos", "import", path, *options, "--store", tmp_path / "store")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    left = [p for p in (tmp_path / "store").rglob("*.npy")] if (tmp_path / "store").exists() else []
    assert left == []
    return err


def test_what_cannot_be_inferred_is_asked_for_with_the_list(hdf5, tmp_path, capsys):
    import h5py

    for file in hdf5.iterdir():
        with h5py.File(file, "a") as opened:
            for demo in opened["data"].values():
                demo.move("obs/ee_states", "obs/arm")
    err = refused(capsys, tmp_path, hdf5)
    assert "give --state" in err
    assert "obs/arm" in err
    assert run(capsys, "demos", "import", hdf5, "--state", "arm", "--store", tmp_path / "store")[0] == 0


def test_a_missing_camera(v3, tmp_path, capsys):
    err = refused(capsys, tmp_path, v3, "--cameras", "top")
    assert "for --cameras 'top'" in err
    assert "observation.images.front" in err


def test_no_data_set_and_no_path(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no data set of a known format" in refused(capsys, tmp_path, tmp_path / "empty")
    assert "does not exist" in refused(capsys, tmp_path, tmp_path / "none")


def test_a_hub_id_that_cannot_be_fetched_names_the_local_folder(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="fetch it on another machine and name its local folder"):
        locate("lerobot/pusht")


def test_a_hub_id_is_pinned_by_its_commit(monkeypatch, v3, tmp_path):
    import huggingface_hub

    commit = tmp_path / "snapshots" / ("c" * 40)
    shutil.copytree(v3, commit)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(commit))
    folder, origin = locate("owner/name@main")
    assert (folder, origin) == (commit, {"hub": "owner/name", "revision": "c" * 40})
    recipe, _ = import_demos(open_source(folder), Wanted(), Store(tmp_path / "store"), origin=origin)
    assert recipe.spec["import"]["source"] == {"format": "lerobot-v3.0", **origin}


def test_too_few_episodes_of_a_task(replay, tmp_path, capsys):
    import zarr

    group = zarr.open_group(replay, mode="a")
    uid = group["data/task_uid"]
    uid[:7] = 9
    err = refused(capsys, tmp_path, replay, "--task-key", "task_uid")
    assert "1 episode of 'task 9'" in err


def test_numbers_that_are_none_name_their_frame(hdf5, tmp_path, capsys):
    import h5py

    file = sorted(hdf5.iterdir())[0]
    with h5py.File(file, "a") as opened:
        opened["data/demo_1/actions"][5, 0] = np.nan  # the first has no observation before it
    err = refused(capsys, tmp_path, hdf5)
    assert "NaN or infinite in frame 4 of episode 1" in err
