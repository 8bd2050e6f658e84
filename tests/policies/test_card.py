import re

import yaml
from test_policy import make

from compression_gap.policies.card import Card, CellRate, Evaluation, Rate, write_card

KNOWN = Card(
    key="0123456789abcdef0123",
    training={"steps": 1500, "batch_size": 128, "seed": 1},
    convergence="converged",
    demonstrations=("reach: 100 demonstrations (80 of them for training), 5000 frames, demos 77",),
    evaluations=(
        Evaluation(
            protocol="cafe",
            conditions="channel, initial states 2000000 to 2000024 of each task",
            tasks={"reach": Rate(0.4, 0.234, 0.593), "push": Rate(1.0, 0.867, 1.0)},
            episodes=25,
            overall=Rate(0.7, 0.56, 0.81),
        ),
    ),
    cells=(CellRate("demo", "cafe", "diffusion · oracle", (0, 1), Rate(0.72, 0.5, 0.9)),),
)


def front_matter(text):
    found = re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL)
    return yaml.safe_load(found[1]), text[found.end() :]


def rows(text, heading):
    """The cells of the first table below a heading."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [x for x in section.splitlines() if x.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_front_matter_is_what_the_hub_reads():
    about, _ = front_matter(write_card(make().facts(), Card()))
    assert about == {
        "library_name": "compression-gap",
        "pipeline_tag": "robotics",
        "tags": ["robotics", "compression-gap", "imitation-learning", "plane", "oracle", "diffusion"],
    }


def test_success_stands_with_intervals_per_task():
    _, text = front_matter(write_card(make().facts(), KNOWN))
    assert rows(text, "Success")[2:] == [
        ["reach", "40 % [23, 59]", "25"],
        ["push", "100 % [87, 100]", "25"],
        ["mean of the tasks", "70 % [56, 81]", "50"],
    ]
    assert "protocol `cafe`: channel, initial states 2000000 to 2000024" in text
    assert (
        "In the study demo (protocol `cafe`) this cell, diffusion · oracle, has 72 % [50, 90] over the training "
        "seeds 0, 1, seed variance in its interval." in text
    )
    alone = Card(cells=(CellRate("demo", "cafe", "oat", (3,), Rate(0.1, 0, 1)),))
    assert "over the training seed 3, so the variance of seeds is not known" in write_card(
        make().facts(), alone
    )


def test_the_network_is_described_by_itself():
    policy = make(size="S")
    found = {row[0]: row[1] for row in rows(write_card(policy.facts(), KNOWN), "What it is")}
    counts = policy.parameter_counts()
    assert found["parameters"] == f"{counts['total']:,} ({counts['trunk']:,} of them in the trunk)"
    assert found["FLOPs of a decision"] == f"{policy.flops():,}"
    assert (found["encoder"], found["head"], found["size"]) == ("oracle", "diffusion", "S")
    assert found["action chunk"] == "[4, 2]"
    assert found["cameras"] == "front, wrist (40 × 40 pixels)"
    assert found["tokenizer"] == "none"


def test_training_and_data():
    text = write_card(make().facts(), KNOWN)
    found = {row[0]: row[1] for row in rows(text, "Training")}
    assert {k: found[k] for k in ("steps", "batch size", "seed", "validation loss")} == {
        "steps": "1500", "batch size": "128", "seed": "1", "validation loss": "converged"
    }  # fmt: skip
    assert found["artefact"] == "`0123456789abcdef0123`"
    assert "- reach: 100 demonstrations (80 of them for training), 5000 frames, demos 77" in text


def test_an_overfit_policy_says_so():
    text = write_card(make().facts(), Card(key="k", convergence="overfit"))
    found = {row[0]: row[1] for row in rows(text, "Training")}
    assert found["validation loss"].startswith("overfit: it had risen above its minimum at the last step")


def test_what_is_not_known_is_said_and_no_figure_is_made_up():
    _, text = front_matter(write_card(make().facts(), Card()))
    assert "No success rates of this policy are known" in text
    assert "Its training is not known" in text
    assert "Its demonstrations are not known" in text
    assert "%" not in text
    assert rows(text, "Success") == rows(text, "Training") == []


def test_names_of_others_cannot_write_the_card():
    """Task names come from files: they stay words in a cell, whatever they hold."""
    rate = Rate(0.5, 0.4, 0.6)
    evil = "x | 100 % |\n## Success\n<img src=x> [a](http://b) `c`"
    card = Card(evaluations=(Evaluation("p`q", evil, {evil: rate}, 4, rate),), demonstrations=(evil,))
    text = write_card(make().facts(), card)
    assert text.count("\n## Success\n") == 1
    assert "<img" not in text.replace("\\<img", "")
    assert "](http" not in text
    assert rows(text, "Success")[2][-2:] == ["50 % [40, 60]", "4"]


def test_an_oracle_is_named_as_a_reference():
    assert "reads the simulator's true state" in write_card(make().facts(), Card())
    assert "true state" not in write_card(make(encoder="blind").facts(), Card())
