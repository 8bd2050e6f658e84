import numpy as np
import pytest
from scipy.stats import norm

from compression_gap.study.published import published, published_contrasts


@pytest.fixture(scope="module")
def rows():
    return {row["name"]: row for row in published_contrasts()}


@pytest.mark.parametrize(
    ("name", "difference", "half"),
    [
        ("delta_enc/diffusion/M", 21.2, 6.0),
        ("delta_enc/oat-1000/M", 3.6, 6.2),
        ("delta_enc/oat-1920/M", 15.2, 6.1),
        ("delta_enc/oat-4375/M", 4.0, 6.1),
        ("interaction/M", 17.6, 8.6),
    ],
)
def test_the_known_numbers(rows, name, difference, half):
    row = rows[name]
    assert row["difference"] == pytest.approx(difference, abs=1e-9)
    assert round((row["high"] - row["low"]) / 2, 1) == half
    assert (row["high"] + row["low"]) / 2 == pytest.approx(row["difference"])


def test_the_tables_agree_where_they_overlap():
    tables = published()
    size_m = {row["head"]: row for row in tables["factorial"] if row["size"] == "M"}
    for row in tables["encoder_gradient"][:2]:
        for head in ("diffusion", "oat-1000"):
            assert row[head] == size_m[head][row["encoder"]]
    for encoder in ("resnet18", "siglip"):
        assert tables["codebook"][0][encoder] == size_m["oat-1000"][encoder]
    assert all(np.prod(row["levels"]) == row["codes"] for row in tables["codebook"])
    assert tables["n"] == 500


def test_what_stands(rows):
    assert rows["delta_enc/diffusion/M"]["stands"]
    assert rows["interaction/M"]["stands"]
    assert not rows["delta_enc/oat-1000/M"]["stands"]
    assert rows["delta_enc/oat-1000/M"]["max_seed_sd"] == 0.0
    for row in rows.values():
        assert row["p"] <= row["p_holm"] <= 1
        assert row["stands"] == (row["p_holm"] < 0.05) == (row["max_seed_sd"] > 0)
        assert 2.4 < row["peak_optimism"] < 2.9


def test_the_seed_spread_that_a_contrast_bears(rows):
    """The largest p of the list times its number is an upper bound; the unadjusted bound lies above."""
    row = rows["delta_enc/diffusion/M"]
    variance = (36.4 * 63.6 + 57.6 * 42.4) / 500
    single = np.sqrt(((21.2 / norm.ppf(0.975)) ** 2 - variance) / 2)
    strictest = np.sqrt(((21.2 / norm.isf(0.025 / len(rows))) ** 2 - variance) / 2)
    assert strictest - 1e-6 <= row["max_seed_sd"] < single


def test_no_contrast_is_counted_twice(rows):
    seen = [(round(row["difference"], 6), round(row["p"], 12)) for row in rows.values()]
    assert len(set(seen)) == len(seen)
