"""Chunks that claim, or are, more than an array may hold are refused before they are unpacked."""

import gzip
import json
import zlib

import numcodecs
import numpy as np
import pytest

from compression_gap.demos import zarr_store
from compression_gap.demos.zarr_store import check_chunk, check_codecs, claimed
from compression_gap.errors import UserError

ZEROS = bytes(2**20)


@pytest.mark.parametrize(
    ("codec", "exact"), [(numcodecs.Blosc(), True), (numcodecs.Zstd(), True), (numcodecs.Zlib(), False), (numcodecs.GZip(), False)]
)  # fmt: skip
def test_a_chunk_says_how_much_it_is(codec, exact, monkeypatch):
    packed = bytes(codec.encode(ZEROS))
    found = claimed(packed)
    assert found == len(ZEROS) if exact else found >= len(ZEROS)
    check_chunk(packed, "x")
    monkeypatch.setattr(zarr_store, "CHUNK_BYTES", 2**18)
    with pytest.raises(UserError, match="x: a chunk takes more than 0 MiB once it is unpacked"):
        check_chunk(packed, "x")


@pytest.mark.parametrize(
    "pack", [zlib.compress, gzip.compress, lambda b: gzip.compress(b) + gzip.compress(b)]
)
def test_zlib_is_counted_in_pieces(pack, monkeypatch):
    monkeypatch.setattr(zarr_store, "CHUNK_BYTES", 2**16)
    monkeypatch.setattr(zarr_store, "SPARE", 0)
    assert claimed(pack(ZEROS)) > 2**16
    assert claimed(pack(np.random.default_rng(0).bytes(1000))) <= 2000


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"compressor": {"id": "bz2"}}, "the codec 'bz2', which is not read"),
        ({"codecs": [{"name": "numcodecs.lzma", "configuration": {}}]}, "the codec 'lzma'"),
        ({"compressor": {"id": "zlib"}, "filters": [{"id": "zlib"}]}, "packed more than once"),
    ],
)
def test_codecs_without_bounds_are_refused(about, said):
    with pytest.raises(UserError, match=said):
        check_codecs(about, "x")
    check_codecs(
        {"compressor": {"id": "blosc"}, "filters": [{"id": "delta"}], "other": json.loads("[1]")}, "x"
    )
