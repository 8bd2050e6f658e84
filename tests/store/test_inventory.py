"""The inventory of a store: what is counted is what is there; what is removed leaves its record, and nothing else goes."""

import os

import pytest

from compression_gap.store.claims import claim
from compression_gap.store.inventory import damage, entries, folder_bytes, leftovers, remove
from compression_gap.store.store import MANIFEST, Recipe, Store

RECIPES = [Recipe("rows", {"a": i}) for i in range(3)] + [Recipe("weights", {"b": 0})]


@pytest.fixture
def store(tmp_path):
    """A store of four artefacts."""
    made = Store(tmp_path)
    for i, recipe in enumerate(RECIPES):
        with made.create(recipe, {"number": i}) as folder:
            (folder / "data").write_bytes(b"x" * (10 * i + 1))
    return made


def test_every_artefact_is_listed_with_its_bytes(store):
    found = {(e.kind, e.key): e for e in entries(store)}
    assert set(found) == {(r.kind, r.key) for r in RECIPES}
    assert [found[r.kind, r.key].bytes for r in RECIPES] == [1, 11, 21, 31]
    assert all(e.recipe == r for r in RECIPES if (e := found[r.kind, r.key]))
    assert all(e.modified == os.stat(store.path(e) / MANIFEST).st_mtime for e in found.values())


def test_other_folders_are_no_artefacts(store):
    store.work(RECIPES[0])
    (store.root / "studies" / "mine").mkdir(parents=True)
    (store.root / "rows" / "never-committed").mkdir()
    assert len(list(entries(store))) == 4


def test_damage_is_named_and_left_where_it_is(store):
    (store.path(RECIPES[1]) / "data").write_bytes(b"y" * 11)
    (store.path(RECIPES[3]) / MANIFEST).write_text("{")
    told = []
    found = damage(store, list(entries(store)), lambda done, total: told.append((done, total)))
    assert {e.key: problem for e, problem in found} == {
        RECIPES[1].key: "data does not match its checksum",
        RECIPES[3].key: f"{MANIFEST} cannot be read: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
    }
    assert len(list(entries(store))) == 4
    assert told[-1][0] == told[-1][1] >= 33


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_removed_leaves_its_record_if_it_is_asked_to(store, keep):
    (entry,) = [e for e in entries(store) if e.kind == "weights"]
    remove(store, entry, keep_record=keep)
    assert not store.has(RECIPES[3])
    assert store.recorded(RECIPES[3]) == keep
    if keep:
        assert store.meta(RECIPES[3]) == {"number": 3}
    assert [e.kind for e in entries(store)] == ["rows"] * 3
    assert list((store.root / "tmp").iterdir()) == []


def test_what_is_being_built_is_not_removed(store):
    (entry,) = [e for e in entries(store) if e.kind == "weights"]
    with claim(store, entry):
        remove(store, entry, keep_record=False)
        assert store.has(RECIPES[3])


def test_checkpoints_of_what_is_needed_are_no_leftovers(store):
    for recipe in RECIPES[:2]:
        (store.work(recipe) / "checkpoint").write_bytes(b"z" * 5)
    left = leftovers(store, {RECIPES[0].key})
    assert [f.name for f in left] == [f"rows-{RECIPES[1].key}"]
    assert sum(map(folder_bytes, left)) == 5
