"""Mutants of every format: each is imported, or refused with one sentence; nothing stays behind.

The seeds are fixed. ``make soak`` runs many more of them (MUTANTS=3000).
"""

import json
import os
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zarr

from compression_gap.demos.importing import Wanted, import_demos, open_source
from compression_gap.errors import UserError
from compression_gap.store.store import Store

MUTANTS = int(os.environ.get("MUTANTS", "40"))  # of each kind
JUNK = (
    "null", "true", "NaN", "Infinity", "-1", "0", "0.5", "1e400", "1" + "0" * 400, "1" + "0" * 5000, "9" * 18, '""', '"x"',
    '"../x"', '"\\u2028"', "[]", "{}", "[[]]", "[NaN]", "[-1, 3]", "[0.5]", '["x"]', "[" * 5000, '{"a": {"b": 1}}',
)  # fmt: skip


def survives(root, store, **wanted):
    """Import a mutant. True if that worked; a ``UserError`` must be one sentence."""
    sentence = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_demos(open_source(root), Wanted(**wanted), Store(store))
    except UserError as error:
        sentence = str(error)
    assert list(store.glob("tmp/*")) == []
    assert sentence is None or ("\n" not in sentence and len(sentence) < 1200)
    return sentence is None


def each(tmp_path, make, mutate, **wanted):
    """Mutate a copy, again and again; how many were imported."""
    lived = 0
    root = tmp_path / "mutant"
    for seed in range(MUTANTS):
        rng = np.random.default_rng(seed)
        make(root)
        what = mutate(rng, root)
        try:
            lived += survives(root, tmp_path / "store", **wanted)
        except Exception as error:
            raise AssertionError(f"mutant {seed}: {what}") from error
        finally:
            shutil.rmtree(root) if root.is_dir() else root.unlink()
            shutil.rmtree(tmp_path / "store", ignore_errors=True)
    assert lived < MUTANTS
    return lived


def places(value, path=()):
    """The paths to everything in a JSON value."""
    yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(inner, (*path, key))


def mutate_json(rng, text):
    """Put junk in the place of a value, or take a key away; what was done."""
    value = json.loads(text)
    found = list(places(value))[1:]
    if not found:
        return "[]", "empty"
    path = found[rng.integers(len(found))]
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if rng.random() < 0.15:
        del holder[path[-1]]
        return json.dumps(value), f"{path} away"
    junk = JUNK[rng.integers(len(JUNK))]
    holder[path[-1]] = "\0junk"
    return json.dumps(value).replace(json.dumps("\0junk"), junk), f"{path} = {junk[:40]}"


def mutate_table(rng, table):
    """Another type, a missing value, a column or a row too few or too many; what was done."""
    at = int(rng.integers(len(table.column_names)))
    name, column = table.column_names[at], table.column(at)
    rows = len(table)
    values = column.to_pylist()
    hole = [None if i == rng.integers(rows) else v for i, v in enumerate(values)]
    simple = [v if isinstance(v, (int, float)) else i for i, v in enumerate(values)]
    odd = [
        v if i else float(rng.choice([np.nan, np.inf, -1.0, 0.5, 1e300]))
        for i, v in enumerate(map(float, simple))
    ]
    changes = {
        "text": lambda: pa.array([str(v)[:20] for v in values]),
        "nulls": lambda: pa.nulls(rows),
        "hole": lambda: pa.array(hole, column.type),
        "odd": lambda: pa.array(odd),
        "bool": lambda: pa.array([bool(v) for v in values]),
        "floats": lambda: pa.array([float(v) for v in simple]),
        "lists": lambda: pa.array([[v] for v in simple]),
        "ragged": lambda: pa.array([[1.0] * (i % 3) for i in range(rows)]),
        "category": lambda: pa.array([str(v)[:20] for v in values]).dictionary_encode(),
        "numbers by dictionary": lambda: pa.array(simple).dictionary_encode(),
        "times": lambda: pa.array([0] * rows, pa.timestamp("s")),
        "bytes": lambda: pa.array([b"\xff\xfe"] * rows),
    }
    how = rng.choice([*changes, "away", "doubled", "reversed", "fewer"])
    if how == "away":
        return table.drop_columns([name]), f"{name} away"
    if how == "doubled":
        return table.append_column(name, column), f"{name} doubled"
    if how == "reversed":
        return table.take(list(range(rows))[::-1]), "rows reversed"
    if how == "fewer":
        return table.slice(0, int(rng.integers(rows))), "fewer rows"
    return table.set_column(at, name, changes[how]()), f"{name}: {how}"


def mutate_bytes(rng, file):
    """Flip some bytes, or cut the file; what was done."""
    data = bytearray(file.read_bytes())
    if rng.random() < 0.1:
        data = data[: int(rng.integers(len(data)))]
        what = f"{file.name} cut at {len(data)}"
    else:
        at = rng.integers(0, min(len(data), 20_000), int(rng.integers(1, 6))).tolist()
        for i in at:
            data[i] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
        what = f"{file.name} at {at}"
    file.write_bytes(data)
    return what


def mutate_any_json(rng, files):
    file = files[rng.integers(len(files))]
    lines = file.read_text().split("\n") if file.suffix == ".jsonl" else [file.read_text()]
    at = int(rng.integers(len(lines)))
    lines[at], what = mutate_json(rng, lines[at])
    file.write_text("\n".join(lines))
    return f"{file.name}: {what}"


def mutate_any_table(rng, files):
    file = files[rng.integers(len(files))]
    table, what = mutate_table(rng, parquet.read_table(file))
    parquet.write_table(table, file)
    return f"{file.name}: {what}"


def copy_of(source):
    return lambda to: (shutil.copytree if source.is_dir() else shutil.copyfile)(source, to)


def without_films(root):
    """The set with its first camera alone, as images of two frames an episode would be: videos are slow to decode."""
    about = json.loads((root / "meta/info.json").read_text())
    for key in [k for k, f in about["features"].items() if f["dtype"] == "video"][1:]:
        del about["features"][key]
    (root / "meta/info.json").write_text(json.dumps(about))


def test_lerobot_v21_metadata(v21, tmp_path):
    without_films(v21)
    each(tmp_path, copy_of(v21), lambda rng, root: mutate_any_json(rng, sorted((root / "meta").iterdir())))


def test_lerobot_v3_metadata(v3, tmp_path):
    each(tmp_path, copy_of(v3), lambda rng, root: mutate_any_json(rng, [root / "meta/info.json"]))


def test_lerobot_v3_tables(v3, tmp_path):
    def mutate(rng, root):
        meta = sorted((root / "meta").rglob("*.parquet"))
        return mutate_any_table(rng, [*meta, *meta, *sorted((root / "data").rglob("*.parquet"))])

    each(tmp_path, copy_of(v3), mutate)


def test_lerobot_v3_bytes(v3, tmp_path):
    def mutate(rng, root):
        files = sorted(root.rglob("*.parquet"))
        return mutate_bytes(rng, files[rng.integers(len(files))])

    each(tmp_path, copy_of(v3), mutate)


@pytest.fixture
def small_hdf5(tmp_path):
    """Four demonstrations of robomimic's layout, most of whose bytes are structure."""
    file = tmp_path / "small.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(file, "w") as opened:
        data = opened.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for i in range(4):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = 6
            demo["actions"] = rng.normal(size=(6, 2))
            demo.create_dataset(
                "obs/robot0_eef_pos", data=rng.normal(size=(6, 3)), chunks=(4, 3), compression="gzip"
            )
            demo["obs/robot0_eef_quat"] = rng.normal(size=(6, 4))
            demo["obs/robot0_gripper_qpos"] = rng.normal(size=(6, 2))
            demo["obs/view_image"] = rng.integers(0, 255, (6, 4, 4, 3), np.uint8)
        opened["mask/train"] = np.array([b"demo_0", b"demo_1"])
        opened["mask/valid"] = np.array([b"demo_2", b"demo_3"])
    return file


def test_hdf5_bytes(small_hdf5, tmp_path):
    each(tmp_path, copy_of(small_hdf5), mutate_bytes)


def test_hdf5_structure(small_hdf5, tmp_path):
    def mutate(rng, root):
        with h5py.File(root, "a") as file:
            names = []
            file.visit(names.append)
            name = str(rng.choice(names))
            kinds = {
                "away": None, "text": np.array([b"x"] * 6), "scalar": 1.0, "empty": h5py.Empty("f4"), "long": np.zeros(7),
                "none": np.zeros((0, 2)), "nan": np.full((6, 2), np.nan), "wide": np.zeros((6, 2, 3, 3)),
                "pairs": np.zeros(6, [("a", "f4"), ("b", "i4")]), "complex": np.zeros((6, 2), complex),
            }  # fmt: skip
            how = str(rng.choice([*kinds, "attribute"]))
            if how == "attribute":
                junk = ["{", "[" * 5000, '{"env_kwargs": {"control_freq": NaN}}', b"\xff", 3, np.nan, [1, 2]]
                file["data"].attrs["env_args"] = junk[rng.integers(len(junk))]
                return "env_args"
            del file[name]
            if kinds[how] is not None:
                file[name] = kinds[how]
            return f"{name}: {how}"

    each(tmp_path, copy_of(small_hdf5), mutate)


def small_replay(root, version):
    """Three episodes of four frames, in few chunks."""
    rng = np.random.default_rng(0)
    group = zarr.open_group(root, mode="w", zarr_format=version)
    arrays = {
        "data/action": rng.normal(size=(12, 2)),
        "data/agent_pos": rng.normal(size=(12, 2)),
        "data/img": rng.integers(0, 255, (12, 4, 4, 3), np.uint8),
        "meta/episode_ends": np.array([4, 8, 12]),
    }
    for name, rows in arrays.items():
        group.create_array(name, data=rows, chunks=(8, *rows.shape[1:]))
    return root


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_metadata(version, tmp_path):
    def mutate(rng, root):
        files = [
            f for f in sorted(root.rglob("*")) if f.name in (".zarray", ".zgroup", ".zattrs", "zarr.json")
        ]
        return mutate_any_json(rng, files)

    each(tmp_path, copy_of(small_replay(tmp_path / "replay", version)), mutate)


def test_zarr_bytes(tmp_path):
    folder = small_replay(tmp_path / "replay", 2)
    each(tmp_path, copy_of(Path(shutil.make_archive(str(folder), "zip", folder))), mutate_bytes)
