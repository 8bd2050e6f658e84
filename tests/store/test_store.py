"""The store: keys, commits, damage, full disks, crashes, two processes at once."""

import errno
import json
import multiprocessing
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression_gap.errors import UserError, system_error
from compression_gap.store import store as artifacts
from compression_gap.store.store import (
    MANIFEST,
    Recipe,
    Store,
    canonical_json,
    digest,
    disk_error,
    write_json,
)

RECIPE = Recipe("thing", {"size": 3, "name": "a"}, {"demos": "00ff"}, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def make(store, recipe=RECIPE, text="content", meta=None):
    with store.create(recipe, meta) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "data.txt").write_text(text)
    return store.path(recipe)


def temporary(store):
    folder = store.root / "tmp"
    return list(folder.iterdir()) if folder.exists() else []


# Keys


@given(spec=st.dictionaries(st.text(), JSON, max_size=4), inputs=st.dictionaries(st.text(), st.text()))
def test_key_does_not_depend_on_the_order_of_keys(spec, inputs):
    turned = Recipe("k", dict(reversed(spec.items())), dict(reversed(inputs.items())), 2)
    assert Recipe("k", spec, inputs, 2).key == turned.key


@given(one=JSON, two=JSON)
def test_key_differs_exactly_when_the_canonical_text_differs(one, two):
    same = canonical_json(one) == canonical_json(two)
    assert (Recipe("k", {"v": one}).key == Recipe("k", {"v": two}).key) == same


@given(value=JSON)
def test_key_survives_a_round_trip_through_json(value):
    assert digest(json.loads(json.dumps(value))) == digest(value)


@pytest.mark.parametrize(
    "changed",
    [
        Recipe("other", RECIPE.spec, RECIPE.inputs, 1),
        Recipe("thing", {**RECIPE.spec, "size": 4}, RECIPE.inputs, 1),
        Recipe("thing", {**RECIPE.spec, "more": None}, RECIPE.inputs, 1),
        Recipe("thing", RECIPE.spec, {"demos": "00fe"}, 1),
        Recipe("thing", RECIPE.spec, {"features": "00ff"}, 1),
        Recipe("thing", RECIPE.spec, RECIPE.inputs, 2),
    ],
)
def test_key_depends_on_kind_spec_inputs_and_version(changed):
    assert changed.key != RECIPE.key


def test_key_is_the_known_hash_of_a_known_recipe():
    # Written down once: a change of the hash would orphan every store there is.
    text = '{"inputs":{"demos":"00ff"},"kind":"thing","spec":{"name":"a","size":3},"version":1}'
    import hashlib

    assert RECIPE.key == hashlib.sha256(text.encode()).hexdigest()[:20]


def test_tuples_and_lists_are_one_value():
    assert Recipe("k", {"levels": (8, 5)}).key == Recipe("k", {"levels": [8, 5]}).key


def test_nan_has_no_key():
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"lr": float("nan")})


# Commit and read


def test_a_committed_artefact_is_read_back_with_its_manifest(tmp_path):
    store = Store(tmp_path)
    assert not store.has(RECIPE)
    folder = make(store, meta={"seconds": 1.5})
    assert store.has(RECIPE)
    assert store.open(RECIPE) == folder == tmp_path / "thing" / RECIPE.key
    assert (folder / "sub" / "data.txt").read_text() == "content"
    manifest = Store(tmp_path).manifest(RECIPE)
    assert manifest["spec"] == RECIPE.spec
    assert manifest["inputs"] == RECIPE.inputs
    assert manifest["meta"] == {"seconds": 1.5}
    data = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # sha256 of "content"
    assert manifest["files"] == {"sub/data.txt": {"sha256": data, "bytes": 7}}
    assert temporary(store) == []


def test_meta_may_be_filled_while_building_and_is_no_part_of_the_key(tmp_path):
    store, meta = Store(tmp_path), {}
    with store.create(RECIPE, meta):
        meta["loss"] = 0.25
    assert store.manifest(RECIPE)["meta"] == {"loss": 0.25}
    assert store.path(RECIPE).name == RECIPE.key


def test_a_build_that_raises_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError), store.create(RECIPE) as folder:
        _ = (folder / "half").write_text("x") / 0
    assert not store.has(RECIPE)
    assert temporary(store) == []
    make(store)
    assert store.has(RECIPE)


def test_work_folder_outlives_a_crash_and_ends_with_the_commit(tmp_path):
    store = Store(tmp_path)
    (store.work(RECIPE) / "checkpoint").write_text("7")
    with pytest.raises(RuntimeError), store.create(RECIPE):
        raise RuntimeError
    assert (store.work(RECIPE) / "checkpoint").read_text() == "7"
    make(store)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_missing_artefact_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=rf"thing {RECIPE.key} is not in the store .*; run the study first"):
        Store(tmp_path).open(RECIPE)


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="asks the kernel which processes live")
def test_sweep_removes_what_dead_builds_left_and_spares_the_living(tmp_path):
    store = Store(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=die_in_a_build, args=(tmp_path,))
    child.start()
    child.join()
    assert len(temporary(store)) == 1
    with store.create(RECIPE) as folder:
        assert len(temporary(store)) == 2
        store.sweep()
        assert temporary(store) == [folder]
    assert store.has(RECIPE)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_ended_by_a_signal_leaves_nothing(tmp_path, end):
    """The process still ends by the signal, and afterwards the signal does again what it did before."""
    child = os.fork()
    if child == 0:
        with Store(tmp_path).create(RECIPE) as folder:
            (folder / "half").write_text("x")
            os.kill(os.getpid(), end)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == end
    assert list((tmp_path / "tmp").iterdir()) == []
    make(Store(tmp_path))
    assert signal.getsignal(end) == signal.SIG_DFL


def test_a_forked_child_that_is_ended_leaves_its_parents_build_alone(tmp_path):
    with Store(tmp_path).create(RECIPE) as folder:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert folder.is_dir()


def test_a_program_that_handles_the_signal_itself_keeps_its_handler(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with Store(tmp_path).create(RECIPE):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [1]


def die_in_a_build(root):
    with Store(root).create(RECIPE):
        os._exit(1)


# Damage


def flip(folder):
    file = folder / "sub" / "data.txt"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)


def cut(folder):
    (folder / "sub" / "data.txt").write_text("cont")


def remove(folder):
    (folder / "sub" / "data.txt").unlink()


def no_json(folder):
    (folder / MANIFEST).write_text('{"files": ')


def nested_json(folder):
    (folder / MANIFEST).write_text("[" * 5000)


def no_text(folder):
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00")


def another_shape(folder):
    (folder / MANIFEST).write_text("[1, 2]")


def no_files(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def leaving(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../sub/data.txt"] = manifest["files"]["sub/data.txt"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def another_recipe(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["spec"]["size"] = 99
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip, "sub/data.txt does not match its checksum"),
        (cut, "sub/data.txt does not match its checksum"),
        (remove, "sub/data.txt is missing"),
        (no_json, "artifact.json cannot be read: Expecting value: line 1 column 11 (char 10)"),
        (
            no_text,
            "artifact.json cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (another_shape, "artifact.json cannot be read: it holds a list, not an object"),
        (no_files, "artifact.json cannot be read: its 'files' is missing, or is no dict"),
        (another_recipe, "artifact.json cannot be read: its recipe is not that of its key"),
        (leaving, "artifact.json cannot be read: what it says of the file '../sub/data.txt' is no checksum"),
    ],
)
def test_damage_is_named_moved_aside_and_mended_by_a_second_build(tmp_path, harm, reason):
    harm(make(Store(tmp_path)))
    store = Store(tmp_path)
    with pytest.raises(UserError) as caught:
        store.open(RECIPE)
    assert str(caught.value).startswith(f"thing {RECIPE.key} is damaged ({reason}); it was moved to ")
    assert str(caught.value).endswith("run the same command again to make it anew")
    assert not store.has(RECIPE)
    (aside,) = (tmp_path / "damaged").iterdir()
    assert str(aside) in str(caught.value)
    assert aside.name.startswith(RECIPE.key)
    assert (aside / MANIFEST).exists()
    make(store, text="anew")
    assert (Store(tmp_path).open(RECIPE) / "sub" / "data.txt").read_text() == "anew"


def test_an_artefact_without_manifest_counts_as_missing_and_can_be_made_anew(tmp_path):
    folder = make(Store(tmp_path), text="old")
    (folder / MANIFEST).unlink()
    store = Store(tmp_path)
    assert not store.has(RECIPE)
    make(store, text="anew")
    assert (store.open(RECIPE) / "sub" / "data.txt").read_text() == "anew"
    (aside,) = (tmp_path / "damaged").iterdir()
    assert (aside / "sub" / "data.txt").read_text() == "old"


def test_content_is_verified_once_per_process(tmp_path):
    folder = make(Store(tmp_path))
    store = Store(tmp_path)
    store.open(RECIPE)
    flip(folder)
    assert store.open(RECIPE) == folder
    with pytest.raises(UserError, match="checksum"):
        Store(tmp_path).open(RECIPE)


# The store itself


def test_a_store_of_a_newer_version_is_a_sentence(tmp_path):
    (tmp_path / "store.json").write_text('{"store_version": 7}')
    with pytest.raises(UserError) as caught:
        Store(tmp_path)
    assert str(caught.value) == (
        f"the store {tmp_path} has format 7, this program reads format 1: "
        "update compression-gap, or use another store with --store"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", "[" * 5000, "1" * 5000])
def test_a_damaged_marker_is_a_sentence(tmp_path, text):
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(UserError, match=r"store\.json is damaged; restore it, or use another store folder"):
        Store(tmp_path)


def test_a_store_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "store").write_text("x")
    with pytest.raises(UserError, match=r"cannot write to .*choose another folder with --store"):
        Store(tmp_path / "store")


# Full disks


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def fsync_full(monkeypatch):
    monkeypatch.setattr(os, "fsync", full)


def manifest_full(monkeypatch):
    monkeypatch.setattr(artifacts.Path, "write_text", full)


def rename_full(monkeypatch):
    monkeypatch.setattr(os, "rename", full)


def scratch_full(monkeypatch):
    monkeypatch.setattr(artifacts.tempfile, "mkdtemp", full)


@pytest.mark.parametrize("fill", [fsync_full, manifest_full, rename_full, scratch_full])
def test_a_full_disk_is_a_sentence_and_nothing_is_half_there(tmp_path, monkeypatch, fill):
    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        fill(patched)
        with pytest.raises(UserError) as caught, store.create(RECIPE) as folder:
            (folder / "data").write_bytes(b"x")
    assert str(caught.value) == (
        f"the disk with {tmp_path} is full: free some space and run the same command again"
    )
    assert not store.has(RECIPE)
    assert not store.path(RECIPE).exists()
    assert temporary(store) == []
    make(store)
    assert store.open(RECIPE)


def test_a_disk_that_fills_up_in_the_builder_is_the_same_sentence(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(UserError, match="is full: free some space"), store.create(RECIPE):
        full()
    assert temporary(store) == []


def test_write_json_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    error = OSError(errno.EIO, "Input/output error")
    assert disk_error(error, tmp_path) is error
    refused = disk_error(OSError(errno.EROFS, "Read-only file system"), tmp_path)
    assert str(refused) == (
        f"cannot write to {tmp_path} (Read-only file system): choose another folder with --store"
    )


# Crashes and races


class Crash(BaseException):
    """Stands for the death of the process: nothing in the program catches it."""


@pytest.mark.parametrize(
    ("point", "there"), [("thing:built", 0), ("thing:before-rename", 0), ("thing:after-rename", 1)]
)
def test_a_crash_at_a_commit_point_leaves_nothing_or_all(tmp_path, monkeypatch, point, there):
    def crash(name):
        if name == point:
            raise Crash

    monkeypatch.setattr(artifacts, "commit_point", crash)
    with pytest.raises(Crash):
        make(Store(tmp_path))
    monkeypatch.undo()
    store = Store(tmp_path)
    assert store.has(RECIPE) == bool(there)
    assert store.path(RECIPE).exists() == bool(there)
    if there:
        assert (store.open(RECIPE) / "sub" / "data.txt").read_text() == "content"
    else:
        make(store, text="second")
        assert (store.open(RECIPE) / "sub" / "data.txt").read_text() == "second"


def test_the_first_to_commit_a_key_wins(tmp_path):
    one, two = Store(tmp_path), Store(tmp_path)
    with two.create(RECIPE) as folder:
        (folder / "data").write_text("second")
        with one.create(RECIPE) as earlier:
            (earlier / "data").write_text("first")
    assert (two.open(RECIPE) / "data").read_text() == "first"
    assert temporary(two) == []


def commit_at_once(root, barrier, answers, name):
    store = Store(root)
    with store.create(RECIPE) as folder:
        (folder / "data").write_text(name)
        barrier.wait()
    answers.put((store.open(RECIPE) / "data").read_text())


def test_two_processes_that_commit_one_key_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    Store(tmp_path)
    barrier, answers = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=commit_at_once, args=(tmp_path, barrier, answers, name)) for name in "ab"
    ]
    for process in processes:
        process.start()
    read = [answers.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    assert read[0] == read[1]
    assert (Store(tmp_path).open(RECIPE) / "data").read_text() == read[0]
    assert temporary(Store(tmp_path)) == []


def test_a_full_disk_is_a_sentence_whichever_library_meets_it(tmp_path):
    """Safetensors and NumPy raise errors that hold no number of the system."""
    store = Store(tmp_path)
    rust = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    for error in (rust, OSError("96 requested and 0 written"), OSError(errno.ENOSPC, "No space left")):
        with pytest.raises(UserError, match="is full: free some space") as caught, store.create(RECIPE):
            raise error
        assert caught.value.__cause__ is error
    for error in (
        RuntimeError("I/O error: Input/output error (os error 5)"),
        OSError("no number"),
        ValueError("x"),
    ):
        with pytest.raises(type(error)) as caught, store.create(RECIPE):
            raise error
        assert caught.value is error


def test_safetensors_tell_the_system_s_number_in_words(tmp_path):
    resource = pytest.importorskip("resource")
    import torch
    from safetensors.torch import save_file

    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, kept[1]))
    try:
        with pytest.raises(Exception, match="os error") as caught:
            save_file({"a": torch.zeros(100_000)}, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert system_error(caught.value).errno == errno.EFBIG


def test_json_that_cannot_be_written_says_where(tmp_path, monkeypatch):
    def full(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_text", full)
    with pytest.raises(OSError, match="No space left") as caught:
        artifacts.write_json(tmp_path / "a.json", {})
    assert caught.value.filename == str(tmp_path / "a.json")
