"""Archives: a part of a store survives the journey byte for byte, and a hostile one leaves nothing behind."""

import json
import shutil
import zipfile

import pytest

from compression_gap.errors import UserError
from compression_gap.store.archive import Taken, Watched, read_archive, write_archive
from compression_gap.store.outcome import failure_file
from compression_gap.store.store import Recipe, Store, write_json

WHOLE, ALONE, FAILED = Recipe("rows", {"a": 1}), Recipe("weights", {"b": 2}), Recipe("weights", {"b": 3})
CONTENT = b"\x00rows" * 1000


@pytest.fixture
def store(tmp_path):
    """A store with a small artefact, a large one and a failure."""
    made = Store(tmp_path / "store")
    for recipe in (WHOLE, ALONE):
        with made.create(recipe, {"seconds": 1.5}) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "data").write_bytes(CONTENT)
    failure_file(made, FAILED).parent.mkdir()
    write_json(failure_file(made, FAILED), {"kind": "diverged", "sentence": "loss is NaN"})
    return made


@pytest.fixture
def archive(store, tmp_path):
    """An archive of it."""
    write_archive(tmp_path / "a.zip", store, [WHOLE], [ALONE], [FAILED])
    return tmp_path / "a.zip"


def changed(archive, change):
    """The archive with other members: ``change`` of a dictionary of names and bytes."""
    with zipfile.ZipFile(archive) as file:
        members = {n: file.read(n) for n in file.namelist()}
    change(members)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def files(folder):
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def test_what_is_taken_is_what_was_written(store, archive, tmp_path):
    other = Store(tmp_path / "other")
    assert read_archive(archive, other) == Taken(artefacts=1, records=1, there=0)
    assert other.has(WHOLE)
    assert (other.open(WHOLE) / "sub" / "data").read_bytes() == CONTENT
    assert other.manifest(WHOLE) == store.manifest(WHOLE)
    assert not other.has(ALONE)
    assert other.recorded(ALONE)
    assert other.meta(ALONE) == {"seconds": 1.5}
    assert failure_file(other, FAILED).read_bytes() == failure_file(store, FAILED).read_bytes()
    assert not list((other.root / "tmp").iterdir())


def test_a_second_time_changes_nothing(archive, tmp_path):
    other = Store(tmp_path / "other")
    read_archive(archive, other)
    before = {f: (other.root / f).stat().st_mtime_ns for f in files(other.root) if "records" not in f}
    assert read_archive(archive, other) == Taken(artefacts=0, records=1, there=1)
    failures = {f for f in before if f.startswith("failures")}
    assert {f: (other.root / f).stat().st_mtime_ns for f in before if f not in failures} == {
        f: t for f, t in before.items() if f not in failures
    }


def test_equal_content_gives_equal_bytes(store, archive, tmp_path):
    other = Store(tmp_path / "other")
    read_archive(archive, other)
    write_archive(tmp_path / "b.zip", other, [WHOLE], [ALONE], [FAILED])
    assert (tmp_path / "b.zip").read_bytes() == archive.read_bytes()


def test_a_record_gives_way_to_the_artefact_itself(archive, tmp_path):
    other = Store(tmp_path / "other")
    read_archive(archive, other)
    with other.create(ALONE, {"seconds": 2.5}) as folder:
        (folder / "data").write_bytes(b"anew")
    assert other.meta(ALONE) == {"seconds": 2.5}
    assert not (other.root / "records" / "weights" / f"{ALONE.key}.json").exists()


def test_a_watched_store_knows_what_was_read(store):
    watched = Watched(store)
    watched.open(WHOLE)
    watched.meta(ALONE)
    assert watched.opened == {("rows", WHOLE.key)}
    assert watched.read == {("weights", ALONE.key)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m: m.update({f"rows/{WHOLE.key}/sub/data": CONTENT[:-1] + b"?"}),
            "does not match its checksum",
        ),
        (lambda m: m.update({f"rows/{WHOLE.key}/sub/data": CONTENT + b"more"}), "longer than its manifest"),
        (lambda m: m.pop(f"rows/{WHOLE.key}/sub/data"), "no item named"),
        (lambda m: m.update({f"rows/{WHOLE.key}/artifact.json": b"[]"}), "it is no object"),
        (
            lambda m: m.update({f"other/{WHOLE.key}/artifact.json": m[f"rows/{WHOLE.key}/artifact.json"]}),
            "not where its recipe belongs",
        ),
        (
            lambda m: m.update({"failures/../x-0.json": b"{}", "failures/x.json": b"{}"}),
            "no name of such a record",
        ),
        (lambda m: m.update({f"failures/x-{'0' * 20}.json": b"[1]"}), "no record of a failed step"),
    ],
)
def test_damage_is_named_and_not_taken(archive, tmp_path, change, words):
    changed(archive, change)
    other = Store(tmp_path / "other")
    with pytest.raises(UserError, match=words):
        read_archive(archive, other)
    assert not list((other.root / "tmp").glob("*"))
    if other.has(WHOLE):
        assert (other.open(WHOLE) / "sub" / "data").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "sub/../../../escaped"])
def test_no_file_is_written_out_of_its_folder(archive, tmp_path, name):
    def change(members):
        at = f"rows/{WHOLE.key}/artifact.json"
        about = json.loads(members[at])
        about["files"][name] = about["files"]["sub/data"]
        members[at] = json.dumps(about).encode()
        members[f"rows/{WHOLE.key}/{name}"] = CONTENT

    changed(archive, change)
    other = Store(tmp_path / "deep" / "down" / "other")
    with pytest.raises(UserError, match="is no checksum"):
        read_archive(archive, other)
    assert not list(tmp_path.rglob("*escaped*"))


def test_no_kind_is_a_path(archive, tmp_path):
    evil = Recipe("../../rows", {"a": 1})

    def change(members):
        about = json.loads(members[f"rows/{WHOLE.key}/artifact.json"]) | {"kind": evil.kind, "key": evil.key}
        members[f"{evil.kind}/{evil.key}/artifact.json"] = json.dumps(about).encode()

    changed(archive, change)
    with pytest.raises(UserError, match="its 'kind' is no name"):
        read_archive(archive, Store(tmp_path / "deep" / "down" / "other"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no more", b"not a zip file at all"])
def test_what_is_no_archive_is_said(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or no archive of a store"):
        read_archive(tmp_path / "a.zip", Store(tmp_path / "other"))


def test_a_missing_archive_is_said(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        read_archive(tmp_path / "a.zip", Store(tmp_path / "other"))


def test_every_cut_is_refused_or_whole(archive, tmp_path):
    whole = archive.read_bytes()
    for end in range(0, len(whole), 97):
        archive.write_bytes(whole[:end])
        with pytest.raises(UserError):
            read_archive(archive, Store(tmp_path / "other"))


@pytest.mark.parametrize("size", [-5, "7", 1.5, True, None, 2**70])
def test_a_size_that_is_none_is_refused(size, archive, tmp_path):
    def change(members):
        name = next(n for n in members if n.endswith("/artifact.json"))
        about = json.loads(members[name])
        next(iter(about["files"].values()))["bytes"] = size
        members[name] = json.dumps(about).encode()

    changed(archive, change)
    with pytest.raises(UserError, match="is no checksum"):
        read_archive(archive, Store(tmp_path / "other"))
    assert not list((tmp_path / "other" / "tmp").glob("*/*"))


def test_an_archive_that_would_fill_the_disk_is_refused(archive, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))(2**30, 0, 2**28)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="once it is unpacked, and the disk with"):
        read_archive(archive, Store(tmp_path / "other"))
