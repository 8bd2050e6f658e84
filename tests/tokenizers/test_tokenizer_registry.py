import subprocess
import sys
from importlib import import_module
from inspect import signature

import pytest

from compression_gap.errors import UserError
from compression_gap.registry import Option, located
from compression_gap.tokenizers import (
    FAST,
    OAT,
    Bins,
    QueST,
    ResidualVQ,
    load_tokenizer,
    make_tokenizer,
    tokenizer_entry,
    tokenizer_names,
)
from compression_gap.tokenizers.registry import TOKENIZERS, TokenizerEntry

CLASSES = {
    "bins": Bins,
    "bins-quantile": Bins,
    "fast": FAST,
    "rvq": ResidualVQ,
    "quest": QueST,
    "oat": OAT,
    "oat-unordered": OAT,
}


@pytest.mark.parametrize("name", TOKENIZERS.own)
def test_a_name_makes_its_class_with_its_options(name):
    entry, made = tokenizer_entry(name), make_tokenizer(name)
    assert type(made) is CLASSES[name]
    assert made.options.items() >= entry.options.items()
    assert {*entry.takes, *entry.options} - {"dropout"} <= made.options.keys()  # without any it is left out
    assert ("levels" in made.options) == entry.codebook
    assert hasattr(made, "_build") == entry.trained
    assert name.startswith(made.name)


def test_options_beside_those_of_the_name():
    made = make_tokenizer("oat-unordered", tokens=2, levels="fsq-240")
    assert made.options == {"tokens": 2, "levels": [[8, 6, 5]], "size": "xs", "nested_dropout": "none"}
    assert not made.ordered
    assert make_tokenizer("oat").ordered
    assert make_tokenizer("rvq", layers=8, codes=1024).capacity_bits == 80


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"unknown tokenizer 'oats'.*did you mean 'oat'"):
        make_tokenizer("oats")
    with pytest.raises(UserError, match="unknown tokenizer 'oats'"):
        tokenizer_entry("oats")


def test_a_folder_that_names_an_unknown_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"name": "oats"}')
    with pytest.raises(UserError, match="unknown tokenizer 'oats'"):
        load_tokenizer(tmp_path)


def test_entry_points_of_other_packages(plug_in):
    """``oat`` would hide a name of ours, and does not."""
    mine = TokenizerEntry(lambda **options: options, {"depth": Option(int, 1)}, {"width": 2}, trained=True)
    for name in ("oat", "mine"):
        plug_in("tokenizers", name, mine)
    assert tokenizer_names() == (*TOKENIZERS.own, "mine")
    assert make_tokenizer("mine", depth=3) == {"depth": 3, "width": 2}
    assert type(make_tokenizer("oat")) is OAT
    assert tokenizer_entry("mine") is mine


@pytest.mark.parametrize("name", TOKENIZERS.own)
def test_an_entry_states_the_constructor_s_options_and_defaults(name):
    entry = tokenizer_entry(name)
    asked = signature(located(entry.cls)).parameters
    assert {n: asked[n].default for n in entry.takes} == {n: o.default for n, o in entry.takes.items()}
    assert {*entry.options} <= {*asked}


def test_the_registry_is_read_without_torch():
    """Planning a study must not wait for the networks' libraries."""
    program = (
        "import sys, compression_gap.tokenizers as t; t.tokenizer_entry('rvq'); t.FSQ_LEVELS; "
        "print(*(m for m in ('torch', 'vector_quantize_pytorch', 'tokenizers') if m in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_every_public_name_is_there():
    package = import_module("compression_gap.tokenizers")
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = package.Nothing
