"""requirements.lock: the releases of constraints.txt, each with the hashes of its files."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked():
    """The lock's entries: requirement → its hashes."""
    entries = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        words = line.rstrip("\\").split()
        if not line.startswith(" "):
            entries[words[0]] = words[1:]
            last = words[0]
        else:
            entries[last] += words
    return entries


def named(line):
    name, _, version = line.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower(), version


def test_every_entry_is_one_release_with_hashes():
    found = locked()
    assert found
    for requirement, hashes in found.items():
        assert re.fullmatch(r"[\w.-]+==[\w.!]+", requirement), requirement
        assert hashes, requirement
        assert all(HASH.fullmatch(h) for h in hashes), requirement


def test_the_lock_holds_the_releases_of_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert {named(e) for e in locked()} == {
        named(line) for line in lines if line and not line.startswith("#")
    }


def test_the_lock_names_no_place():
    assert not re.search(r"https?:|--index|--find-links", (ROOT / "requirements.lock").read_text())


def test_the_set_up_installs_from_it_by_hash():
    said = (ROOT / "scripts/setup.sh").read_text()
    assert "--require-hashes --no-deps --requirement requirements.lock" in said
