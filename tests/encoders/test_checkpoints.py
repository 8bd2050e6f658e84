import json
from dataclasses import asdict

import pytest

from compression_gap.encoders.checkpoints import FAMILIES as KNOWN_FAMILIES
from compression_gap.encoders.checkpoints import resolve
from compression_gap.encoders.pin import Pin
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
    assert pin.image_size == size
    assert pin.grid == grid
    assert pin.blocks == blocks
    assert pin.feature_dim == 4 * width
    assert pin.resample == resample
    assert pin.mean[0] == mean
    assert (pin.patches, pin.finetune, pin.precision) == (2, 1, "float32")
    assert pin.source["folder"] == str(folder)
    assert len(pin.source["sha256"]) == 64
    assert Pin.from_json(json.loads(json.dumps(asdict(pin)))) == pin
    assert "id2label" not in pin.config
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
    assert (pin.image_size, pin.mean[0], pin.resample) == (size, mean, resample)


def test_a_whole_processors_file_serves_as_well(tmp_path):
    write_checkpoint("siglip", tmp_path / "x")
    images = tmp_path / "x" / "preprocessor_config.json"
    about = {"image_processor": {**json.loads(images.read_text()), "image_mean": [0.1, 0.2, 0.3]}}
    images.unlink()
    (tmp_path / "x" / "processor_config.json").write_text(json.dumps(about))
    assert resolve(f"folder:{tmp_path / 'x'}").mean == [0.1, 0.2, 0.3]


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
    assert len({json.dumps(asdict(p)) for p in pins}) == 4


def test_other_files_in_the_folder_do_not_count(tmp_path):
    write_checkpoint("resnet", tmp_path / "x")
    before = resolve(f"folder:{tmp_path / 'x'}")
    (tmp_path / "x" / "README.md").write_text("mine")
    assert resolve(f"folder:{tmp_path / 'x'}") == before


def test_every_family_has_a_small_checkpoint_here():
    kinds = {f.model for f in KNOWN_FAMILIES.values()}
    tested = {m.replace("ForImageClassification", "Model") for _, m, _, _ in FAMILIES.values()}
    assert kinds == tested
