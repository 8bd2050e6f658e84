"""A head, a tokenizer and an encoder of another package, each a file and an entry: planned, trained, rolled out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ENTRY_POINTS = """\
[compression_gap.heads]
constant = elsewhere:CONSTANT
echo = elsewhere:ECHO
[compression_gap.tokenizers]
sign = elsewhere:SIGN
[compression_gap.encoders]
brightness-N = elsewhere:BRIGHTNESS
"""

ENTRIES = """\
from compression_gap.encoders.registry import EncoderEntry
from compression_gap.policies.registry import SAMPLED, HeadEntry
from compression_gap.registry import Option
from compression_gap.tokenizers.registry import TokenizerEntry

CONSTANT = HeadEntry("elsewhere.heads:Constant", options={"start": Option(float, 0.5, elided=True)})
ECHO = HeadEntry("elsewhere.heads:Echo", "tokens", SAMPLED)
SIGN = TokenizerEntry("elsewhere.sign:Sign", {"gain": Option(int, 2)})
BRIGHTNESS = EncoderEntry("elsewhere.brightness:Brightness", "brightness-[0-9]+", ("brightness-N",))
"""

HEADS = """\
import torch
from compression_gap.nn import Trunk
from compression_gap.policies.autoregressive import AutoregressiveHead
from compression_gap.policies.base import Emission, over_valid
from torch import nn


class Constant(nn.Module):
    def __init__(self, size, *, horizon, action_dim, start=0.5):
        super().__init__()
        self.trunk = Trunk(size)
        self.chunk = nn.Parameter(torch.full((horizon, action_dim), float(start)))

    def loss(self, context, target, *, rng):
        return over_valid((self.chunk - target.chunk).abs().mean(-1), target.valid)

    def sample(self, context, seeds):
        return Emission(self.chunk.expand(len(context), -1, -1), torch.ones(len(context), dtype=torch.bool))


class Echo(AutoregressiveHead):
    pass
"""

SIGN_FILE = """\
import numpy as np
from compression_gap.tokenizers import ActionTokenizer


class Sign(ActionTokenizer):
    name = "sign"

    def __init__(self, *, gain=2):
        super().__init__(gain=gain)

    @property
    def codebook_sizes(self):
        return (2,) * self.action_dim

    def _fit(self, chunks, validation, how):
        return {}

    def _encode(self, chunks):
        ids = (chunks.mean(1) > 0).astype(np.int64)
        return ids, np.full(len(ids), ids.shape[1])

    def _decode(self, ids, lengths):
        values = (ids - 0.5) / self.options["gain"]
        return np.repeat(values[:, None], self.horizon, 1), np.ones(len(ids), bool)

    def _arrays(self):
        return {}

    def _restore(self, arrays):
        pass
"""

BRIGHTNESS_FILE = """\
import numpy as np


class Brightness:
    needs_images, frozen, std_floor, dtype, feature_dim = True, True, 0.01, np.float16, 1

    def __init__(self, asked):
        self.name, self.power = asked.name, int(asked.name.removeprefix("brightness-"))

    def features(self, obs):
        means = [(x / 255.0).mean((2, 3, 4)) ** self.power for x in obs.images.values()]
        return np.stack(means, 2)[..., None].astype(np.float32)

    def network(self, *, weights=True):
        return None
"""

STUDY = """\
name: plugged
suite: channel
cameras: {image_size: 16}
limits: false
factors:
  encoder: [brightness-2]
  action: [constant, sign, sign-echo, sign-hybrid]
  seed: [0]
  demos: [6]
policy: {start: 0.25, top_k: 3}
tokenizer: {gain: 4}
training: {steps: 4, batch_size: 4, lr: 1e-3, warmup: 1, validations: 4}
rollout: {execute: 16, episodes_per_task: 2}
"""

PLAN = """\
import json, sys
from pathlib import Path
from compression_gap.study.file import load_study
from compression_gap.study.plan import make_plan
plan = make_plan(load_study(Path(sys.argv[1]), None))
assert "torch" not in sys.modules and "elsewhere.heads" not in sys.modules
specs = {c.action: c.policy.spec for c in plan.cells}
print(json.dumps({a: [s["head"], s["options"]] for a, s in specs.items()}))
print(json.dumps([s.recipe.spec["options"] for s in plan.steps.values() if s.recipe.kind == "tokenizer"]))
"""

RUN = "import sys; from compression_gap.cli.main import main; raise SystemExit(main(sys.argv[1:]))"


@pytest.fixture
def elsewhere(tmp_path):
    """An installed package, as pip lays it out; returns what runs a program that finds it."""
    files = {
        "elsewhere/__init__.py": ENTRIES,
        "elsewhere/heads.py": HEADS,
        "elsewhere/sign.py": SIGN_FILE,
        "elsewhere/brightness.py": BRIGHTNESS_FILE,
        "elsewhere-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n",
        "elsewhere-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def run(program, *arguments):
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path
        )

    return run


def test_entries_of_another_package_are_planned_trained_and_rolled_out(elsewhere, tmp_path):
    file = tmp_path / "plugged.yaml"
    file.write_text(STUDY)
    planned = elsewhere(PLAN, file)
    assert planned.returncode == 0, planned.stderr
    heads, codes = map(json.loads, planned.stdout.splitlines())
    sampled = {"temperature": 1.0, "top_k": 3, "constrained": True}
    assert heads == {
        "constant": ["constant", {"start": 0.25}],
        "sign": ["autoregressive", sampled],
        "sign-echo": ["echo", sampled],
        "sign-hybrid": ["hybrid", sampled],
    }
    assert codes == [{"gain": 4}]
    done = elsewhere(RUN, "study", "run", file, "--store", tmp_path / "store", "--processes", 0, "--json")
    assert done.returncode == 0, done.stderr
    cells = {c["action"]: c for c in json.loads(done.stdout)["cells"]}
    assert cells.keys() == heads.keys()
    for cell in cells.values():
        assert cell["encoder"] == "brightness-2"
        assert cell["rate"]["value"] >= 0
        (policy,) = map(Path, cell["policies"])
        assert (policy / "policy.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("start: 0.25", "start: x"), "line 10: 'policy.start': input should be a valid number (it is 'x')"),
        (("gain: 4", "gian: 4"), "line 11: unknown key 'tokenizer.gian'; did you mean 'gain'?"),
        (
            ("sign-echo", "sign-ecko"),
            "factors.action.2: unknown action 'sign-ecko' (did you mean 'sign-echo'?)",
        ),
    ],
)
def test_their_options_and_names_are_checked_as_our_own_are(elsewhere, tmp_path, change, sentence):
    file = tmp_path / "plugged.yaml"
    file.write_text(STUDY.replace(*change))
    refused = elsewhere(RUN, "study", "plan", file, "--store", tmp_path / "store")
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_of_this_name\n", "(ModuleNotFoundError: No module named 'nothing_of_this_name')"),
        (ENTRIES + "CONSTANT = 3\n", "elsewhere:CONSTANT is no compression_gap.policies"),
    ],
)
def test_a_package_that_gives_no_record_is_named(elsewhere, tmp_path, text, sentence):
    (tmp_path / "elsewhere" / "__init__.py").write_text(text)
    (tmp_path / "plugged.yaml").write_text(STUDY)
    refused = elsewhere(RUN, "study", "plan", tmp_path / "plugged.yaml")
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1
