"""The published results: every number on their pages follows from the rows beside them, by this program and by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

ROOT = Path(__file__).parent.parent
EXPORTS = sorted(f.parent for f in (ROOT / "docs" / "results").rglob("artefacts.zip"))


@pytest.fixture(scope="module")
def made():
    """scripts/results_pages.py as a module."""
    spec = importlib.util.spec_from_file_location("results_pages", ROOT / "scripts" / "results_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_and_figures_are_what_their_rows_say(made):
    pages = list(made.pages())
    assert pages
    for page in pages:
        text, drawn = made.render(page)
        assert page.read_text(encoding="utf-8") == text
        for path, content in drawn.items():
            assert path.read_text(encoding="utf-8") == content


def test_a_number_that_no_table_holds_is_refused(made, tmp_path):
    (tmp_path / "README.md").write_text(
        "Success rose by +12 [3, 20] points, to 41 %, with 100 demonstrations."
    )
    with pytest.raises(ValueError, match=r"no table of the page holds \+12 \[3, 20\], 41 %$"):
        made.render(tmp_path / "README.md")


def test_the_readme_s_first_results_stand_in_the_tables(made):
    """The paragraph below its main figure."""
    below = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("(docs/results/swap/main.svg)")[1]
        .split("```")[0]
    )
    page = (ROOT / "docs" / "results" / "swap" / "README.md").read_text(encoding="utf-8")
    held = " ".join(m[0] for m in made.PLACE.finditer(page))
    found = [m[0] for m in made.RESULT.finditer(below)]
    assert len(found) >= 3
    assert [number for number in found if number not in held] == []


@pytest.mark.parametrize("folder", EXPORTS, ids=lambda f: f.relative_to(ROOT / "docs" / "results").as_posix())
def test_rates_follow_from_the_rows(made, folder):
    """Counted again from the table alone: each task's share, then the mean over tasks, then over seeds."""
    rows = parquet.read_table(folder / "episodes.parquet").to_pylist()
    summary = made.summary(folder)

    def rate(own):
        seeds = {(r["seed"], r["tokenizer_seed"]) for r in own}
        return np.mean(
            [
                np.mean(
                    [
                        r["success"]
                        for r in own
                        if r["task"] == task and (r["seed"], r["tokenizer_seed"]) == seed
                    ]
                )
                for task in summary.tasks
                for seed in seeds
            ]
        )

    def levels(code):
        return None if code.codebook is None else "/".join("x".join(map(str, p)) for p in code.codebook)

    assert summary.cells or summary.references
    for cell in summary.cells:
        own = [
            r
            for r in rows
            if r["played_by"] in ("policy", "snapped")
            and (r["encoder"], r["size"], r["trained_on"], r["executed"], r["checkpoint"])
            == (cell.encoder, cell.size, cell.trained_on, cell.executed, None)
            and (r["tokenizer"], r["codebook"]) == (cell.code.tokenizer, levels(cell.code))
            and cell.action.startswith(r["action"])
        ]
        assert {r["seed"] for r in own} == set(cell.seeds)
        if cell.outcome.rate is None:
            assert not own
            continue
        assert len(own) == len(cell.seeds) * cell.outcome.episodes
        assert cell.outcome.rate.value == pytest.approx(rate(own), abs=1e-12)
    for reference in summary.references:
        code = reference.code
        own = [
            r
            for r in rows
            if r["played_by"] == reference.of.actor
            and (r["tokenizer"], r["codebook"]) == (code.tokenizer, levels(code))
        ]
        assert reference.outcome.rate.value == pytest.approx(rate(own), abs=1e-12)


@pytest.mark.parametrize("folder", EXPORTS, ids=lambda f: f.relative_to(ROOT / "docs" / "results").as_posix())
def test_tuning_and_evaluation_states_never_meet(folder):
    states = parquet.read_table(folder / "episodes.parquet", columns=["initial_state"])[
        "initial_state"
    ].to_numpy()
    first = 1_000_000 if "tuning" in folder.parts else 2_000_000
    assert ((first <= states) & (states < first + 1_000_000)).all()
