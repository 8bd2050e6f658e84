"""The fuzzer of scripts/fuzz: each reader takes its valid input, and mutants of fixed seeds end in a sentence."""

import os
import random
import sys
from pathlib import Path

import pytest

from compression_gap.errors import UserError

SCRIPTS = str(Path(__file__).parent.parent / "scripts")
SLOW = {"exported", "checkpoint", "tokenizers"}  # whose valid input takes seconds to make
RUNS = 5  # mutants of each reader


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    """The fuzzer's module ``targets``, a place to work in, and its guard: one a process, since its hook stays."""
    sys.path.insert(0, SCRIPTS)
    try:
        from fuzz import guard, targets
    finally:
        sys.path.remove(SCRIPTS)
    place = tmp_path_factory.mktemp("fuzz")
    return targets, place, guard.Guard(place / "outside"), guard


@pytest.fixture
def fuzzed(fuzz, monkeypatch):
    """A target by name."""
    targets, place, guard, module = fuzz
    monkeypatch.setattr(module, "MEMORY", 2**40)  # the peak is that of all tests of this process
    monkeypatch.setenv("HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "1"))
    return lambda name: targets.Fuzzed(targets.TARGETS[name], place, guard)


def names():
    sys.path.insert(0, SCRIPTS)
    try:
        from fuzz.targets import TARGETS
    finally:
        sys.path.remove(SCRIPTS)
    return [n for n in TARGETS if n not in SLOW]


@pytest.mark.parametrize("name", names())
def test_mutants_are_taken_or_refused_in_a_sentence(name, fuzzed):
    made, rng = fuzzed(name), random.Random(7)
    assert made.run(b"") is None  # what is valid is taken
    for _ in range(RUNS):
        made.run(rng.randbytes(rng.randint(1, 200)))
    assert made.taken + made.refused == RUNS + 1


def test_mutants_differ_from_what_is_valid(fuzzed):
    made, rng = fuzzed("store"), random.Random(7)
    for _ in range(30):
        made.run(rng.randbytes(rng.randint(1, 200)))
    assert made.refused > 5


def reading(fuzz, fuzzed, read):
    """A target of instructions with another reader."""
    targets, *_ = fuzz
    made = fuzzed("binding")
    made.target = targets.Target("binding", made.target.seed, read)
    return made


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (
            lambda root, work, draw: (root.parent / "outside/secret.txt").read_text(),
            "opened secret.txt outside",
        ),
        (lambda root, work, draw: (root.parent / "outside/new").write_text("x"), "outside"),
        (lambda root, work, draw: __import__("pickle").loads(b"cos\ngetpid\n."), "pickle.find_class"),
        (lambda root, work, draw: __import__("subprocess").run(["true"]), "subprocess.Popen"),
    ],
    ids=["read", "write", "unpickle", "run"],
)
def test_the_guard_sees_an_escape(fuzz, fuzzed, read, said):
    *_, guard = fuzz
    with pytest.raises(guard.Escape, match=said):
        reading(fuzz, fuzzed, read).run(b"")
    (fuzz[1] / "outside/new").unlink(missing_ok=True)


def test_the_guard_sees_a_traceback_and_a_process_that_grew(fuzz, fuzzed, monkeypatch):
    def broken(root, work, draw):
        raise KeyError("x")

    with pytest.raises(KeyError):
        reading(fuzz, fuzzed, broken).run(b"")
    monkeypatch.setattr(fuzz[3], "MEMORY", 1)
    with pytest.raises(MemoryError, match="GB"):
        reading(fuzz, fuzzed, lambda *_: None).run(b"")


def test_a_sentence_that_is_long_or_steers_a_terminal_is_made_plain():
    assert str(UserError("a\x1b[31mb\nc\u2028d\ud800")) == "a [31mb c d "
    said = str(UserError("x" * 10_000 + " correct it"))
    assert len(said) <= 2000
    assert said.endswith(" correct it")
