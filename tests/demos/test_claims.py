"""What a file claims is compared with what there is before memory or disk is taken; metadata stay small."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import namedtuple

import h5py
import numpy as np
import pytest

from compression_gap.demos import importing
from compression_gap.demos.checks import library_errors, real, whole, whole_array
from compression_gap.demos.importing import Wanted, import_demos, open_source
from compression_gap.errors import UserError
from compression_gap.store.store import Store

FRAMES = 2**33


def refused(path, store, sentence, **wanted):
    with pytest.raises(UserError, match=sentence) as caught:
        import_demos(open_source(path), Wanted(**wanted), Store(store))
    assert "\n" not in str(caught.value)
    assert not list(store.rglob("*.npy"))


@pytest.mark.parametrize("value", [7, 7.0, np.int64(7), np.float32(7)])
def test_a_whole_number_stored_as_a_float_counts(value):
    assert whole(value, "length", "meta") == 7
    assert isinstance(whole(value, "length", "meta"), int)


@pytest.mark.parametrize(
    "value", [6.5, -1, float("nan"), float("inf"), True, "7", None, [7], 10**400, 2**53 + 2]
)
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(
        UserError, match=r"^meta gives length of episode 3 as .*, not a whole number of at least 0; correct"
    ):
        whole(value, "length of episode 3", "meta")


def test_an_array_of_whole_numbers_names_the_row_that_is_not():
    assert whole_array(np.array([1.0, 2.0]), "length", "t").dtype == np.int64
    with pytest.raises(UserError, match=r"t gives length of episode 5 as nan"):
        whole_array(np.array([1.0, np.nan]), "length", "t", row=["episode 4", "episode 5"].__getitem__)
    with pytest.raises(UserError, match="t holds values of type bool in length"):
        whole_array(np.array([True]), "length", "t")


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "30", None])
def test_a_rate_is_finite_and_above_0(value):
    with pytest.raises(UserError, match=r"gives fps as .*, not a finite number above 0"):
        real(value, "fps", "info.json", positive=True)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError("file signature not found"), r"f is damaged or incomplete \(file signature not found\); fetch it again"),
        (PermissionError(13, "Permission denied"), r"f cannot be read \(Permission denied\); make it readable"),
        (FileNotFoundError(2, "No such file"), r"f is missing; the data set is incomplete"),
        (NotImplementedError("compression type 9"), r"f is stored in a way that is not read here \(compression type 9\)"),
        (RuntimeError("File 'a' is encrypted, password required"), r"f is stored in a way that is not read here"),
        (OSError("unable to lock file, errno = 11"), r"f is open in another program, or was not closed by it"),
        (MemoryError("128 TiB"), r"f claims more than the memory holds \(128 TiB\)"),
    ],
)  # fmt: skip
def test_only_what_is_damaged_is_called_so(error, sentence):
    with pytest.raises(UserError, match=sentence), library_errors("f", Exception):
        raise error


@pytest.fixture
def sparse(tmp_path):
    """Three demonstrations that claim 2³³ frames each, in a file of some kilobytes."""
    file = tmp_path / "sparse.hdf5"
    with h5py.File(file, "w") as opened:
        for i in range(3):
            for name, row, kind in (
                ("actions", (2,), "f4"),
                ("obs/robot0_eef_pos", (3,), "f4"),
                ("obs/a_image", (64, 64, 3), "u1"),
            ):
                opened.create_dataset(f"data/demo_{i}/{name}", (FRAMES, *row), kind, chunks=(16, *row))
    assert file.stat().st_size < 100_000
    return file


def test_a_claim_beyond_the_disk_is_refused_before_anything_is_written(sparse, tmp_path):
    refused(
        sparse,
        tmp_path / "store",
        r"claims 25769803776 frames, .* GB once they are imported, and the disk",
        state=("robot0_eef_pos",),
    )


def test_parts_that_were_never_written_are_not_read_as_zeros(sparse, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(importing.shutil, "disk_usage", lambda _: usage(2**60))
    where = r"sparse\.hdf5, data/demo_0: 1610612736 of 1610612736 chunks of actions are not there, and would be read as zeros"
    refused(sparse, tmp_path / "store", where, state=("robot0_eef_pos",))


def test_one_chunk_of_a_field_that_was_never_written(tmp_path):
    with h5py.File(tmp_path / "hole.hdf5", "w") as opened:
        for i in range(3):
            opened[f"data/demo_{i}/actions"] = np.ones((40, 2))
            opened[f"data/demo_{i}/obs/view_image"] = np.ones((40, 4, 4, 3), np.uint8)
            for name, row in (("pos", (3,)), ("grip", ())):
                rows = opened.create_dataset(f"data/demo_{i}/obs/{name}", (40, *row), "f4", chunks=(10, *row))
                rows[: 40 if i != 1 else 30] = 1
    refused(
        tmp_path / "hole.hdf5",
        tmp_path / "store",
        r"data/demo_1: 1 of 12 chunks of obs/pos are not there",
        state=("pos",),
    )
    source = open_source(tmp_path / "hole.hdf5")
    assert np.concatenate(list(source.read("obs/grip"))).sum() == 110
    assert source.notes == [
        f"{tmp_path}/hole.hdf5, data/demo_1: 1 of 12 chunks of obs/grip are not there, and are read as zeros"
    ]


def test_a_zip_of_swollen_metadata_is_not_read(replay, tmp_path):
    shutil.make_archive(str(tmp_path / "replay"), "zip", replay)
    with (
        zipfile.ZipFile(tmp_path / "swollen.zip", "w", zipfile.ZIP_DEFLATED) as out,
        zipfile.ZipFile(tmp_path / "replay.zip") as held,
    ):
        for about in held.infolist():
            content = held.read(about)
            out.writestr(about, content + b" " * (2**25 if about.filename.endswith("action/.zarray") else 0))
    refused(
        tmp_path / "swollen.zip",
        tmp_path / "store",
        r"data/action/\.zarray is larger than 16 MiB, too large for metadata",
    )


def test_a_folder_of_swollen_metadata_is_not_read(replay, tmp_path):
    with (replay / "data/.zattrs").open("wb") as stream:
        stream.truncate(2**40)  # sparse: it would fill any memory
    refused(replay, tmp_path / "store", r"\.zattrs is larger than 16 MiB, too large for metadata")


def test_swollen_json_is_not_read(v3, tmp_path):
    os.truncate(v3 / "meta/info.json", 2**40)
    refused(v3, tmp_path / "store", r"info\.json is larger than 64 MiB, too large for metadata")


def test_json_that_nests_too_deeply(v3, tmp_path):
    (v3 / "meta/info.json").write_text('{"features": {"a": ' + "[" * 5000)
    refused(v3, tmp_path / "store", "nests its JSON too deeply to be read")


def test_a_table_that_claims_more_rows_than_its_episodes(v3, tmp_path):
    import pyarrow.parquet as parquet

    file = v3 / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    parquet.write_table(table.take([0] * 58), file)
    refused(v3, tmp_path / "store", "holds 58 rows that are not the 57 frames")


def test_rows_wider_than_their_shape_are_refused_before_they_are_read(v3, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = v3 / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(file)
    wide = pa.array([[0.0] * 10_000] * len(table))  # a few bytes once it is encoded
    parquet.write_table(table.set_column(table.column_names.index("action"), "action", wide), file)
    refused(
        v3,
        tmp_path / "store",
        r"has 10000 numbers of action a row, meta/info\.json says 3; correct its shape",
    )


def test_an_import_that_is_ended_leaves_nothing(hdf5, tmp_path):
    """SIGTERM in the middle of an import: the temporary folder goes, and the process ends by the signal."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from compression_gap.store.store import Store\n"
        "from compression_gap.demos.importing import Wanted, import_demos, open_source\n"
        "def end(done, total):\n"
        "    assert list(Path(sys.argv[2]).glob('tmp/*/*.npy'))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "import_demos(open_source(Path(sys.argv[1])), Wanted(), Store(sys.argv[2]), progress=end)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(hdf5), str(tmp_path / "store")], capture_output=True, timeout=120
    )
    assert ended.returncode == -signal.SIGTERM, ended.stderr.decode()
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_an_import_sweeps_what_a_killed_one_left(hdf5, tmp_path, capsys):
    from compression_gap.cli.main import main

    left = tmp_path / "store/tmp/999999999-demos-x"
    left.mkdir(parents=True)
    assert main(["demos", "import", str(hdf5), "--store", str(tmp_path / "store"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 57
    assert not left.exists()
