"""Records as JSON: names are the fields', flat parts stand among their owner's, what is not there is left out."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from compression_gap.results.records.bits import CodebookLaw
from compression_gap.results.records.cells import Actor, CodeLevels, Reference, Success
from compression_gap.results.records.json import Flat, IfThere, as_json
from compression_gap.sims import EvaluationProtocol, SimSpec
from compression_gap.statistics.intervals import Interval


def test_flat_parts_stand_among_their_owner_s():
    reference = Reference(
        label="expert-coded",
        of=Actor(actor="expert-coded"),
        code=CodeLevels(
            tokenizer="oat", codebook=((8, 5, 5, 5),), tokenizer_seed="training", capacity_bits=79.7
        ),
        fitted_seeds=(0, 1),
        outcome=Success(demos=6, episodes=4, rate=Interval(0.5, 0.25, 0.75, "by hand"), per_task=None),
    )
    assert as_json(reference) == {
        "label": "expert-coded",
        "actor": "expert-coded",
        "tokenizer": "oat",
        "codebook": [[8, 5, 5, 5]],
        "tokenizer_seed": "training",
        "capacity_bits": 79.7,
        "fitted_seeds": [0, 1],
        "demos": 6,
        "episodes": 4,
        "rate": {"value": 0.5, "low": 0.25, "high": 0.75, "method": "by hand"},
        "per_task": None,
    }


def test_what_is_not_there_is_left_out_and_what_is_unknown_is_null():
    law = CodebookLaw(encoder="z", bits=None, bound="too few codes", low=None, high=None)
    assert as_json(law) == {"encoder": "z", "bits": None, "bound": "too few codes", "low": None, "high": None}


def test_a_flat_part_that_is_none_leaves_nothing():
    @dataclass(frozen=True)
    class Owner:
        one: int
        part: "Flat[Interval | None]"
        more: "IfThere[int | None]" = None

    assert as_json([Owner(1, None), {"a": Owner(2, Interval(0, 0, 1, "m"), more=3)}]) == [
        {"one": 1},
        {"a": {"one": 2, "value": 0, "low": 0, "high": 1, "method": "m", "more": 3}},
    ]


def test_a_protocol_brings_its_hash_and_a_path_is_text():
    protocol = EvaluationProtocol(
        sim=SimSpec(sim="channel", tasks=("reach",), cameras=("top",), image_size=16),
        episodes_per_task=4,
        execute=8,
        step_limit=32,
        versions={"channel": "1"},
    )
    found = as_json({"protocol": protocol, "folder": Path("a/b")})
    assert found["protocol"].pop("hash") == protocol.hash
    assert found == {"protocol": protocol.model_dump(mode="json"), "folder": "a/b"}


@pytest.mark.parametrize("fixture", ["finished", "recorded"])
def test_what_is_printed_is_the_record(fixture, request):
    study = request.getfixturevalue(fixture)
    assert as_json(study.record) == study.summary
