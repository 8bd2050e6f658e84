"""Keys and shapes that a change of structure must keep: older stores stay readable, and readers of JSON work on.

``golden/plans.json`` holds the keys of six plans, in the order of their steps; ``golden/summary.json`` the names in a
study's summary. A change that means to alter them writes them anew: ``REWRITE_GOLDEN=1 pytest tests/test_golden.py``.
"""

import json
import os
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from compression_gap.store.store import Store
from compression_gap.study.calibration import plan_calibration
from compression_gap.study.file import Cameras, Ledger, Tokenizer, load_study, parse_study
from compression_gap.study.ledger import plan_ledger
from compression_gap.study.offline import make_offline_plan
from compression_gap.study.parts import demonstrations_of
from compression_gap.study.plan import make_plan
from compression_gap.study.setting import resolve_suite
from compression_gap.study.tokenizer_table import TableSpec, plan_table

GOLDEN = Path(__file__).parent / "golden"
CODES = (((8, 5, 5, 5),), ((4,), (8, 5)))


def channel_demos():
    spec, info = resolve_suite("channel", Cameras(image_size=16))
    return demonstrations_of(spec, spec.tasks[0], 12, info.versions)


def tokenizer_table():
    spec = TableSpec(("bins", "bins-quantile", "fast", "rvq", "quest", "oat"), CODES[:1], seeds=(0, 1))
    return plan_table(spec, [channel_demos()])


def ledger():
    return plan_ledger(
        Ledger(), [channel_demos()], ["retina-4", "oracle"], ["bins", "oat"], CODES,
        Tokenizer(tokens=2), horizon=16, n_obs_steps=2, execute=8,
    )  # fmt: skip


def recordings(record, folder):
    tree = {
        "name": "own",
        "data": [str(record(folder, sizes={"front": (48, 48), "wrist": (48, 48)}))],
        "factors": {
            "encoder": ["retina-4", "resnet18"], "action": ["diffusion", "oat", "bins-hybrid"], "seed": [0, 1],
        },
        "tokenizer": {"mode": "train-as-published", "dropout": 0.1},
        "rollout": {"execute": 4},
        "ledger": {},
    }  # fmt: skip
    return make_offline_plan(parse_study(yaml.safe_dump(tree), "own.yaml"), Store(folder))


PLANS = {
    "tiny": lambda *_: make_plan(load_study(None, "tiny")),
    "demo": lambda *_: make_plan(load_study(None, "demo")),
    "calibration-quick": lambda *_: plan_calibration(True),
    "recordings": recordings,
    "tokenizer-table": lambda *_: tokenizer_table(),
    "ledger": lambda *_: ledger(),
}


def same_as_golden(name, found):
    """Compare with the file's entry; with ``REWRITE_GOLDEN`` set, write it instead."""
    file, entry = GOLDEN / name[0], name[1]
    golden = json.loads(file.read_text()) if file.exists() else {}
    if os.environ.get("REWRITE_GOLDEN"):
        golden[entry] = found
        file.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    assert found == golden[entry]


@pytest.mark.parametrize("name", PLANS)
def test_keys_of_artefacts_hold(name, record, tmp_path, monkeypatch):
    monkeypatch.setattr(
        metadata, "version", lambda package: "1.0"
    )  # a simulator's versions stand in its keys
    steps = PLANS[name](record, tmp_path).steps
    same_as_golden(("plans.json", name), [f"{s.kind}/{key}" for key, s in steps.items()])


def names_in(value):
    """The tree of names in a JSON value: of all elements of a list together, values left out."""
    if isinstance(value, dict):
        return {name: names_in(of) for name, of in sorted(value.items())}
    if isinstance(value, list):
        merged = {}
        for of in map(names_in, value):
            if isinstance(of, dict):
                merged |= {n: merged.get(n) or v for n, v in of.items()}
        return [merged] if merged else []
    return None


def test_names_in_a_summary_hold(finished, recorded):
    same_as_golden(("summary.json", "simulator"), names_in(finished.summary))
    same_as_golden(("summary.json", "recordings"), names_in(json.loads(recorded.printed)))
