import dataclasses
import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from test_policy import SEEDS, TOKENS, make, observation
from transformers import Dinov2Config, Dinov2Model

from compression_gap.encoders.checkpoints import prepare_pretrained, resolve
from compression_gap.encoders.pin import TextPin
from compression_gap.encoders.text import Instructions
from compression_gap.errors import UserError
from compression_gap.policies import Policy
from compression_gap.policies.card import Card
from compression_gap.policies.policy import PolicyModule
from compression_gap.policies.sharing import CHECKPOINT, CHECKSUMS, FILES
from compression_gap.store.store import file_sha256
from compression_gap.tokenizers import OAT

HEADS = ("diffusion", "flow", "regression", "autoregressive", "hybrid")


@pytest.fixture(scope="module")
def oat():
    chunks = np.random.default_rng(0).normal(size=(40, 4, 2)).astype(np.float32)
    tokenizer = OAT(levels=[[8, 5]], tokens=2, size="xs")
    tokenizer.fit(chunks, np.ones((40, 4), bool), steps=2, batch_size=8, seed=0)
    return tokenizer


@pytest.mark.parametrize("head", HEADS)
def test_what_is_shared_acts_as_before(head, oat, tmp_path):
    policy = make(head, oat if head in TOKENS else None)
    folder = policy.save_pretrained(tmp_path / "new" / "policy")
    assert folder == tmp_path / "new" / "policy"
    for again in (Policy.from_pretrained(folder), Policy.from_pretrained(str(folder))):
        a, b = (p.act(observation(), SEEDS) for p in (policy, again))
        np.testing.assert_array_equal(a.chunk, b.chunk)
        assert a.chunk.tobytes() == b.chunk.tobytes()
        assert again.spec == policy.spec
        if head in TOKENS:
            np.testing.assert_array_equal(a.tokens, b.tokens)


def test_the_folder_holds_the_files_of_a_policy_and_its_card(oat, tmp_path):
    folder = make("autoregressive", oat, encoder="blind").save_pretrained(tmp_path / "p")
    files = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    own = {f for f in FILES if not f.startswith(("encoder/", "text/"))}  # it has neither
    assert files == {*own, CHECKSUMS, "README.md"}
    assert [f.name for f in tmp_path.iterdir()] == ["p"]
    plain = make().save_pretrained(tmp_path / "q", card=Card(key="0123"))
    assert "`0123`" in (plain / "README.md").read_text()
    assert not (plain / "tokenizer").exists()


def test_the_working_directory_takes_a_policy(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make().save_pretrained(".")
    assert Policy.from_pretrained(tmp_path / "here").spec == make().spec
    monkeypatch.chdir(tmp_path / "here")  # the folder was replaced by a rename
    with pytest.raises(UserError, match="is there already and not empty"):
        make().save_pretrained(".")


def test_a_folder_that_is_in_use_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    policy = make()
    with pytest.raises(UserError, match="is there already and not empty; name a new folder"):
        policy.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is there already and not empty; name a new folder"):
        policy.save_pretrained(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write .*; name another folder"):
        policy.save_pretrained(tmp_path / "file" / "p")
    assert (tmp_path / "file").read_text() == "mine"
    policy.save_pretrained(tmp_path / "empty")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["empty", "file"]


def test_half_a_folder_is_never_seen(tmp_path, monkeypatch):
    def full(self, folder):
        (folder / "policy.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Policy, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left on device"):
        make().save_pretrained(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def flip(file, at=20):
    data = bytearray(file.read_bytes())
    data[at] ^= 255
    file.write_bytes(bytes(data))


def edit(**changes):
    def change(folder):
        file = folder / "policy.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


DAMAGES = {
    "no policy.json": lambda f: (f / "policy.json").unlink(),
    "no weights": lambda f: (f / "policy.safetensors").unlink(),
    "no normaliser": lambda f: (f / "normaliser.json").unlink(),
    "half the weights": lambda f: (f / "policy.safetensors").write_bytes(
        (f / "policy.safetensors").read_bytes()[:5000]
    ),
    "a bit of the header": lambda f: flip(f / "policy.safetensors"),
    "a pickle": lambda f: torch.save({"a": torch.zeros(1)}, f / "policy.safetensors"),
    "no JSON": lambda f: (f / "policy.json").write_text("{"),
    "a list": lambda f: (f / "policy.json").write_text("[]"),
    "another size": edit(size="S"),
    "no such head": edit(head="dance"),
    "no such encoder": edit(encoder="dance"),
    "an odd horizon": edit(horizon="many"),
    "a key too many": edit(colour="red"),
    "other actions": edit(action_dim=3),
    "a horizon beyond memory": edit(horizon=10**15),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(damage, tmp_path):
    folder = make().save_pretrained(tmp_path / "p")
    (folder / CHECKSUMS).unlink()
    DAMAGES[damage](folder)
    with pytest.raises(UserError) as caught:
        Policy.from_pretrained(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) <= 400
    assert "holds no policy" in sentence or "dance" in sentence


WRONG = [
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    10**400,
    "x",
    "x" * 5000,
    [],
    ["x"],
    [[1.0, 2.0]],
    {},
    {"x": -1},
    "DEEP",
    "GONE",
]


def places(value, path=()):
    """Every path of a record to a field, or to the first item of a list."""
    for key in value if isinstance(value, dict) else range(min(len(value), 1)):
        yield (*path, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*path, key))


def mutants(text):
    """The text of a record with one value replaced, for each place and wrong value."""
    for path in places(json.loads(text)):
        for wrong in WRONG:
            record = json.loads(text)
            inside = record
            for key in path[:-1]:
                inside = inside[key]
            if wrong == "GONE":
                del inside[path[-1]]
            else:
                inside[path[-1]] = wrong
            yield path, wrong, json.dumps(record).replace('"DEEP"', "[" * 5000 + "]" * 5000)
    yield (), "digits", text.replace("1", "9" * 4301, 1)
    yield (), "brackets", "[" * 5000


@pytest.fixture(scope="module")
def conditioned(oat, tmp_path_factory):
    """Saved policies that hold every record between them: of tokens and of instructions, with a crop."""
    plain, root = make(), tmp_path_factory.mktemp("records")
    spec = dataclasses.replace(plain.spec, task="text", crop={"mode": "all", "share": 0.9}, options={"sampling_steps": 2})  # fmt: skip
    pin = TextPin(encoder="siglip-base", source={"hub": "a/b", "revision": "main", "commit": "c0ffee"},
                  model_type="siglip", config={}, feature_dim=4, tokenizer={}, length=8)  # fmt: skip
    texts = Instructions(("reach", "push"), np.eye(2, 4, dtype=np.float32), pin)
    module = PolicyModule(spec, plain.normaliser, None, plain.module.prepared, instructions=texts)
    folders = {"text": root / "text", "tokens": root / "tokens"}
    Policy(spec, module, plain.normaliser, None).save_pretrained(folders["text"])
    make("autoregressive", oat, temperature=1.0, top_k=3, constrained=True).save_pretrained(folders["tokens"])
    return folders


def loaded(folder):
    """The policy, or the sentence that refuses it."""
    try:
        return Policy.from_pretrained(folder)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("text", "policy.json"),
        ("tokens", "policy.json"),
        ("text", "normaliser.json"),
        ("tokens", "tokenizer/tokenizer.json"),
        ("text", "text/text.json"),
        ("tokens", "checksums.json"),
    ],
)
def test_a_record_of_any_wrong_value_is_refused_on_loading_or_does_no_harm(kind, name, conditioned, tmp_path):
    """Whatever one value becomes: one sentence when it is loaded, or a policy that acts."""
    folder = shutil.copytree(conditioned[kind], tmp_path / "p")
    text = (folder / name).read_text()
    if name != CHECKSUMS:
        (folder / CHECKSUMS).unlink()
    refused = 0
    for path, wrong, mutant in mutants(text):
        (folder / name).write_text(mutant)
        policy = loaded(folder)
        if isinstance(policy, str):
            refused += 1
            assert "\n" not in policy, (path, wrong)
            assert len(policy) <= 600, (path, wrong)
            continue
        assert policy.spec.image_size <= 4096, (path, wrong)
        if policy.spec.image_size <= 100:
            assert np.isfinite(policy.act(policy.example(), SEEDS[:1]).chunk).all(), (path, wrong)
    assert refused > 15


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder": ["x"]}, "'encoder': input should be a valid string"),
        ({"image_size": -1}, "'image_size': input should be greater than or equal to 1"),
        ({"image_size": 10**6}, "'image_size': input should be less than or equal to 4096"),
        ({"horizon": "4"}, "'horizon': input should be a valid integer"),
        ({"tasks": []}, "'tasks': tuple should have at least 1 item"),
        ({"tasks": ["reach", "reach"]}, "a name is given twice among reach, reach"),
        ({"task": "words"}, "'task' is 'words', and none of embedding, index, text"),
        ({"colour": "red"}, "'colour': unexpected"),
        ({"options": {"top_k": "…"}}, "the head's option 'top_k' is '…': input should be a valid integer"),
        (
            {"options": {"sampling_steps": 0}},
            "the head's option 'sampling_steps' is '0': input should be greater",
        ),
        (
            {"options": {"temperature": float("nan")}},
            "the head's option 'temperature' is 'nan': input should be",
        ),
    ],
)
def test_a_wrong_field_of_the_record_is_named(change, said, tmp_path):
    folder = make().save_pretrained(tmp_path / "p")
    (folder / CHECKSUMS).unlink()
    edit(**change)(folder)
    with pytest.raises(UserError) as caught:
        Policy.from_pretrained(folder)
    assert said in str(caught.value)


def nudge(folder):
    """One digit of the normaliser: it would load, and act otherwise."""
    file = folder / "normaliser.json"
    file.write_text(file.read_text().replace("1", "2", 1))


SILENT = {
    **DAMAGES,
    "another head": edit(head="flow"),  # of the same shapes
    "a number": nudge,
    "a bit of the weights": lambda f: flip(f / "policy.safetensors", -1),
    "a tokenizer too many": lambda f: (
        (f / "tokenizer").mkdir(),
        (f / "tokenizer/tokenizer.json").write_text("{}"),
    ),
    "checksums that are none": lambda f: (f / CHECKSUMS).write_text("[1]"),
    "checksums of nothing": lambda f: (f / CHECKSUMS).write_text("{}"),
    "half the checksums": lambda f: (f / CHECKSUMS).write_text((f / CHECKSUMS).read_text()[:40]),
}


@pytest.mark.parametrize("damage", SILENT)
def test_damage_that_would_load_is_found_by_checksum(damage, tmp_path):
    folder = make().save_pretrained(tmp_path / "p")
    SILENT[damage](folder)
    with pytest.raises(
        UserError, match=r"holds no policy (as it was saved|whose checksums).*; fetch it again"
    ):
        Policy.from_pretrained(folder)


def test_an_artefact_of_a_store_is_verified_by_its_manifest(tmp_path):
    make(encoder="blind").save(tmp_path)
    assert Policy.from_pretrained(tmp_path).spec == make(encoder="blind").spec  # without any, as Policy.load
    sums = {f.name: {"sha256": file_sha256(f), "bytes": f.stat().st_size} for f in tmp_path.iterdir()}
    (tmp_path / "artifact.json").write_text(json.dumps({"files": sums}))
    assert Policy.from_pretrained(tmp_path).spec == make(encoder="blind").spec
    nudge(tmp_path)
    with pytest.raises(
        UserError, match=r"as it was saved \(normaliser.json: missing, or not of its checksum\)"
    ):
        Policy.from_pretrained(tmp_path)


def test_a_tokenizer_that_is_damaged(oat, tmp_path):
    folder = make("autoregressive", oat).save_pretrained(tmp_path / "p")
    (folder / CHECKSUMS).unlink()
    (folder / "tokenizer" / "tokenizer.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="holds no") as caught:
        Policy.from_pretrained(folder)
    assert "\n" not in str(caught.value)


# The Hub, without a network


def test_a_hub_id_is_downloaded_without_code(tmp_path, monkeypatch):
    folder, asked = make().save_pretrained(tmp_path / "snapshot"), {}

    def snapshot(repo_id, **options):
        asked.update(repo_id=repo_id, **options)
        return str(folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    policy = Policy.from_pretrained("someone/reach.v1", revision="abc")
    np.testing.assert_array_equal(
        policy.act(observation(), SEEDS).chunk, make().act(observation(), SEEDS).chunk
    )
    assert asked.pop("allow_patterns") == [*FILES, *CHECKPOINT, CHECKSUMS]
    assert asked == {"repo_id": "someone/reach.v1", "revision": "abc"}
    assert {Path(name).suffix for name in FILES} == {".json", ".safetensors"}


def test_a_folder_goes_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    make().save_pretrained("someone/reach")
    assert Policy.from_pretrained("someone/reach").spec == make().spec
    with pytest.raises(
        UserError, match=r"someone/reach is a folder; a revision \(main\) belongs to a Hub id"
    ):
        Policy.from_pretrained("someone/reach", revision="main")


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    """The library itself, told to stay off the network, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    for module in (huggingface_hub.constants, huggingface_hub._snapshot_download.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="there is no folder nobody/nothing here, and the policy") as caught:
        Policy.from_pretrained("nobody/nothing", revision="v2")
    sentence = str(caught.value)
    assert "at revision 'v2' could not be downloaded from the Hugging Face Hub" in sentence
    assert sentence.endswith("or give the local folder of a copy")
    assert "\n" not in sentence


@pytest.mark.parametrize("failure", [OSError("line\nline"), ValueError("x" * 900), RuntimeError("transport")])
def test_whatever_fails_in_the_download_is_one_sentence(failure, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise failure

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=f"could not be downloaded .*{type(failure).__name__}") as caught:
        Policy.from_pretrained("nobody/nothing")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["nowhere", "/no/where", "../up/there", "a/b/c", "", "https://x.org/a", "-a/b"]
)
def test_what_is_neither_a_folder_nor_a_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    expected = "holds no policy" if name == "" else "is neither a folder that is here nor a Hub id"
    with pytest.raises(UserError, match=expected):
        Policy.from_pretrained(name)


def test_a_local_frozen_encoder_travels_with_the_policy(tmp_path):
    """Elsewhere the folder in its name does not exist."""
    source = tmp_path / "mine"
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2}
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **shape)).save_pretrained(source)
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    prepare_pretrained(resolve(f"folder:{source}"), prepared)
    plain = make()
    spec = dataclasses.replace(plain.spec, encoder=f"folder:{source}", feature_dim=8)
    policy = Policy(spec, PolicyModule(spec, plain.normaliser, None, prepared), plain.normaliser, None)
    obs = dataclasses.replace(
        observation(),
        images={
            c: np.random.default_rng(0).integers(0, 256, (6, 2, 40, 40, 3), np.uint8) for c in spec.cameras
        },
    )
    before = policy.act(obs, SEEDS).chunk
    folder = policy.save_pretrained(tmp_path / "shared")
    shutil.rmtree(source)
    moved = Policy.from_pretrained(folder.rename(tmp_path / "moved")).save_pretrained(tmp_path / "again")
    shutil.rmtree(tmp_path / "moved")
    np.testing.assert_array_equal(Policy.from_pretrained(moved).act(obs, SEEDS).chunk, before)
    weights = moved / "encoder" / "checkpoint" / "model.safetensors"
    flip(weights, 2000)
    with pytest.raises(UserError, match=r"encoder/checkpoint/model.safetensors: missing, or not"):
        Policy.from_pretrained(moved)
