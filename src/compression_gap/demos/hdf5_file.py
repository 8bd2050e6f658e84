"""HDF5 files of others: opened, entered by names and read, with what the library raises turned into sentences.

Links, external storage and virtual data sets are refused: they would read other files. So is a data set of which
parts were never written, since HDF5 reads them as zeros, and one that needs a filter which is not installed.
"""

from __future__ import annotations

import math
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import UserError
from .checks import library_errors, short

CHUNK_BYTES = 2**28  # of a chunk, which is read whole
MOST_UNPACKED = 2**29  # bytes that the library may make of a chunk on the way
ATTRIBUTE_BYTES = 2**26
DEFLATE = 1  # HDF5's number of the filter


def hdf5_errors(where: Path | str) -> AbstractContextManager[None]:
    """Turn what h5py raises for a damaged file (it raises many kinds) into a sentence."""
    kinds = (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        MemoryError,
        IndexError,
    )
    return library_errors(where, *kinds)


def opened(file: Path) -> Any:
    """An HDF5 file, for reading."""
    import h5py

    with hdf5_errors(file):
        if file.is_file() and not h5py.is_hdf5(file):
            raise UserError(f"{file} is no HDF5 file, whatever its name says; remove it, or fetch it again")
        return h5py.File(file, "r")


def member(group: Any, name: str, where: Path | str) -> Any:
    """A member of a group by a path of names, None if there is none. Raises ``UserError`` for links."""
    import h5py

    with hdf5_errors(where):
        for part in name.split("/"):
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise UserError(
                    f"{where} has the link {str(group.name).rstrip('/')}/{part} to another place or file, which is not "
                    "followed; copy what it points to into the file"
                )
            group = group[part]
        if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
            raise UserError(
                f"{where} keeps {group.name} in external files, which are not read; copy it into the file (h5repack)"
            )
        return group


def stored_parts(dataset: Any) -> tuple[int, int]:
    """How many parts of a data set lie in the file, and of how many: chunks, or 1 of a data set without."""
    if not dataset.shape or not dataset.size:
        return 1, 1
    if dataset.chunks is None:
        return int(dataset.id.get_storage_size() > 0), 1
    all_ = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    return int(dataset.id.get_num_chunks()), all_


def check_filters(dataset: Any, where: Path | str) -> None:
    """Refuse a data set that is coded by a filter which is not installed here."""
    from h5py import h5z

    about = dataset.id.get_create_plist()
    if dataset.chunks is not None and math.prod(dataset.chunks) * dataset.dtype.itemsize > CHUNK_BYTES:
        raise UserError(
            f"{where} has chunks of more than {CHUNK_BYTES >> 20} MiB, each read whole; store it anew in smaller ones "
            "(h5repack)"
        )
    codes = [about.get_filter(at)[0] for at in range(about.get_nfilters())]
    if codes.count(DEFLATE) > 1:
        raise UserError(f"{where} is packed more than once; store it anew (h5repack -f GZIP=4)")
    if DEFLATE in codes:
        _check_packed(dataset, where)
    for at in range(about.get_nfilters()):
        code, _, _, name = about.get_filter(at)
        if not h5z.filter_avail(code):
            called = name.decode("utf-8", "replace") if isinstance(name, bytes) else ""
            raise UserError(
                f"{where} is stored with the HDF5 filter {code} {f'({called}) ' if called else ''}which is not "
                "installed here; store it anew where it was written (h5repack -f GZIP=4)"
            )


def _check_packed(dataset: Any, where: Path | str) -> None:
    """Refuse a chunk that the library would unpack to more than it may hold: it takes what comes.

    A byte unpacks to at most 1032, so that small ones need no look; others are unpacked once in pieces.
    """

    def look(info: Any) -> None:
        if info.size * 1032 > MOST_UNPACKED:
            _, packed = dataset.id.read_direct_chunk(info.chunk_offset)
            unpacker, total = zlib.decompressobj(), 0
            try:
                while packed and total <= MOST_UNPACKED and not unpacker.eof:
                    total += len(unpacker.decompress(packed, 2**24))
                    packed = unpacker.unconsumed_tail
            except zlib.error:  # the library will say so
                return
            if total > MOST_UNPACKED:
                raise UserError(f"{where} unpacks to more than its chunks hold; fetch it again")

    dataset.id.chunk_iter(look)


def attribute(of: Any, name: str, where: Path | str) -> Any:
    """An attribute's value, None if there is none. Raises ``UserError`` for a list: a small one may name GBs."""
    if name not in of.attrs:
        return None
    about = of.attrs.get_id(name)
    if about.shape not in ((), (1,)) or about.dtype.itemsize > ATTRIBUTE_BYTES:
        raise UserError(f"{where}, attribute {name} is no single value; correct it")
    return of.attrs.get(name)


def text(value: Any, where: Path | str) -> str:
    """An attribute's text; empty if it is none."""
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no text in UTF-8 ({short(error)}); correct it") from error
