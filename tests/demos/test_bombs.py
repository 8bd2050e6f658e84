"""Small files that claim, or unpack to, more than the memory holds; and what would be waited for, or lead elsewhere."""

import json
import os

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from compression_gap.demos import hdf5_file, lerobot_meta, source, tables, video
from compression_gap.demos.checks import ROW_BYTES
from compression_gap.demos.importing import Wanted, import_demos, open_source
from compression_gap.demos.lerobot import LeRobot
from compression_gap.demos.source import BLOCK_BYTES, block_rows, check_files, inside
from compression_gap.demos.video import VideoWriter, decode_frames
from compression_gap.errors import UserError
from compression_gap.store.store import Store


def test_rows_that_are_large_come_one_by_one():
    assert block_rows((480, 640, 3)) == 128
    assert block_rows((4096, 4096, 3)) * 4096 * 4096 * 3 <= BLOCK_BYTES
    assert block_rows((ROW_BYTES,), 8) == 1
    assert block_rows((7,), 4, 4096) == 4096


def test_images_are_the_same_in_blocks_of_any_size(v3, monkeypatch):
    whole = np.concatenate(list(LeRobot(v3).read("observation.images.front")))
    monkeypatch.setattr(source, "BLOCK_BYTES", 3 * 16 * 16 * 3)
    parts = list(LeRobot(v3).read("observation.images.front"))
    assert max(map(len, parts)) == 3
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_pipe_and_a_link_to_itself_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    check_files(tmp_path, ["file", "link", "absent"])
    for name, said in (
        ("pipe", "neither a file nor a folder"),
        ("loop", "leads nowhere"),
        ("out", "leaves the"),
    ):
        with pytest.raises(UserError, match=said):
            inside(tmp_path, name)
        with pytest.raises(UserError, match=said):
            check_files(tmp_path, [name])


def refused(path, store, said):
    with pytest.raises(UserError, match=said) as caught:
        import_demos(open_source(path), Wanted(), Store(store))
    assert "\n" not in str(caught.value)


def info(root, change):
    file = root / "meta/info.json"
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))


def test_a_template_makes_no_long_path(v21, tmp_path):
    info(v21, lambda about: about.update(data_path="x" * 5000))
    refused(v21, tmp_path / "s", "path template a long str: it has more than 1024 characters")
    info(v21, lambda about: about.update(data_path="{episode_index:999999999d}"))
    refused(v21, tmp_path / "s", "path template '{episode_index:999999999d}'")


@pytest.mark.parametrize("made", ["v21", "v3_video"])
def test_episodes_and_cameras_together_are_bounded(made, tmp_path, monkeypatch, request):
    monkeypatch.setattr(lerobot_meta, "MOST_VIDEOS", 10)
    refused(request.getfixturevalue(made), tmp_path / "s", "lists more than 10 episodes and videos")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array(["x" * 10_000] * 6), "holds values of type (large_)?string in a, not numbers"),
        (pa.array([[0.0] * 100] * 6), "holds values of type list.* in a, not numbers"),
    ],
)
def test_columns_are_looked_at_before_they_are_read(column, said, tmp_path, monkeypatch):
    parquet.write_table(pa.table({"a": column}), tmp_path / "t.parquet")
    monkeypatch.setattr(parquet.ParquetFile, "read", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(UserError, match=said):
        tables.read_table(tmp_path / "t.parquet", ["a"])


def test_a_column_of_images_holds_bytes(v3, tmp_path):
    file = next((v3 / "data").rglob("*.parquet"))
    table = parquet.read_table(file)
    at = table.column_names.index("observation.images.front")
    junk = pa.array([[1.0] * 3] * len(table))
    parquet.write_table(table.set_column(at, "observation.images.front", junk), file)
    refused(v3, tmp_path / "s", "holds values of type list.* in observation.images.front, not images")


def hostile(folder, **options):
    with h5py.File(folder / "a.hdf5", "w") as file:
        return file.create_dataset("x", data=np.zeros((64, 1024)), **options).name


@pytest.mark.parametrize(
    ("bound", "options", "said"),
    [
        ("CHUNK_BYTES", {"chunks": (64, 1024)}, "has chunks of more than 0 MiB"),
        (
            "MOST_UNPACKED",
            {"chunks": (64, 1024), "compression": "gzip"},
            "unpacks to more than its chunks hold",
        ),
    ],
)
def test_chunks_of_hdf5_are_bounded(bound, options, said, tmp_path, monkeypatch):
    hostile(tmp_path, **options)
    with h5py.File(tmp_path / "a.hdf5") as file:
        hdf5_file.check_filters(file["x"], "a")
        monkeypatch.setattr(hdf5_file, bound, 2**18)
        with pytest.raises(UserError, match=said):
            hdf5_file.check_filters(file["x"], "a")


def test_an_attribute_is_one_value(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs["one"], file.attrs["many"] = "x", ["x"] * 1000
        assert hdf5_file.attribute(file, "one", "a") == "x"
        assert hdf5_file.attribute(file, "none", "a") is None
        with pytest.raises(UserError, match="attribute many is no single value"):
            hdf5_file.attribute(file, "many", "a")


def test_a_video_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    writer = VideoWriter(tmp_path / "film.mp4", (64, 64), 10.0, 30)
    writer.write(np.zeros((64, 64, 3), np.uint8), first=True)
    writer.close()
    assert sum(map(len, decode_frames(tmp_path / "film.mp4", np.zeros(1), 10.0, "film"))) == 1
    monkeypatch.setattr(
        video, "ROW_BYTES", 3 * 63 * 63
    )  # of the codec: the file's own claim is below the row's bound
    with pytest.raises(UserError, match="film"):
        list(decode_frames(tmp_path / "film.mp4", np.zeros(1), 10.0, "film"))
