"""Tables for people: lines break between words, whatever the width; piped output breaks none."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from compression_gap.cli import terminal
from compression_gap.cli.terminal import new_table
from compression_gap.errors import counted

ROWS = [
    ("cell", "success", "95 % interval", "seeds × episodes", "converged"),
    ("diffusion [x] · siglip-base+patches4 · xs", "50 %", "[12.3, 45.6]", "2 × 20", "yes"),
    ("oat 1000 · retina-16 · M", "7 %", "", "2 × 20", ""),
]


def printed(rows, width, title=None):
    table = new_table(*rows[0], title=title)
    for row in rows[1:]:
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_a_table_with_room_is_one_line_a_row():
    assert printed(ROWS, 200, "power").splitlines() == [
        "power",
        "cell                                       success  95 % interval  seeds × episodes  converged",
        "diffusion [x] · siglip-base+patches4 · xs     50 %   [12.3, 45.6]            2 × 20        yes",
        "oat 1000 · retina-16 · M                       7 %                           2 × 20",
    ]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_table_breaks_between_words(width):
    said = printed(ROWS, width)
    assert all(len(line) <= width for line in said.splitlines())
    words = {w for row in ROWS for cell in row for w in cell.split()}
    assert set(said.split()) == words
    if width == 80:
        assert said.splitlines()[0].split("  ")[-1] == "converged"


WORDS = st.lists(st.text("abcdefghij·%[].,", min_size=1, max_size=12), max_size=4).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 6).flatmap(lambda n: st.lists(st.tuples(*[WORDS] * n), min_size=1, max_size=4)),
    st.integers(26, 90),
)
def test_no_word_is_ever_broken(rows, width):
    """The longest word of the first column and of another fit side by side in 26 columns."""
    said = printed(rows, width)
    assert all(len(line) <= width for line in said.splitlines())
    first = [w for row in rows for w in row[0].split()]
    others = [w for row in rows for cell in row[1:] for w in cell.split()]
    assert sorted(set(said.split())) == sorted({*first, *others})
    assert len([w for w in said.split() if w not in first]) == len([w for w in others if w not in first])


def test_what_is_piped_is_not_wrapped(capsys):
    terminal.console.print("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_numbers_with_their_nouns():
    assert [counted(n, "task") for n in (0, 1, 2, 2000)] == ["0 tasks", "1 task", "2 tasks", "2,000 tasks"]
    assert counted(1, "training is", "trainings are") == "1 training is"
    assert counted(2, "training is", "trainings are") == "2 trainings are"


def test_no_sentence_says_one_of_many(finished, capsys):
    from compression_gap.cli import main as cli

    where = [str(finished.file), "--store", str(finished.store)]
    cli.main(["study", "plan", *where])
    cli.main(["demos", "make", "channel", "--episodes", "6", "--image-size", "16", "--processes", "0", "--store", str(finished.store)])  # fmt: skip
    assert not re.search(r"\b1 (tasks|steps|episodes|frames|trainings|cells)\b", capsys.readouterr().out)
