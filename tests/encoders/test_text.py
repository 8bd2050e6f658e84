"""Instructions by a text tower: embeddings equal to the library's, pins that hold, sentences when they do not."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from compression_gap.encoders import sources
from compression_gap.encoders.pin import TextPin
from compression_gap.encoders.text import Instructions, embed, prepare_text, resolve_text
from compression_gap.errors import UserError
from compression_gap.sims import instruction_of

TEXTS = ["push the red block", "Open the drawer", "put the bowl on the plate"]


@pytest.fixture
def folder(text_checkpoint, tmp_path):
    """A copy that a test may spoil."""
    copy = tmp_path / "tower"
    shutil.copytree(text_checkpoint[0], copy)
    return copy


@torch.no_grad()
def expected(folder, model, texts):
    """What the library's own calls give."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    pooled = model.get_text_features(input_ids=ids)
    pooled = getattr(pooled, "pooler_output", pooled)
    return torch.nn.functional.normalize(pooled, dim=-1).numpy()


def test_embeddings_are_the_library_s(text_checkpoint):
    folder, model = text_checkpoint
    pin = resolve_text(f"folder:{folder}")
    made = embed(pin, TEXTS)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected(folder, model, TEXTS), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert np.abs(made[0] - made[1]).max() > 1e-3
    np.testing.assert_array_equal(
        embed(pin, ["push the RED block"]), embed(pin, TEXTS[:1])
    )  # its own case folding


def test_padding_to_the_tower_s_length_is_part_of_it(text_checkpoint):
    """SigLIP pools the last place, which is padding: without it the embedding is another."""
    from transformers import AutoTokenizer

    folder, model = text_checkpoint
    ids = AutoTokenizer.from_pretrained(str(folder))(TEXTS[:1], return_tensors="pt").input_ids
    assert ids.shape[1] < 8
    with torch.no_grad():
        short = model.text_model(input_ids=ids).pooler_output
    short = torch.nn.functional.normalize(short, dim=-1).numpy()
    assert np.abs(short - embed(resolve_text(f"folder:{folder}"), TEXTS[:1])).max() > 1e-3


def test_a_checkpoint_of_the_text_tower_alone_serves_as_well(text_checkpoint, tmp_path):
    from transformers import AutoTokenizer, SiglipTextModel

    folder, model = text_checkpoint
    alone = SiglipTextModel(model.config.text_config)
    alone.load_state_dict(model.text_model.state_dict())
    alone.save_pretrained(tmp_path / "alone")
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(tmp_path / "alone")
    pin = resolve_text(f"folder:{tmp_path / 'alone'}")
    assert pin.model_type == "siglip_text_model"
    np.testing.assert_allclose(embed(pin, TEXTS), expected(folder, model, TEXTS), atol=1e-6)


def test_the_published_tokenizer_s_kind_serves(folder, text_checkpoint):
    """SigLIP's own tokenizer: SentencePiece, case and punctuation folded."""
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=model, vocab_size=15, hard_vocab_limit=False,
        pad_id=-1, eos_id=1, unk_id=0, bos_id=-1, minloglevel=3, model_type="char",
    )  # fmt: skip
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue()[:])
    about = {"tokenizer_class": "SiglipTokenizer", "model_input_names": ["input_ids"], "model_max_length": 8}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    pin = resolve_text(f"folder:{folder}")
    assert set(pin.tokenizer) == {"spiece.model", "tokenizer_config.json"}
    short = ["push", "open"]
    np.testing.assert_allclose(embed(pin, short), expected(folder, text_checkpoint[1], short), atol=1e-6)
    np.testing.assert_array_equal(embed(pin, ["Push!"]), embed(pin, ["push"]))


def test_the_pin_says_what_decides_the_embeddings(text_checkpoint):
    folder, _ = text_checkpoint
    pin = resolve_text(f"folder:{folder}")
    assert (pin.feature_dim, pin.length, pin.model_type) == (12, 8, "siglip")
    assert pin.config["hidden_size"] == 16
    assert "tokenizer.json" in pin.tokenizer
    assert TextPin.from_json(json.loads(json.dumps(asdict(pin)))) == pin == resolve_text(f"folder:{folder}")


def test_instructions_make_a_round_trip(text_checkpoint, tmp_path):
    pin = resolve_text(f"folder:{text_checkpoint[0]}")
    prepare_text(pin, TEXTS, tmp_path)
    made = Instructions.load(tmp_path)
    assert (made.texts, made.pin) == (tuple(TEXTS), pin)
    np.testing.assert_array_equal(made.table, embed(pin, TEXTS))
    assert {f.name for f in tmp_path.iterdir()} == {"text.json", "text.safetensors"}


def test_a_new_instruction_is_embedded_and_a_known_one_is_not(text_checkpoint, tmp_path, monkeypatch):
    pin = resolve_text(f"folder:{text_checkpoint[0]}")
    known = Instructions(tuple(TEXTS), embed(pin, TEXTS), pin)
    more, row = known.with_text("pick the red bowl")
    assert row == 3
    np.testing.assert_array_equal(more.table[:3], known.table)
    np.testing.assert_array_equal(more.table[3:], embed(pin, ["pick the red bowl"]))
    monkeypatch.setattr("compression_gap.encoders.text.embed", lambda *a: pytest.fail("it is known"))
    same, row = known.with_text("Open the drawer")
    assert (same, row) == (known, 1)


def test_loading_instructions_imports_no_tower(text_checkpoint, tmp_path):
    pin = resolve_text(f"folder:{text_checkpoint[0]}")
    Instructions(("push",), embed(pin, ["push"]), pin).save(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom compression_gap.encoders.text import Instructions\n"
        f"assert Instructions.load(Path({str(tmp_path)!r})).texts == ('push',)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# What an instruction is


@pytest.mark.parametrize(
    ("task", "known", "words"),
    [
        ("push-v3", {}, "push"),
        ("pick-place-wall-v3", {}, "pick place wall"),
        ("KITCHEN_SCENE3_turn_on", {}, "KITCHEN SCENE3 turn on"),
        ("t1", {"t1": " turn on  the stove "}, "turn on the stove"),
        ("put the bowl on the plate", {"t1": "x"}, "put the bowl on the plate"),
    ],
)
def test_a_task_s_instruction(task, known, words):
    assert instruction_of(task, known) == words


def test_a_missing_instruction_is_a_sentence():
    with pytest.raises(UserError, match=r"no instruction is known for the task 't1'.*SimInfo.instructions"):
        instruction_of("t1", {"t1": " "})


# What does not serve


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "siglip-bas",
            r"unknown text encoder 'siglip-bas' \(did you mean 'siglip-base'\?\); known: folder:PATH, hub:",
        ),
        ("dinov2-b", "unknown text encoder 'dinov2-b'"),
        ("folder:", "policy.text_encoder: encoder 'folder:' names no folder"),
        ("hub:only", "policy.text_encoder: .*write hub:OWNER/NAME"),
        ("siglip-base+patches2", r"leave out \+patches and \+finetune"),
        ("folder:/no/such", "policy.text_encoder: .* holds no config.json"),
    ],
)
def test_names_that_do_not_serve(name, words):
    with pytest.raises(UserError, match=words):
        resolve_text(name)


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            lambda f: change(f / "config.json", model_type="dinov2"),
            "'dinov2', which has no text tower that is known",
        ),
        (
            lambda f: (f / "tokenizer.json").unlink(),
            r"comes without a tokenizer \(tokenizer.json or spiece.model\)",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (
            lambda f: change(f / "tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"}),
            "code that comes with",
        ),
    ],
)
def test_folders_that_do_not_serve(folder, act, words):
    act(folder)
    with pytest.raises(UserError, match=f"policy.text_encoder: encoder 'folder:.*{words}"):
        resolve_text(f"folder:{folder}")


def test_a_checkpoint_that_changed_after_it_was_pinned_is_refused(folder):
    pin = resolve_text(f"folder:{folder}")
    tokens = folder / "tokenizer.json"
    tokens.write_text(tokens.read_text().replace('"push": 3', '"push": 4').replace('"pick": 4', '"pick": 3'))
    with pytest.raises(UserError, match=r"its tokenizer\.json in .* has changed or gone since it was pinned"):
        embed(pin, ["push"])


def test_a_checkpoint_without_the_text_tower_s_weights_is_refused(folder, text_checkpoint):
    from safetensors.torch import save_file

    weights = {
        n: t.contiguous() for n, t in text_checkpoint[1].state_dict().items() if "text_model.head" not in n
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 2 of the text tower's weights \(first: .*head"):
        embed(resolve_text(f"folder:{folder}"), ["push"])


def test_an_instruction_that_is_too_long_is_no_shorter_one(text_checkpoint):
    with pytest.raises(
        UserError, match=r"the instruction 'push push .*' has 13 tokens, and .* reads 8: shorten it"
    ):
        embed(resolve_text(f"folder:{text_checkpoint[0]}"), ["push", " ".join(["push"] * 12)])


def test_without_network_and_cache_the_folder_is_the_way(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OfflineModeIsEnabled("no network here")

    monkeypatch.setattr(sources, "_commits", {})
    monkeypatch.setattr(HfApi, "model_info", offline)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    with pytest.raises(
        UserError,
        match=r"policy.text_encoder: encoder 'siglip-base': google/.* is not in the cache.*folder:PATH",
    ):
        resolve_text("siglip-base")


def test_a_hub_model_is_pinned_by_its_commit(monkeypatch, text_checkpoint):
    """The hub's answers, from a folder: files come one by one, and the tokenizer's are looked for among them."""
    folder, model = text_checkpoint
    info = SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename="model.safetensors")])
    monkeypatch.setattr(sources, "_commits", {})
    monkeypatch.setattr(HfApi, "model_info", lambda *a, **k: info)

    def cached(repo, what, revision):
        assert (repo, revision) == ("google/siglip-base-patch16-224", "c0ffee")
        return str(folder / what) if (folder / what).is_file() else object()

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    pin = resolve_text("siglip-base")
    assert pin.source["commit"] == "c0ffee"
    np.testing.assert_allclose(embed(pin, TEXTS), expected(folder, model, TEXTS), atol=1e-6)
