"""HDF5 files of others: opened, entered by names and read, with what the library raises turned into sentences.

Links, external storage and virtual data sets are refused: they would read other files. So is a data set of which
parts were never written, since HDF5 reads them as zeros, and one that needs a filter which is not installed.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import UserError
from .checks import library_errors, short


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
    for at in range(about.get_nfilters()):
        code, _, _, name = about.get_filter(at)
        if not h5z.filter_avail(code):
            called = name.decode("utf-8", "replace") if isinstance(name, bytes) else ""
            raise UserError(
                f"{where} is stored with the HDF5 filter {code} {f'({called}) ' if called else ''}which is not "
                "installed here; store it anew where it was written (h5repack -f GZIP=4)"
            )


def text(value: Any, where: Path | str) -> str:
    """An attribute's text; empty if it is none."""
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no text in UTF-8 ({short(error)}); correct it") from error
