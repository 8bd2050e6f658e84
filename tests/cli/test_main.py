"""Every verb's help, and how a verb is added."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from compression_gap import __version__
from compression_gap.cli import main as cli
from compression_gap.cli.main import VERBS, app_of


def help_of(arguments, capsys, monkeypatch):
    """What ``--help`` prints, one option a line, without the lines around it."""
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as caught:
        cli.main([*arguments, "--help"])
    assert caught.value.code == 0
    return "\n".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())


def option_names(options):
    """The names of all options, those of shared records included."""
    hints = get_type_hints(options)
    for field in fields(options):
        if is_dataclass(hints[field.name]):
            yield from option_names(hints[field.name])
        else:
            yield field.name


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_explains_every_option_and_gives_an_example(verb, capsys, monkeypatch):
    said = help_of(verb.split(), capsys, monkeypatch)
    assert f"usage: cgap {verb} " in said
    assert f"Example: cgap {verb}" in said
    summary = said.split("\n\n")[1].strip()
    assert len(summary) > 20
    assert summary.endswith(".")
    explained = dict(
        re.findall(r"^--([\w-]+).*?(?:  +|\n(?!-))([^\s(].*) \((?:default|repeatable)", said, re.M)
    )
    places = said.partition("positional arguments")[2].partition("options")[0]
    of_places = re.findall(r"(?:  +|^(?!\S+  ))[A-Za-z].{10,} \((?:default|required)", places, re.M)
    names = {name.replace("_", "-") for name in option_names(VERBS[verb].options)}
    unexplained = names - {name for name, words in explained.items() if len(words) > 5}
    # What is left is positional: the place is explained, and the name is not shown.
    assert not {name for name in unexplained if f"--{name} " in said}
    assert len(of_places) >= len(unexplained)


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_every_verb_is_one(verb):
    (example,) = re.findall(r"Example: cgap (.*)", VERBS[verb].options.__doc__)
    options = app_of(VERBS).cli(args=shlex.split(example), prog="cgap")
    assert type(options) is VERBS[verb].options


def test_every_verb_has_options_of_its_own():
    """The verb is found by them."""
    assert len({v.options for v in VERBS.values()}) == len(VERBS)


def test_help_lists_every_verb(capsys, monkeypatch):
    said = help_of([], capsys, monkeypatch)
    for word in {verb.split()[0] for verb in VERBS}:
        assert re.search(rf"• {word} +\w", said), word
    for noun in cli.NOUNS:
        said = help_of([noun], capsys, monkeypatch)
        for verb in (v for v in VERBS if v.startswith(f"{noun} ")):
            assert re.search(rf"• {verb.split()[1]} +\w", said), verb


def test_help_imports_nothing_heavy():
    """Of what it does import, tyro takes the longest: 0.2 s in all."""
    code = (
        "import sys\n"
        "from compression_gap.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'yaml', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"compression-gap {__version__}\n"


MODULE = '''\
from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class CountOptions:
    """Count the letters of a word.

    Example: cgap demos count channel
    """

    word: tyro.conf.Positional[str]
    """the word."""
    times: int = 1
    """how often it is counted."""


def count(options: CountOptions) -> int:
    """Print the number."""
    print(options.times * len(options.word))
    return 3
'''


def test_a_verb_is_a_file_and_an_entry(tmp_path, monkeypatch, capsys):
    (tmp_path / "counting.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import counting

    monkeypatch.setitem(VERBS, "demos count", cli.Verb(counting.CountOptions, counting.count))
    assert cli.main(["demos", "count", "channel", "--times", "2"]) == 3
    assert capsys.readouterr().out == "14\n"
    said = help_of(["demos", "count"], capsys, monkeypatch)
    assert "Count the letters of a word." in said
    assert re.search(r"--times INT +how often it is counted\. +\(default: 1\)", said)
    assert "count" in help_of(["demos"], capsys, monkeypatch)
    sys.modules.pop("counting")
