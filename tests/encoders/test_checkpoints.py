import json
import shutil
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from compression_gap.encoders import checkpoints as rules
from compression_gap.encoders.checkpoints import prepare_pretrained, resolve, weights_folder
from compression_gap.encoders.names import KNOWN
from compression_gap.errors import UserError

from .conftest import FAMILIES, write_checkpoint

# Folders


@pytest.mark.parametrize(
    ("family", "size", "grid", "blocks", "width", "resample", "mean"),
    [
        ("resnet", 64, 2, 5, 20, "bicubic", 0.485),
        ("siglip", 32, 4, 3, 16, "bilinear", 0.5),
        ("siglip2", 32, 4, 3, 16, "bilinear", 0.5),
        ("dinov2", 42, 3, 3, 16, "bicubic", 0.485),
        ("dinov2-registers", 42, 3, 3, 16, "bicubic", 0.485),
    ],
)
def test_the_pin_says_what_decides_the_features(
    checkpoints, family, size, grid, blocks, width, resample, mean
):
    folder = checkpoints[family][0]
    pin = resolve(f"folder:{folder}+patches2+finetune1")
    assert pin["image_size"] == size
    assert pin["grid"] == grid
    assert pin["blocks"] == blocks
    assert pin["feature_dim"] == 4 * width
    assert pin["resample"] == resample
    assert pin["mean"][0] == mean
    assert (pin["patches"], pin["finetune"], pin["precision"]) == (2, 1, "float32")
    assert pin["source"]["folder"] == str(folder)
    assert len(pin["source"]["sha256"]) == 64
    assert json.loads(json.dumps(pin)) == pin
    assert "id2label" not in pin["config"]
    assert resolve(f"folder:{folder}+patches2+finetune1") == pin


@pytest.mark.parametrize(
    ("family", "size", "mean", "resample"),
    [
        ("resnet", 224, 0.485, "bicubic"),
        ("dinov2", 224, 0.485, "bicubic"),
        ("siglip", 32, 0.5, "bicubic"),  # its positions are for one size
    ],
)
def test_without_a_preprocessor_the_familys_habits_hold(tmp_path, family, size, mean, resample):
    write_checkpoint(family, tmp_path / "x")
    (tmp_path / "x" / "preprocessor_config.json").unlink()
    pin = resolve(f"folder:{tmp_path / 'x'}")
    assert (pin["image_size"], pin["mean"][0], pin["resample"]) == (size, mean, resample)


def test_a_whole_processors_file_serves_as_well(tmp_path):
    write_checkpoint("siglip", tmp_path / "x")
    images = tmp_path / "x" / "preprocessor_config.json"
    about = {"image_processor": {**json.loads(images.read_text()), "image_mean": [0.1, 0.2, 0.3]}}
    images.unlink()
    (tmp_path / "x" / "processor_config.json").write_text(json.dumps(about))
    assert resolve(f"folder:{tmp_path / 'x'}")["mean"] == [0.1, 0.2, 0.3]


def change(folder, file, **values):
    about = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(about | values))


PREPROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            lambda f: (f / "config.json").unlink(),
            "holds no config.json; give a folder that save_pretrained wrote",
        ),
        (lambda f: (f / "config.json").write_text("[]"), "config.json holds no JSON object"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (
            lambda f: change(f, "config.json", model_type="clip"),
            "is a 'clip', which is not among the vision models known here .resnet, siglip, .*dinov2",
        ),
        (
            lambda f: (f / "model.safetensors").unlink(),
            "has no model.safetensors: take a revision that has one",
        ),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            r"no model.safetensors, only pickled .bin weights, which are never opened here: .*save_pretrained",
        ),
        (lambda f: change(f, PREPROCESSOR, resample=1), r"Pillow's filter 1 .*2 \(bilinear\) and 3"),
        (lambda f: change(f, PREPROCESSOR, rescale_factor=1.0), "rescales by 1.0 .*1/255"),
        (
            lambda f: change(f, PREPROCESSOR, crop_size={"height": 42, "width": 28}),
            r"a size of \[42, 28\] is not square",
        ),
    ],
)
def test_folders_that_do_not_serve(tmp_path, act, words):
    folder = tmp_path / "mine"
    write_checkpoint("dinov2", folder)
    act(folder)
    with pytest.raises(UserError, match=words):
        resolve(f"folder:{folder}")


def test_more_patches_or_blocks_than_there_are(checkpoints):
    folder = checkpoints["dinov2"][0]
    with pytest.raises(UserError, match="has 3 × 3 patches: ask for no more"):
        resolve(f"folder:{folder}+patches4")
    with pytest.raises(UserError, match="has 3 blocks: finetune that many or fewer"):
        resolve(f"folder:{folder}+finetune4")


def test_an_edit_of_any_part_is_another_pin(tmp_path):
    folder = tmp_path / "x"
    write_checkpoint("dinov2", folder)
    pins = [resolve(f"folder:{folder}")]
    change(folder, PREPROCESSOR, image_mean=[0.5, 0.5, 0.5])
    pins.append(resolve(f"folder:{folder}"))
    change(folder, "config.json", layer_norm_eps=1e-5)
    pins.append(resolve(f"folder:{folder}"))
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x3d")
    pins.append(resolve(f"folder:{folder}"))
    assert len({json.dumps(p) for p in pins}) == 4


def test_other_files_in_the_folder_do_not_count(tmp_path):
    write_checkpoint("resnet", tmp_path / "x")
    before = resolve(f"folder:{tmp_path / 'x'}")
    (tmp_path / "x" / "README.md").write_text("mine")
    assert resolve(f"folder:{tmp_path / 'x'}") == before


# The hub: a cache as its client lays it out, and no network

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
    rules._commits.clear()
    yield repo / "snapshots"
    rules._commits.clear()


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
    assert pin["source"] == {"hub": KNOWN["siglip-base"], "revision": at[1:] or "main", "commit": COMMIT}
    assert (pin["image_size"], pin["resample"]) == (32, "bilinear")
    (tmp_path / "out").mkdir()
    prepare_pretrained(pin, tmp_path / "out")
    assert weights_folder(pin).name == COMMIT


def test_another_commit_is_another_pin(hub, monkeypatch):
    first = resolve("siglip-base")
    shutil.copytree(hub / COMMIT, hub / OTHER)
    online(monkeypatch, OTHER, ["model.safetensors"])
    assert resolve("siglip-base") == first  # a process stays with its answer
    assert resolve("siglip-base+patches2")["source"] == first["source"]
    rules._commits.clear()
    moved = resolve("siglip-base")
    assert moved["source"]["commit"] == OTHER
    assert {k for k in first if first[k] != moved[k]} == {"source"}
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
    for what in (PREPROCESSOR, "processor_config.json"):
        note = hub.parent / ".no_exist" / COMMIT / what
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    assert resolve("siglip-base")["resample"] == "bicubic"


def test_every_family_has_a_small_checkpoint_here():
    kinds = {f.model for f in rules.FAMILIES.values()}
    tested = {m.replace("ForImageClassification", "Model") for _, m, _, _ in FAMILIES.values()}
    assert kinds == tested
