import subprocess
import sys

import pytest

from compression_gap.encoders import check_encoder, is_prepared, is_trained
from compression_gap.encoders.names import PretrainedName, parse
from compression_gap.errors import UserError


@pytest.mark.parametrize(
    ("name", "repo", "revision", "folder", "patches", "finetune"),
    [
        ("siglip-so400m", "google/siglip-so400m-patch14-224", "main", None, 1, None),
        ("dinov2-l+patches4", "facebook/dinov2-large", "main", None, 4, None),
        ("resnet18-imagenet+finetune", "microsoft/resnet-18", "main", None, 1, "all"),
        ("siglip2-base+patches2+finetune12", "google/siglip2-base-patch16-224", "main", None, 2, 12),
        ("hub:a-b/c.d_e@v1.0", "a-b/c.d_e", "v1.0", None, 1, None),
        ("hub:a/b@refs/pr/3+finetune1", "a/b", "refs/pr/3", None, 1, 1),
        ("hub:facebook/dinov2-small@v1", "facebook/dinov2-small", "v1", None, 1, None),
        ("folder:~/my models/x", None, "main", "~/my models/x", 1, None),
        ("folder:/a+b/c+d+patches3", None, "main", "/a+b/c+d", 3, None),
    ],
)
def test_names_taken_apart_and_put_together(name, repo, revision, folder, patches, finetune):
    found = parse(name)
    assert found == PretrainedName(repo, revision, folder, patches, finetune)
    assert str(found) == name
    check_encoder(name, image_size=84)
    assert is_prepared(name)
    assert is_trained(name) == (finetune is not None)


@pytest.mark.parametrize("name", ["resnet18", "blind", "retina-8", "oracle-2b"])
def test_others_have_no_prepared_folder(name):
    assert not is_prepared(name)
    assert is_trained(name) == (name == "resnet18")


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("siglip-base+finetune2+patches2", "siglip-base+patches2+finetune2"),
        ("siglip-base+patches1", "siglip-base"),
        ("hub:facebook/dinov2-large", "dinov2-l"),
        ("hub:facebook/dinov2-large@main+finetune", "dinov2-l+finetune"),
        ("hub:a/b@main", "hub:a/b"),
        ("folder:/a/./b/", "folder:/a/b"),
    ],
)
def test_one_thing_has_one_name(name, spelling):
    with pytest.raises(UserError) as error:
        check_encoder(name, image_size=84)
    assert str(error.value).startswith(f"encoder '{name}' is written '{spelling}'")
    check_encoder(spelling, image_size=84)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("siglip-base+patches", r"\+patches needs a number, as in \+patches4"),
        ("siglip-base+patches0", r"'\+patches0' is no suffix; known: \+patchesK .* \+finetuneN"),
        ("siglip-base+finetune0", r"'\+finetune0' is no suffix"),
        ("siglip-base+crop", r"'\+crop' is no suffix"),
        ("siglip-base+", r"'\+' is no suffix"),
        ("siglip-base+patches2+patches3", r"says \+patches twice"),
        ("siglip-base+finetune+finetune2", r"says \+finetune twice"),
        ("hub:siglip", "write hub:OWNER/NAME or hub:OWNER/NAME@REVISION"),
        ("hub:a/b/c", "write hub:OWNER/NAME"),
        ("hub:../secret/x", "write hub:OWNER/NAME"),
        ("hub:a/b@../../x", "write hub:OWNER/NAME"),
        ("hub:a/b@", "write hub:OWNER/NAME"),
        ("folder:", "names no folder: write folder:PATH"),
    ],
)
def test_names_that_break_the_grammar(name, words):
    with pytest.raises(UserError, match=words):
        check_encoder(name, image_size=84)


def test_a_name_is_checked_without_torch_or_transformers():
    code = (
        "import sys; from compression_gap.encoders.registry import check_encoder, is_trained;"
        "check_encoder('siglip-so400m+patches2', image_size=84); is_trained('hub:a/b+finetune');"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
