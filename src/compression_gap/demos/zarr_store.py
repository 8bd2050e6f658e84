"""Chunks of Zarr arrays as they are stored: looked at before a codec unpacks them.

A codec unpacks what the chunk says, whatever the array's shape: a few bytes of zlib become GBs. So a chunk's own
claim, which Blosc, Zstd and LZ4 write in front, is compared with a limit; zlib's and gzip's, which make no claim that
holds, are unpacked once in pieces that are thrown away.
"""

from __future__ import annotations

import zlib
from typing import Any

from ..errors import UserError

CHUNK_BYTES = 2**29  # of a chunk, which is read whole
SPARE = 2**16  # bytes that a stored chunk may have beyond its array
PACKERS = ("blosc", "zstd", "lz4", "zlib", "gzip")  # their claims are checked
UNBOUNDED = ("bz2", "lzma", "pcodec", "zfpy")  # what these unpack cannot be told before


def names_of(codecs: Any) -> list[str]:
    """The names of codecs in an array's metadata, those within others too."""
    found: list[str] = []
    left = [codecs]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            name = one.get("id", one.get("name"))
            if isinstance(name, str):
                found.append(name.removeprefix("numcodecs."))
            left += one.values()
        elif isinstance(one, list):
            left += one
    return found


def check_codecs(about: dict[str, Any], where: str) -> None:
    """Refuse codecs whose chunks cannot be bounded, and more than one that packs."""
    names = [n for key in ("compressor", "filters", "codecs") for n in names_of(about.get(key))]
    if wrong := [n for n in names if n in UNBOUNDED]:
        raise UserError(
            f"{where} is stored with the codec '{wrong[0]}', which is not read here; store it anew with Blosc or Zstd"
        )
    if len([n for n in names if n in PACKERS]) > 1:
        raise UserError(f"{where} is packed more than once; store it anew with one codec, Blosc or Zstd")


def check_chunk(data: bytes, where: str) -> None:
    """Refuse a stored chunk that would be larger than ``CHUNK_BYTES`` once it is unpacked."""
    if len(data) > CHUNK_BYTES + SPARE or claimed(data) > CHUNK_BYTES + SPARE:
        raise UserError(
            f"{where}: a chunk takes more than {CHUNK_BYTES >> 20} MiB once it is unpacked; store smaller ones"
        )


def claimed(data: bytes) -> int:
    """The bytes that a stored chunk will have: the largest claim of the codecs that may have written it."""
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return _of_zstd(data)
    if data[:2] == b"\x1f\x8b" or (
        data[:1] == b"\x78" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0
    ):
        return _of_zlib(data)
    # Blosc: version, version of the codec, flags, size of an element, then the size.
    return int.from_bytes(data[4:8], "little") if data[:1] in (b"\x01", b"\x02") and len(data) >= 16 else 0


def _of_zstd(data: bytes) -> int:
    """The size in a frame's header (RFC 8878, 3.1.1.1); one that says none has no bound."""
    if len(data) < 6:
        return 0
    flags = data[4]
    code, single = flags >> 6, flags >> 5 & 1
    size = (single, 2, 4, 8)[code]
    if not size:
        return CHUNK_BYTES * 2**10
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(data[at : at + size], "little") + (256 if code == 1 else 0)


def _of_zlib(data: bytes) -> int:
    """What zlib or gzip unpacks: counted where it could be too much (at most 1032 bytes come from one)."""
    if len(data) * 1032 <= CHUNK_BYTES:
        return len(data) * 1032
    total = 0
    while data and total <= CHUNK_BYTES + SPARE:
        unpacker = zlib.decompressobj(47)
        try:
            while data and total <= CHUNK_BYTES + SPARE and not unpacker.eof:
                total += len(unpacker.decompress(data, 2**24))
                data = unpacker.unconsumed_tail
        except zlib.error:  # its codec will say so
            return total
        data = unpacker.unused_data
    return total


def bounded(store: Any, where: str) -> Any:
    """A store of the library, whose chunks are looked at before they are unpacked."""
    from zarr.storage import WrapperStore

    class Bounded(WrapperStore):
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            found = await super().get(key, prototype, byte_range)
            if found is not None and not key.endswith(
                (".zarray", ".zgroup", ".zattrs", "zarr.json", ".zmetadata")
            ):
                check_chunk(found.to_bytes(), f"{where}, {key}")
            return found

    return Bounded(store)
