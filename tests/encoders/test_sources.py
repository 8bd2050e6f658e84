"""Checkpoints of the hub: a cache as its client lays it out, and no network."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from compression_gap.encoders import sources
from compression_gap.encoders.checkpoints import prepare_pretrained, resolve
from compression_gap.encoders.names import KNOWN
from compression_gap.encoders.sources import weights_folder
from compression_gap.errors import UserError

from .conftest import write_checkpoint

COMMIT, OTHER = "1" * 40, "2" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An offline hub cache with ``google/siglip-base-patch16-224`` at ``COMMIT``; returns its snapshots."""
    cache = tmp_path / "hub"
    repo = cache / "models--google--siglip-base-patch16-224"
    write_checkpoint("siglip", repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    offline(monkeypatch)
    sources._commits.clear()
    yield repo / "snapshots"
    sources._commits.clear()


def offline(monkeypatch, error=None):
    def model_info(self, repo, **how):
        raise error or OfflineModeIsEnabled("no network here")

    monkeypatch.setattr(HfApi, "model_info", model_info)


def online(monkeypatch, commit, files):
    def model_info(self, repo, **how):
        return SimpleNamespace(sha=commit, siblings=[SimpleNamespace(rfilename=f) for f in files])

    monkeypatch.setattr(HfApi, "model_info", model_info)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("at", ["", f"@{COMMIT}"])
def test_a_cached_model_resolves_to_its_commit_without_a_network(at, tmp_path):
    name = f"hub:google/siglip-base-patch16-224{at}" if at else "siglip-base"
    pin = resolve(name)
    assert pin.source == {"hub": KNOWN["siglip-base"], "revision": at[1:] or "main", "commit": COMMIT}
    assert (pin.image_size, pin.resample) == (32, "bilinear")
    (tmp_path / "out").mkdir()
    prepare_pretrained(pin, tmp_path / "out")
    assert weights_folder(pin).name == COMMIT


def test_another_commit_is_another_pin(hub, monkeypatch):
    first = resolve("siglip-base")
    shutil.copytree(hub / COMMIT, hub / OTHER)
    online(monkeypatch, OTHER, ["model.safetensors"])
    assert resolve("siglip-base") == first  # a process stays with its answer
    assert resolve("siglip-base+patches2").source == first.source
    sources._commits.clear()
    moved = resolve("siglip-base")
    assert moved.source["commit"] == OTHER
    assert replace(moved, source=first.source) == first
    assert weights_folder(first).name == COMMIT  # what was made with the first still finds it


@pytest.mark.usefixtures("hub")
def test_a_model_that_cannot_be_had_names_the_folder_option():
    with pytest.raises(UserError) as error:
        resolve("dinov2-l")
    assert str(error.value) == (
        "encoder 'dinov2-l': facebook/dinov2-large is not in the cache, and the hub cannot be reached "
        "(no network here); connect once, or give a copy of the model as folder:PATH"
    )


def test_a_model_that_the_hub_does_not_have(hub, monkeypatch):
    error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
    offline(monkeypatch, error)
    with pytest.raises(
        UserError, match=r"the hub has no model a/b at revision v9 that is open to you; .*folder:PATH"
    ):
        resolve("hub:a/b@v9")


def test_a_hub_model_with_pickled_weights_alone(hub, monkeypatch):
    online(monkeypatch, COMMIT, ["config.json", "pytorch_model.bin"])
    with pytest.raises(UserError, match=r"no model\.safetensors, only pickled \.bin weights"):
        resolve("siglip-base")


def test_a_cache_that_lacks_files(hub):
    pin = resolve("siglip-base")
    (hub / COMMIT / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"weights of google/siglip-base.* at 111111111111 are not .*folder:PATH"
    ):
        weights_folder(pin)
    (hub / COMMIT / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"its preprocessor_config.json is not in the cache, .*folder:PATH"):
        resolve("siglip-base")


def test_weights_in_several_files_must_all_be_there(hub):
    pin = resolve("siglip-base")
    (hub / COMMIT / "model.safetensors").rename(hub / COMMIT / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (hub / COMMIT / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="are not all in the cache"):
        weights_folder(pin)
    shutil.copy(hub / COMMIT / "model-1.safetensors", hub / COMMIT / "model-2.safetensors")
    assert weights_folder(pin).name == COMMIT


def test_the_hub_says_that_there_is_no_preprocessor(hub):
    """The client notes files that a commit does not have: then the family's habits hold."""
    (hub / COMMIT / "preprocessor_config.json").unlink()
    for what in ("preprocessor_config.json", "processor_config.json"):
        note = hub.parent / ".no_exist" / COMMIT / what
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    assert resolve("siglip-base").resample == "bicubic"
