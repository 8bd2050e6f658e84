import math

import pytest

from compression_gap.errors import UserError
from compression_gap.tokenizers.levels import FSQ_LEVELS, as_levels, codebook_name, sizes_of, token_levels


def test_the_tables_names_are_the_products_of_their_levels():
    for size, levels in FSQ_LEVELS.items():
        assert math.prod(levels) == size
        assert as_levels(f"fsq-{size}") == (levels,)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([8, 5, 5, 5], ((8, 5, 5, 5),)),
        ((2,), ((2,),)),
        (["fsq-240"], ((8, 6, 5),)),
        ([[8, 6, 5], "fsq-1000", (3, 3)], ((8, 6, 5), (8, 5, 5, 5), (3, 3))),
        ([[4, 4], [4, 4]], ((4, 4), (4, 4))),
    ],
)
def test_ways_to_write_levels(written, read):
    assert as_levels(written) == read
    assert as_levels([list(p) for p in read]) == read  # as they are saved


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ((), "is no codebook; write FSQ levels as"),
        (7, "7 is no codebook"),
        (None, "None is no codebook"),
        ([8.0, 5], "is no codebook"),
        ([8, [5, 5]], "is no codebook"),
        ([8, 1], r"at least two levels in every dimension, not \[8, 1\]"),
        ([[8, 5], []], r"at least two levels in every dimension, not \[\]"),
        ([True, True], "at least two levels"),
        ([[8, 5.0]], "at least two levels"),
        ("fsq-1001", "unknown codebook 'fsq-1001'.*did you mean 'fsq-1000'"),
        (["fsq-240", "fsq-1"], "unknown codebook 'fsq-1'"),
        ([1024, 1025], "1049600 codes is too large; take at most 1048576"),
    ],
)
def test_what_is_no_codebook(bad, sentence):
    with pytest.raises(UserError, match=sentence):
        as_levels(bad)


def test_the_largest_codebook():
    assert sizes_of(1, as_levels([1024, 1024])) == (2**20,)


def test_one_codebook_serves_all_tokens_or_each_has_its_own():
    assert sizes_of(3, token_levels(3, [8, 5])) == (40, 40, 40)
    assert sizes_of(3, token_levels(3, [[8, 5], "fsq-240", [2]])) == (40, 240, 2)
    assert sizes_of(1, token_levels(1, [[8, 5]])) == (40,)
    with pytest.raises(UserError, match="2 codebooks for 3 tokens; give one for all, or one for each token"):
        token_levels(3, [[8, 5], [8, 5]])


@pytest.mark.parametrize("tokens", [0, -1, 2.0, True, "8"])
def test_a_number_of_tokens_that_cannot_be(tokens):
    with pytest.raises(UserError, match="a chunk needs at least one token"):
        token_levels(tokens, [8, 5])


def test_names_in_words():
    assert codebook_name(as_levels("fsq-1000")) == "1000"
    assert codebook_name(as_levels(["fsq-240", "fsq-1000", "fsq-4375"])) == "240→4375"
    assert codebook_name(as_levels(["fsq-240", "fsq-240"])) == "2 × 240"
    among = [as_levels("fsq-1000"), as_levels([10, 10, 10]), as_levels("fsq-240"), None]
    assert [codebook_name(levels, among) for levels in among[:3]] == [
        "1000 (8x5x5x5)",
        "1000 (10x10x10)",
        "240",
    ]
