"""A store behind a URL: in memory, in a folder, and in an S3 bucket of a server of another package."""

import json
import os
from pathlib import Path

import pytest

from plain_steps import Piece, Quiet, graph

fsspec = pytest.importorskip("fsspec")

from compression_gap.errors import UserError  # noqa: E402
from compression_gap.store.artifact import build  # noqa: E402
from compression_gap.store.engine import InProcess, missing_steps, run_plan  # noqa: E402
from compression_gap.store.remote import RemoteStore, open_store  # noqa: E402
from compression_gap.store.store import Recipe, Store  # noqa: E402


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this process another machine, which has read nothing yet."""

    def be(name):
        monkeypatch.setenv("COMPRESSION_GAP_CACHE", str(tmp_path / "machines" / name))

    be("first")
    return be


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A server that speaks S3 on the loopback interface."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    import boto3

    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {n: os.environ.get(n) for n in names}
    os.environ.update(names)
    boto3.client("s3").create_bucket(Bucket="studies")
    yield "s3://studies"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/bucket"


def tree():
    leaves = [Piece(number=i) for i in range(3)]
    return graph([*leaves, Piece(number=20, of=tuple(leaves))])


def run(store, plan=None):
    return run_plan(plan or tree(), store, engine=InProcess(), watcher=Quiet())


def test_what_one_machine_built_another_one_reads_and_does_not_build_again(url, machine):
    first = open_store(url)
    assert isinstance(first, RemoteStore)
    assert len(run(first).built) == 4
    machine("second")
    second = open_store(url)
    assert second.root != first.root
    assert missing_steps(tree(), second) == []
    last = tree().wanted[0]
    assert second.meta(last) == first.meta(last)
    assert not (second.root / last.kind / last.key).exists()  # its record alone was fetched
    assert last.value(second) == 23
    assert (second.root / last.kind / last.key / "value.json").is_file()
    more = Piece(number=100, of=(last,))
    assert run(second, graph([*tree().steps.values(), more])).built == [more.key]
    assert more.value(first) == 123


def test_a_store_that_was_emptied_elsewhere_is_seen_as_such(url, machine):
    store = open_store(url)
    run(store)
    step = next(iter(tree().steps.values()))
    store.files.rm(f"{store.base}/{step.kind}", recursive=True)
    machine("second")
    assert len(missing_steps(tree(), open_store(url))) == 4


def objects(store):
    return sorted(n.removeprefix(store.base) for n in store.files.find(store.base))


def test_an_artefact_is_two_objects_and_nothing_else_is_left(url, machine):
    store = open_store(url)
    run(store)
    keys = [f"/test-piece/{s.key}{end}" for s in tree().steps.values() for end in (".json", ".zip")]
    assert objects(store) == sorted([*keys, "/store.json"])


def test_the_first_commit_wins_on_every_machine(url, machine):
    store, step = open_store(url), Piece(number=5)
    run(store, graph([step]))
    machine("second")
    other = open_store(url)
    with other.create(Recipe(step.kind, step.spec, {}, step.version)) as folder:
        (folder / "value.json").write_text("666")
    machine("third")
    assert step.value(open_store(url)) == 5


def test_a_commit_that_was_cut_off_before_it_got_there_is_brought_there(url, machine):
    store, step = open_store(url), Piece(number=5)
    build(step, Store(store.root), progress=lambda *_: None, should_stop=lambda: False)
    assert objects(store) == ["/store.json"]
    assert store.has(step)
    machine("second")
    assert step.value(open_store(url)) == 5


def test_damage_there_is_named_and_not_served(url, machine):
    store, step = open_store(url), Piece(number=5)
    run(store, graph([step]))
    name = f"{store.base}/{step.kind}/{step.key}.zip"
    whole = store.files.cat_file(name)
    machine("second")
    flipped = whole.replace(
        b"value.json5", b"value.json6", 1
    )  # in what is served: the manifest is the one beside it
    assert flipped != whole
    for broken in (whole[:-40], flipped, b"", b"no archive"):
        store.files.pipe_file(name, broken)
        with pytest.raises(UserError, match=r"\.zip is damaged .*remove it and the .json beside it"):
            step.value(open_store(url))
    store.files.pipe_file(name, whole)
    assert step.value(open_store(url)) == 5
    manifest = f"{store.base}/{step.kind}/{step.key}.json"
    machine("third")
    for broken in (b"{}", b"[", b'{"kind": "../../x"}'):
        store.files.pipe_file(manifest, broken)
        with pytest.raises(UserError, match=r"\.json is damaged"):
            open_store(url).meta(step)


def test_an_archive_of_another_artefact_is_refused(url, machine):
    store, one, two = open_store(url), Piece(number=1), Piece(number=2)
    run(store, graph([one, two], goals=[one, two]))
    there = f"{store.base}/{one.kind}"
    store.files.pipe_file(f"{there}/{one.key}.zip", store.files.cat_file(f"{there}/{two.key}.zip"))
    machine("second")
    with pytest.raises(UserError, match="it holds another artefact"):
        one.value(open_store(url))


class Training:
    """What a store needs to know of a build."""

    kind, key = "policy", "0123456789abcdef0123"


def test_checkpoints_go_on_on_another_machine(url, machine):
    store = open_store(url)

    def save(store, step):
        folder = store.work(Training)
        (folder / f"checkpoint-{step}.safetensors").write_bytes(bytes([step]))
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
        (folder / "checkpoints" / str(step) / "policy.json").write_text("{}")
        (folder / "checkpoint.json").write_text(json.dumps({"step": step}))
        for old in folder.glob("checkpoint-*.safetensors"):
            if old.name != f"checkpoint-{step}.safetensors":
                old.unlink()

    def stopped(store):
        with store.working(Training):
            save(store, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped(store)
    machine("second")
    other = open_store(url)
    with other.working(Training):
        folder = other.work(Training)
        assert json.loads((folder / "checkpoint.json").read_text()) == {"step": 1}
        assert (folder / "checkpoint-1.safetensors").read_bytes() == b"\x01"
        assert (folder / "checkpoints" / "1" / "policy.json").is_file()
        save(other, 2)
    machine("first")  # which still has its own, older ones
    with store.working(Training):
        assert json.loads((store.work(Training) / "checkpoint.json").read_text()) == {"step": 2}
        assert (store.work(Training) / "checkpoint-2.safetensors").is_file()
    names = [Path(n).name for n in objects(store) if n.startswith("/work/")]
    assert sorted(names) == ["checkpoint-2.safetensors", "checkpoint.json", "policy.json", "policy.json"]


def test_checkpoints_of_a_finished_build_are_gone(url, machine):
    store, step = open_store(url), Piece(number=1)

    def failed():
        with store.working(step):
            (store.work(step) / "checkpoint.json").write_text("{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failed()
    assert any("/work/" in n for n in objects(store))
    run(store, graph([step]))
    assert not any("/work/" in n for n in objects(store))


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("nosuch://bucket/x", "--store nosuch://bucket/x: Protocol not known: nosuch"),
        ("s3://no-such-bucket/x", "the store s3://no-such-bucket/x cannot be read or written"),
    ],
)
def test_a_url_that_leads_nowhere_is_a_sentence(where, sentence, machine, request):
    if where.startswith("s3"):
        request.getfixturevalue("s3")
    with pytest.raises(UserError, match=sentence):
        open_store(where)


def test_a_verb_that_takes_a_folder_says_so_of_a_url(tmp_path, monkeypatch, capsys):
    from compression_gap.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["store", "list", "--store", "s3://bucket/x"]) == 2
    assert "is a URL, and this verb takes a folder" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_a_folder_is_a_store_as_ever(tmp_path):
    assert type(open_store(tmp_path)) is Store
    assert type(open_store("relative/folder")) is Store
