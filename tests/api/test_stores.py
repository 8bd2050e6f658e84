"""Looking after a store: lists that agree with the disk, garbage that is garbage, a report that survives it."""

import json
import shutil

import pytest

from compression_gap.api.results import Results
from compression_gap.api.stores import collect_garbage, list_store, verify_store
from compression_gap.api.study import load_study, open_study
from compression_gap.cli import main as cli
from compression_gap.errors import UserError
from compression_gap.store.claims import claim
from compression_gap.store.engine import missing_steps
from compression_gap.store.store import Recipe, Store


@pytest.fixture
def copied(finished, tmp_path):
    """A store with what the finished study needs, and no more (other tests add to its own), and the study."""
    study = load_study(finished.file)
    opened, place = open_study(study, finished.store), Store(tmp_path / "store")
    for step in opened.plan.steps.values():
        shutil.copytree(opened.store.path(step), place.path(step))
    shutil.copytree(opened.folder, place.root / "studies" / "small")
    return study, place.root


def on_disk(store, kind):
    return sum(
        f.stat().st_size for f in (store / kind).rglob("*") if f.is_file() and f.name != "artifact.json"
    )


def test_the_list_agrees_with_the_disk(copied):
    _, store = copied
    found = list_store(store)
    assert [(s.name, s.source) for s in found.studies] == [("small", "channel")]
    assert {kind: held.bytes for kind, held in found.kinds.items()} == {
        kind: on_disk(store, kind) for kind in found.kinds
    }
    assert found.kinds["policy"].artefacts == 12
    assert found.leftovers == 0


def test_a_study_needs_all_of_its_own(copied):
    study, store = copied
    found = collect_garbage([study], store, delete=True)
    assert (set(found.kinds) - {"film"}, found.leftovers) == (set(), 0)
    assert missing_steps(open_study(study, store).plan, open_study(study, store).store) == []


def test_what_another_study_alone_needs_goes(copied):
    study, store = copied
    fewer = study.model_copy(update={"factors": study.factors.model_copy(update={"seed": (0,)})})
    looked = collect_garbage([fewer], store)
    assert looked.kinds["policy"].artefacts == 6
    assert not looked.removed
    assert list_store(store).kinds["policy"].artefacts == 12
    assert collect_garbage([fewer], store, kinds=["policy"], delete=True).kinds.keys() == {"policy"}
    assert list_store(store).kinds["policy"].artefacts == 6
    assert missing_steps(open_study(fewer, store).plan, open_study(fewer, store).store) == []


def test_a_report_survives_the_loss_of_all_that_it_does_not_need(copied):
    study, store = copied
    before = Results(open_study(study, store), "same").to_json()
    found = collect_garbage([study], store, results_only=True, delete=True)
    assert {"policy", "features", "demos", "tokens", "tokenizer"} <= set(found.kinds)
    opened = open_study(study, store)
    assert missing_steps(opened.plan, opened.store) == []
    after = Results(opened, "same").to_json()
    for cell in (*before["cells"], *after["cells"]):
        del cell["policies"]
    assert after == before


def test_imported_recordings_are_spared(copied, record):
    study, store = copied
    record(store, sizes={"front": (48, 48)})
    found = collect_garbage([study], store, delete=True)
    assert found.spared == 1
    assert "demos" not in found.kinds
    assert list_store(store).kinds["demos"].artefacts == 2


def test_what_diagnosed_policies_did_is_spared_unless_it_is_named(copied):
    study, store = copied
    place = Store(store)
    with place.create(Recipe("policy-episodes", {"of": "a server that is gone"})) as folder:
        (folder / "rows").write_bytes(b"rows")
    found = collect_garbage([study], store)
    assert (found.spared, "policy-episodes" in found.kinds) == (1, False)
    found = collect_garbage([study], store, kinds=["policy-episodes"])
    assert (found.spared, found.kinds["policy-episodes"].artefacts) == (0, 1)


def test_a_kind_that_is_not_known_is_named(copied):
    with pytest.raises(UserError, match=r"unknown kind of artefact 'polcy' \(did you mean 'policy'\?\)"):
        collect_garbage([copied[0]], copied[1], kinds=["polcy"])


def test_nothing_goes_while_a_run_is_under_way(copied):
    study, store = copied
    opened = open_study(study, store)
    with claim(opened.store, opened.plan.cells[0].policy):
        collect_garbage([study], store)
        with pytest.raises(UserError, match="a run is under way"):
            collect_garbage([study], store, delete=True)


def test_damage_is_told(copied):
    _, store = copied
    assert verify_store(store)[1] == []
    (victim,) = sorted((store / "normaliser").iterdir())
    file = next(f for f in victim.iterdir() if f.name != "artifact.json")
    file.write_bytes(file.read_bytes() + b" ")
    (damaged,) = verify_store(store)[1]
    assert (damaged.kind, damaged.key) == ("normaliser", victim.name)


# The verbs


def said(capsys, *arguments, code=0):
    assert cli.main([*map(str, arguments)]) == code
    return capsys.readouterr()


def test_the_verbs_say_what_they_find(copied, finished, capsys):
    _, store = copied
    assert "small" in said(capsys, "store", "list", "--store", store).out
    assert "all sound" in said(capsys, "store", "verify", "--store", store).out
    assert "say --delete to remove it" in said(capsys, "store", "gc", finished.file, "--store", store).out
    listed = json.loads(said(capsys, "demos", "list", "--store", store, "--json").out)["demos"]
    assert [(d["tasks"], d["episodes"], d["source"], d["cameras"]) for d in listed] == [
        (["reach"], 6, "expert", {"channel": [16, 16]})
    ]
    assert "channel 16 × 16" in said(capsys, "demos", "list", "--store", store).out


def test_damage_is_an_exit_code(copied, capsys):
    _, store = copied
    (victim,) = (store / "normaliser").iterdir()
    (victim / "artifact.json").write_text("[]")
    out = said(capsys, "store", "verify", "--store", store, code=1).out
    assert f"damaged: normaliser {victim.name}: artifact.json cannot be read: it holds a list" in out


@pytest.mark.parametrize("verb", [("store", "list"), ("store", "verify"), ("demos", "list")])
def test_a_folder_that_is_no_store_is_said_and_not_made(tmp_path, capsys, verb):
    assert "is no store" in said(capsys, *verb, "--store", tmp_path / "none", code=2).err
    assert not (tmp_path / "none").exists()


def test_without_a_study_nothing_is_garbage(tmp_path, capsys):
    assert "name the studies whose artefacts stay" in said(capsys, "store", "gc", code=2).err
