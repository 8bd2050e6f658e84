"""Mutations of a folder of files, by what the files are: text, JSON, tables, HDF5, archives, tensors, or bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

from .draw import Draw

JUNK = (
    *("null", "true", "NaN", "Infinity", "-Infinity", "-1", "0", "1", "0.5", "1e400", "-1e308", "4096", "1048576"),
    *("1" + "0" * 400, "1" + "0" * 5000, "9" * 18, "4294967296", "2147483647", '""', '"x"', '"../outside/secret.json"'),
    *('"/etc/hostname"', '"\\u2028<script>"', '"\\u0000"', '"\\ud800"', "[]", "{}", "[[]]", "[NaN]", "[-1, 3]", "[0.5]"),
    *('["x"]', "[" * 5000, "[" * 900 + "]" * 900, '{"a": {"b": 1}}', '"' + "y" * 100_000 + '"', "[" + "0," * 10_000 + "0]"),
    *('"{episode_index:999999999d}"', '"{chunk_index.__class__}"', '"bins"', '"fast"', '"oat"', '"F32"', '"../x"'),
)  # fmt: skip
TEXT = (
    *("&a [*a]", "*a", "!!python/object/apply:os.system [id]", "!!binary x", "1e400", "~", "- ", "? ", ": ", "<<: *a", "%"),
    *("{", "}", "[" * 100, "'", '"', "\t", "\0", "\r", "\u2028", "\ufeff", "0x10", "1_000", "2001-01-01", "nan", "-1", ","),
    *("name", "../outside/secret.yaml", "x" * 200_000, "true", "1" * 5000, "a: &a [x]\nb: [*a, *a]\n", "\n\n", "é", "=1+1"),
)  # fmt: skip


def mutate(draw: Draw, root: Path, outside: Path, *, links: bool) -> None:
    """One to three mutations of the files in ``root``; ``links``: some become links that lead out of it."""
    for _ in range(1 + draw.below(3)):
        files = sorted(f for f in root.rglob("*") if f.is_file() and not f.is_symlink())
        if not files:
            return
        file = draw.one(files)
        if draw.chance(16):
            mutate_place(draw, file, root, outside, links)
        else:
            file.write_bytes(mutate_content(draw, file.name, file.read_bytes()))


def mutate_place(draw: Draw, file: Path, root: Path, outside: Path, links: bool) -> None:
    """Something else stands where the file, or its folder, stood."""
    how = draw.below(7)
    at = file if how < 5 or file.parent == root else file.parent
    (shutil.rmtree if at.is_dir() else os.unlink)(at)
    if how == 0:
        at.mkdir()
    elif how == 1:
        at.write_bytes(b"")
    elif how == 2 and links:
        at.symlink_to(outside / "secret.json")
    elif how == 3 and links:
        os.mkfifo(at)
    elif how == 4:
        at.symlink_to(at.name)  # to itself
    elif how == 5 and links:
        at.symlink_to(outside)


def mutate_content(draw: Draw, name: str, content: bytes) -> bytes:
    """Other bytes for a file of this name."""
    kind = name.rpartition(".")[2]
    if draw.chance(12):
        return draw.rest()
    if draw.chance(3) and kind not in ("yaml", "csv"):
        return mutate_bytes(draw, content)
    try:
        if kind in ("json", "zarray", "zgroup", "zattrs"):
            return mutate_json(draw, content)
        if kind == "jsonl":
            lines = content.split(b"\n")
            at = draw.below(len(lines))
            lines[at] = mutate_json(draw, lines[at] or b"{}")
            return b"\n".join(lines)
        if kind in ("yaml", "csv", "txt"):
            return mutate_text(draw, content)
        if kind == "parquet":
            return mutate_table(draw, content)
        if kind in ("hdf5", "h5"):
            return mutate_hdf5(draw, content)
        if kind in ("zip", "npz", "pruned_init"):
            return mutate_zip(draw, content)
        if kind == "safetensors":
            return mutate_tensors(draw, content)
    except (
        ValueError,
        KeyError,
        OSError,
        RecursionError,
        RuntimeError,
        TypeError,
        OverflowError,
        zipfile.BadZipFile,
        zlib.error,
    ):  # it is broken already
        pass
    return mutate_bytes(draw, content)


def mutate_bytes(draw: Draw, content: bytes) -> bytes:
    """Some bytes changed, a part doubled or cut away."""
    data = bytearray(content)
    how = draw.below(8)
    if not data or how == 0:
        return bytes(data[: draw.below(len(data) + 1)])
    if how == 1:
        at = draw.below(len(data))
        return bytes(data[:at] + data[at : at + 64] * draw.below(64) + data[at:])
    for _ in range(1 + draw.below(6)):
        # Most structure stands at the start or at the end of a file.
        span = min(len(data), draw.one((64, 1024, len(data))))
        at = draw.below(span) if draw.below(2) else len(data) - 1 - draw.below(span)
        wide = draw.one((1, 1, 2, 4, 8))
        value = draw.one((0, 1, 0x7F, 0x80, 0xFF, draw.below(256)))
        data[at : at + wide] = bytes([value]) * len(data[at : at + wide])
    return bytes(data)


def places(value: Any) -> list[tuple[Any, ...]]:
    """The paths to everything in a JSON value, itself left out; those of the first thousands."""
    found: list[tuple[Any, ...]] = []
    left: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while left and len(found) < 5000:
        path, held = left.pop(0)
        inner = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
        for key, one in inner:
            found.append((*path, key))
            left.append(((*path, key), one))
    return found


def mutate_json(draw: Draw, content: bytes) -> bytes:
    """Junk in the place of a value, a key away, or a key with another name."""
    value = json.loads(content)
    found = places(value)
    if not found:
        return draw.one(JUNK).encode()
    path = draw.one(found)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    how = draw.below(8)
    if how == 0:
        del holder[path[-1]]
        return json.dumps(value).encode()
    if how == 1 and isinstance(holder, dict):
        holder[draw.one(("../outside/secret", "x", "", "a/b", "/tmp/x", "\u2028", "x" * 3000))] = holder.pop(
            path[-1]
        )
        return json.dumps(value).encode()
    if how == 2 and isinstance(holder[path[-1]], int | float):
        holder[path[-1]] = draw.one((-1, 0, 1, 2, 3, 0.5, 1e9, 2**20, 2**31, 2**40, 2**62, 1e300))
        return json.dumps(value).encode()
    holder[path[-1]] = "\0junk"
    return json.dumps(value).replace(json.dumps("\0junk"), draw.one(JUNK)).encode()


def mutate_text(draw: Draw, content: bytes) -> bytes:
    """A line away or doubled, or a piece of junk in a line."""
    lines = content.decode("utf-8", "replace").split("\n")
    at = draw.below(len(lines))
    how = draw.below(6)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines[at:at] = [lines[at]] * (1 + draw.below(200))
    elif how == 2:
        lines[at] = draw.one(TEXT)
    else:
        words = lines[at].split(" ")
        place = draw.below(len(words))
        words[place] = draw.one((*TEXT, *JUNK)) if how < 5 else words[place] + draw.one(TEXT)
        lines[at] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_table(draw: Draw, content: bytes) -> bytes:
    """A column of another type or of junk, rows too few, or so many that they fill the memory once they are read."""
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content))
    rows, at = len(table), draw.below(len(table.column_names))
    name = table.column_names[at]
    how = draw.below(16)
    if how == 0:
        table = table.drop_columns([name])
    elif how == 1:
        table = table.append_column(name, table.column(at))
    elif how == 2:
        table = table.slice(0, draw.below(rows + 1))
    elif how == 3:
        table = table.take(list(range(rows))[::-1])
    elif how == 4 and rows:
        table = table.take(pa.array([draw.below(rows)] * draw.one((1000, 100_000))))
    elif how == 5 and rows:
        value = table.column(at)[draw.below(rows)].as_py()
        table = table.set_column(at, name, pa.array([value] * rows, table.column(at).type))
    else:
        values: list[Any] = [
            [None] * rows, ["x"] * rows, [b"\xff"] * rows, [float("nan")] * rows, [1e300] * rows, [-1] * rows, [2**62] * rows,
            [[1.0] * (i % 3) for i in range(rows)], [[0.0] * 3] * rows, [{"bytes": b"x", "path": "../outside/secret.json"}] * rows,
            [True] * rows, ["<script>" + "y" * 2**20] * rows, list(range(rows)), [0] * rows, ["2"] * rows,
        ]  # fmt: skip
        table = table.set_column(at, name, pa.array(draw.one(values)))
    out = io.BytesIO()
    parquet.write_table(table, out, compression=draw.one(("snappy", "none", "gzip", "zstd")))
    return out.getvalue()


def mutate_hdf5(draw: Draw, content: bytes) -> bytes:
    """A member of another kind, a link, or an attribute of junk."""
    import h5py
    import numpy as np

    memory = io.BytesIO(content)
    if not content.startswith(b"\x89HDF"):
        raise ValueError("it is broken already")
    with h5py.File(memory, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        name = draw.one(sorted(names))
        how = draw.below(12)
        if how == 0:
            holder = file[name]
            known = sorted(holder.attrs) or ["env_args"]
            holder.attrs[draw.one(known)] = draw.one(
                ("{", "[" * 5000, b"\xff", 3, np.nan, [1, 2], "x" * 60_000, *JUNK[:8])
            )
            return _closed(file, memory)
        del file[name]
        if how == 1:
            file[name] = h5py.SoftLink("/data")
        elif how == 2:
            file[name] = h5py.ExternalLink("../outside/secret.txt", "/data")
        elif how == 3:
            file.create_dataset(name, (2**40, 7), "f4", chunks=(2**10, 7))
        elif how == 4:
            file.create_dataset(name, (2**33,), "f8")
        elif how == 5:
            file.create_dataset(
                name, (6, 2**13, 2**13, 3), "u1", chunks=(1, 2**13, 2**13, 3), compression="gzip"
            )
        elif how == 6:
            file.create_dataset(name, (6, 7), "f4", external=[("../outside/secret.txt", 0, 168)])
        elif how == 7:
            layout = h5py.VirtualLayout((6, 7), "f4")
            layout[:] = h5py.VirtualSource("../outside/secret.txt", "data", (6, 7))
            file.create_virtual_dataset(name, layout)
        elif how == 8:
            file.create_dataset(name, data=["x" * 2**20] * 6)
        elif how < 11:
            kinds = (
                np.full((6, 7), np.nan),
                np.zeros((0, 2)),
                np.zeros(6, [("a", "f4")]),
                np.zeros((6, 7), complex),
                1.0,
            )
            file[name] = draw.one((*kinds, h5py.Empty("f4"), np.zeros((6, 1)), np.full((6, 7), 1e300)))
        return _closed(file, memory)


def _closed(file: Any, memory: io.BytesIO) -> bytes:
    file.close()
    return memory.getvalue()


def mutate_zip(draw: Draw, content: bytes) -> bytes:
    """A member changed, renamed, doubled or blown up; checksums in a store's manifests are made to fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    name = draw.one(sorted(members))
    how = draw.below(10)
    if how == 0:
        hostile = (
            "../outside/x",
            "/tmp/cgap-escaped",
            "a/../../outside/x",
            "records/x/y.json",
            "failures/../x",
            "x\\..\\y",
        )
        members[draw.one(hostile)] = members.pop(name)
    elif how == 1:
        del members[name]
    elif how == 2:
        members[name] = bytes(draw.one((2**20, 2**26)))
    else:
        members[name] = mutate_content(draw, name, members[name])
        if draw.below(4):
            fit_checksums(members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, data in members.items():
            archive.writestr(key, data)
    return out.getvalue()


def fit_checksums(members: dict[str, bytes]) -> None:
    """Let every manifest of a store's archive name the sizes and checksums of the files as they are now."""
    for name in [n for n in members if n.endswith("/artifact.json")]:
        try:
            about = json.loads(members[name])
            for file in about["files"]:
                data = members.get(f"{name.rpartition('/')[0]}/{file}")
                if data is not None:
                    about["files"][file] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        members[name] = json.dumps(about).encode()


def mutate_tensors(draw: Draw, content: bytes) -> bytes:
    """The header of a safetensors file with junk in it."""
    size = int.from_bytes(content[:8], "little")
    header = mutate_json(draw, content[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + content[8 + size :]
