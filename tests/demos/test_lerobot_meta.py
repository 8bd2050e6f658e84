"""The metadata of LeRobotDatasets as other programs write them: tasks, numbers, splits, files in any order."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from compression_gap.demos.importing import open_source
from compression_gap.demos.lerobot_export import export_lerobot
from compression_gap.errors import UserError

from .conftest import FPS
from .test_importing import imported, same
from .test_lerobot import edit, refused

TASKS = ["open the drawer", "push the cube"]


def write_tasks(root, frame, **options):
    frame.to_parquet(root / "meta/tasks.parquet", **options)


def named(root):
    source = open_source(root)
    return source.tasks(None)


# The texts of the tasks


def test_the_tasks_are_the_unnamed_index_beside_another_text_column(v3, recordings):
    """lerobot 0.4 keeps the texts as the index of a data frame; a column of categories is none."""
    write_tasks(v3, pd.DataFrame({"task_index": [0, 1], "category": ["kitchen", "kitchen"]}, index=TASKS))
    assert "__index_level_0__" in parquet.read_schema(v3 / "meta/tasks.parquet").names
    assert named(v3) == list(recordings.tasks)


def test_a_column_task_comes_before_the_index(v3, recordings):
    write_tasks(v3, pd.DataFrame({"task_index": [0, 1], "task": TASKS}, index=["a", "b"]))
    assert named(v3) == list(recordings.tasks)


def test_an_index_of_another_name(v3, recordings):
    index = pd.Index(TASKS, name="instruction")
    write_tasks(v3, pd.DataFrame({"task_index": [0, 1], "room": ["kitchen", "hall"]}, index=index))
    assert named(v3) == list(recordings.tasks)


def test_texts_by_category_and_numbers_as_floats(v3, recordings):
    write_tasks(v3, pd.DataFrame({"task_index": [0.0, 1.0], "task": pd.Categorical(TASKS)}))
    assert named(v3) == list(recordings.tasks)


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ({"task_index": [0, 1], "a": TASKS, "b": TASKS}, r"does not say which column names the tasks \(its text columns are a, b\)"),
        ({"task_index": [0, 1]}, r"does not say which column names the tasks \(it has no text column\)"),
        ({"task_index": [0, 1], "task": [TASKS[0], None]}, r"gives the task 1 as None, not as a text 'task'"),
        ({"task_index": [0, 1], "task": [None, None]}, r"has no value in any row of task"),
        ({"task_index": [1, 1], "task": TASKS}, r"lists the task 1 twice"),
        ({"task_index": [0, np.nan], "task": TASKS}, r"has no value of task_index in row 1"),
        ({"task_index": [0, 0.5], "task": TASKS}, r"gives task_index of row 1 as 0\.5, not a whole number"),
        ({"task_index": ["0", "1"], "task": TASKS}, r"holds values of type \w+ in task_index, not numbers"),
        ({"task": TASKS}, r"has no column task_index that numbers the tasks"),
    ],
)  # fmt: skip
def test_tasks_that_stay_ambiguous_are_refused(v3, tmp_path, frame, sentence):
    write_tasks(v3, pd.DataFrame(frame), index=False)
    refused(v3, tmp_path, sentence)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"task_index": 1, "task_name": TASKS[1]}, "gives the task 1 as None, not as a text 'task'"),
        ({"task_index": 1, "task": None}, "gives the task 1 as None, not as a text 'task'"),
        ({"task_index": 0, "task": "another"}, "lists the task 0 twice"),
        ({"task_index": 1.5, "task": TASKS[1]}, r"gives task_index of row 1 as 1\.5, not a whole number"),
    ],
)
def test_tasks_of_v21_that_are_none_are_refused(v21, tmp_path, line, sentence):
    lines = [{"task_index": 0, "task": TASKS[0]}, line]
    (v21 / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    refused(v21, tmp_path, sentence)


def test_a_line_of_json_ends_at_a_newline_alone(v21, recordings):
    """A text may hold the separators of Unicode, which Python's splitlines takes for ends of lines."""
    texts = ["open\u2028the\u0085drawer", "push the\u2029cube"]
    lines = [json.dumps({"task_index": i, "task": t}, ensure_ascii=False) for i, t in enumerate(texts)]
    (v21 / "meta/tasks.jsonl").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    assert named(v21) == [texts[TASKS.index(t)] for t in recordings.tasks]


# Numbers


def edit_lines(file, change):
    rows = [json.loads(line) for line in file.read_text().split("\n")]
    change(rows)
    file.write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (6.5, r"gives length of episode 0 as 6\.5, not a whole number from 0 to"),
        (-6, r"gives length of episode 0 as -6, not a whole number"),
        (float("nan"), r"gives length of episode 0 as nan, not a whole number"),
        (None, r"gives length of episode 0 as None, not a whole number"),
        (10**300, r"gives length of episode 0 as a long int, not a whole number"),
        (0, r"episode 0 has no frames; remove it"),
    ],
)
def test_lengths_of_v21(v21, tmp_path, value, sentence):
    edit_lines(v21 / "meta/episodes.jsonl", lambda rows: rows[0].update(length=value))
    refused(v21, tmp_path, sentence)


def test_an_episode_twice(v21, tmp_path):
    edit_lines(v21 / "meta/episodes.jsonl", lambda rows: rows[1].update(episode_index=0))
    refused(v21, tmp_path, "lists episode 0 twice")


def edit_episodes(root, change):
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    frame = parquet.read_table(file).to_pandas()
    change(frame)
    parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), file)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("length", 7.5, r"gives length of episode 0 as 7\.5, not a whole number"),
        ("length", np.nan, r"(gives length of episode 0 as nan|has no value of length in row 0)"),
        ("episode_index", -1, r"gives episode_index of row 0 as -1, not a whole number"),
        ("data/file_index", 0.5, r"gives data/file_index of episode 0 as 0\.5, not a whole number"),
        ("videos/observation.images.front/to_timestamp", np.inf, r"to_timestamp of episode 0 as inf, not a finite number"),
        ("videos/observation.images.front/from_timestamp", np.nan, r"(as nan, not a finite|has no value of videos)"),
        ("length", "seven", r"holds values of type \w+ in length, not numbers"),
    ],
)  # fmt: skip
def test_numbers_of_v3_episodes(v3_video, tmp_path, column, value, sentence):
    def change(frame):
        if isinstance(value, (float, str)):
            frame[column] = frame[column].astype(object if isinstance(value, str) else float)
        frame.loc[0, column] = value
        if isinstance(value, str):
            frame[column] = frame[column].astype(str)

    edit_episodes(v3_video, change)
    refused(v3_video, tmp_path, sentence)


def test_whole_numbers_that_are_stored_as_floats(v3_video, recordings, tmp_path):
    def change(frame):
        for name in frame.columns:
            if name.endswith("index") or name in ("length", "dataset_from_index"):
                frame[name] = frame[name].astype(float)

    edit_episodes(v3_video, change)
    edit(v3_video / "meta/info.json", lambda about: about["features"]["action"].update(shape=[3.0]))
    same(imported(v3_video, tmp_path / "store"), recordings, tolerance=3)


@pytest.mark.parametrize("fps", [0, -10, float("nan"), float("inf"), None, "10", 10**400])
def test_a_rate_that_is_none(v3, tmp_path, fps):
    (v3 / "meta/info.json").write_text(
        json.dumps({**json.loads((v3 / "meta/info.json").read_text()), "fps": fps})
    )
    refused(v3, tmp_path, r"info\.json gives fps as .*, not a finite number above 0")


# Files


@pytest.mark.parametrize("order", ["alternating", "backwards"])
def test_episodes_whose_videos_do_not_follow_one_another(recordings, tmp_path, order):
    """Two videos by turns, as sets merged from two recorders have them; or one whose episodes lie back to front."""
    import shutil

    export_lerobot(recordings.demoset(tmp_path / "made"), tmp_path / "set", fps=FPS)
    root, at = tmp_path / "set", {}
    film = "videos/observation.images.front"
    shutil.copyfile(root / film / "chunk-000/file-000.mp4", root / film / "chunk-000/file-001.mp4")
    starts = np.cumsum([0, *(len(a) for a in recordings.actions)])

    def change(frame):
        if order == "alternating":
            frame[f"{film}/file_index"] = [0, 1, 0, 1, 0, 1]
        else:  # frame i of the set is shown where episode 5 − i lies: only the lengths must fit
            at["from"] = frame[f"{film}/from_timestamp"].to_numpy()[::-1].copy()
            frame[f"{film}/from_timestamp"] = at["from"]
            frame[f"{film}/to_timestamp"] = at["from"] + frame["length"] / FPS

    if order == "backwards":
        # all episodes as long as the shortest, so that each may lie in another's place
        short = min(len(a) for a in recordings.actions)
        edit_tables_to(root, short, len(recordings.actions))
        starts = np.arange(len(recordings.actions) + 1) * short
    edit_episodes(root, change)
    demos = imported(root, tmp_path / "store")
    assert [e.start for e in demos.episodes] == starts[:-1].tolist()
    seen = demos.images["front"].astype(int).mean((1, 2, 3))
    films = recordings.images["front"] if order == "alternating" else recordings.images["front"][::-1]
    wanted = np.concatenate([f[: e.length] for f, e in zip(films, demos.episodes, strict=True)]).mean(
        (1, 2, 3)
    )
    np.testing.assert_allclose(seen, wanted, atol=2.5)


def edit_tables_to(root, length, episodes):
    """Cut every episode to its first frames, in the table and in meta; the videos stay."""
    file = root / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    parquet.write_table(table.filter(pa.compute.less(table["frame_index"], length)), file)
    edit(root / "meta/info.json", lambda about: about.update(total_frames=length * episodes))

    def change(frame):
        for camera in ("front", "wrist"):
            key = f"videos/observation.images.{camera}"
            frame[f"{key}/to_timestamp"] = frame[f"{key}/from_timestamp"] + length / FPS
        frame["length"] = length
        frame["dataset_from_index"] = np.arange(episodes) * length
        frame["dataset_to_index"] = np.arange(1, episodes + 1) * length

    edit_episodes(root, change)


def test_times_that_overlap_are_refused(v3_video, tmp_path):
    def change(frame):
        key = "videos/observation.images.front"
        frame.loc[1, f"{key}/from_timestamp"] -= 0.2
        frame.loc[1, f"{key}/to_timestamp"] -= 0.2

    edit_episodes(v3_video, change)
    refused(v3_video, tmp_path, "the times of its episodes overlap; correct from_timestamp")


# Splits and success


def test_the_split_that_info_names_is_kept(v3, tmp_path):
    edit(
        v3 / "meta/info.json",
        lambda about: about.update(splits={"train": "0:2", "val": "2:4", "test": "4:6"}),
    )
    demos = imported(v3, tmp_path / "store")
    assert [e.split for e in demos.episodes] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def test_a_split_of_training_alone_is_none(v3):
    assert open_source(v3).marks is None


def test_episodes_without_success_are_noted(v3):
    file = v3 / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    last = np.diff(table["episode_index"].to_numpy(), append=99) > 0
    success = last & ~np.isin(table["episode_index"].to_numpy(), [1, 4])
    parquet.write_table(table.append_column("next.success", pa.array(success)), file)
    edit(
        v3 / "meta/info.json",
        lambda about: about["features"].update({"next.success": {"dtype": "bool", "shape": [1]}}),
    )
    (note,) = open_source(v3).notes
    assert "2 demonstrations (1, 4) have no frame with next.success" in note


def test_a_column_of_text_where_numbers_belong(v3, tmp_path):
    file = v3 / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    text = pa.array(["0"] * len(table))
    parquet.write_table(table.set_column(table.column_names.index("task_index"), "task_index", text), file)
    refused(v3, tmp_path, "holds values of type string in task_index, not numbers")


def test_a_missing_list_of_tasks(v3):
    (v3 / "meta/tasks.parquet").unlink()
    with pytest.raises(UserError, match="is missing"):
        named(v3)
