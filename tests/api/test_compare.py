"""Policies compared by their result files, each in the layout that its program writes."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import compression_gap as cg
from compression_gap.api.compare import compare
from compression_gap.cli.main import main
from compression_gap.errors import UserError
from compression_gap.rollouts.run import EPISODE_SCHEMA
from compression_gap.statistics.intervals import contrast, wilson
from compression_gap.statistics.paired import further_pairs, paired_difference

RNG = np.random.default_rng(0)
A = (RNG.random(60) < 0.7).astype(int)
B = np.where(RNG.random(60) < 0.3, 0, A)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def diffusion_policy(path, outcomes):
    """As its ``eval.py`` writes it, with a training score and videos beside what counts."""
    log = {f"test/sim_max_reward_{100_000 + i}": float(x) for i, x in enumerate(outcomes)}
    more = {
        "train/sim_max_reward_0": 0.0,
        "train/mean_score": 0.0,
        "test/mean_score": float(np.mean(outcomes)),
        "test/sim_video_100000": "media/a.mp4",
    }
    return write(path, {**log, **more})


def lerobot(path, outcomes, seeds=True):
    """``eval_policy`` of one task."""
    every = [
        {"episode_ix": i, "sum_reward": float(x), "max_reward": float(x), "success": bool(x), "seed": i + 7 if seeds else None}
        for i, x in enumerate(outcomes)
    ]  # fmt: skip
    return write(
        path, {"per_episode": every, "aggregated": {"pc_success": 50.0, "avg_sum_reward": float("nan")}}
    )


def lerobot_tasks(path, outcomes):
    """``eval_policy_all`` of two tasks of a suite."""
    half = len(outcomes) // 2
    every = [
        {"task_group": "libero_object", "task_id": k, "metrics": {"sum_rewards": [], "max_rewards": [], "successes": [bool(x) for x in part], "video_paths": []}}
        for k, part in enumerate((outcomes[:half], outcomes[half:]))
    ]  # fmt: skip
    return write(path, {"per_task": every, "per_group": {}, "overall": {"pc_success": 50.0}})


def vla_eval(path, outcomes, **more):
    """``ResultCollector.get_benchmark_result``; an episode that raised has no metrics."""
    half = len(outcomes) // 2

    def episode(i, x):
        if x or i % 2:
            return {"episode_id": i, "metrics": {"success": bool(x)}, "steps": 9, "elapsed_sec": 1.0}
        return {"episode_id": i, "metrics": {}, "failure_reason": "env_error", "failure_detail": "…"}

    tasks = [
        {"task": f"pick {k}", "episodes": [episode(i, x) for i, x in enumerate(part)], "num_episodes": half, "avg_steps": 9}
        for k, part in enumerate((outcomes[:half], outcomes[half:]))
    ]  # fmt: skip
    return write(
        path, {"benchmark": "libero", "mode": "sync", "harness_version": "0.8", "tasks": tasks, **more}
    )


def our_rows(outcomes, protocol="p"):
    return [
        {"actor": "a", "protocol": protocol, "task": "reach", "initial_state": 2_000_000 + i, "repeat": 0,
         "success": bool(x), "length": 16, "decisions": 2, "decode_failures": 0}
        for i, x in enumerate(outcomes)
    ]  # fmt: skip


def our_folder(path, outcomes, protocol="p"):
    path.mkdir()
    table = pa.Table.from_pylist(our_rows(outcomes, protocol), schema=EPISODE_SCHEMA)
    parquet.write_table(table, path / "episodes.parquet")
    return str(path)


def our_json(path, outcomes):
    return write(path, {"episodes": our_rows(outcomes), "films": []})


def table(path, outcomes):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Task", "initial state", "success"])
        writer.writerows(("t", i, int(x)) for i, x in enumerate(outcomes))
    return str(path)


FORMATS = [diffusion_policy, lerobot, lerobot_tasks, vla_eval, our_folder, our_json, table]


@pytest.mark.parametrize("make", FORMATS, ids=lambda m: m.__name__)
def test_every_layout_gives_the_difference_of_its_outcomes(make, tmp_path):
    suffix = "" if make is our_folder else ".csv" if make is table else ".json"
    found = compare(
        [f"first={make(tmp_path / f'a{suffix}', A)}", f"second={make(tmp_path / f'b{suffix}', B)}"]
    )
    expected = paired_difference(A, B)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.pooled.pairs) == ("first", "second", 60)
    assert (pair.pooled.value, pair.pooled.low, pair.pooled.high, pair.pooled.p) == pytest.approx(
        (expected.value, expected.low, expected.high, expected.p)
    )
    assert found.policies[0].rate.value == pytest.approx(A.mean())
    assert found.policies[0].rate.low == pytest.approx(wilson(A.sum(), 60).low)
    assert not pair.seeds_known
    assert "seed variance is unknown" in " ".join(found.notes)
    by_order = make is lerobot_tasks
    assert by_order == ("paired by their order" in " ".join(found.notes))
    if make in (lerobot_tasks, vla_eval):
        (task, other) = pair.per_task
        assert pair.per_task[task].value == pytest.approx((A[:30] - B[:30]).mean())
        assert pair.per_task[other].p == pytest.approx(paired_difference(A[30:], B[30:]).p)


def test_a_policy_without_a_name_is_called_by_its_file_or_its_run(tmp_path):
    for run, outcomes in (("small", A), ("large", B)):
        (tmp_path / run).mkdir()
        lerobot(tmp_path / run / "eval_info.json", outcomes)
    found = compare([str(tmp_path / r / "eval_info.json") for r in ("small", "large")])
    assert [p.name for p in found.policies] == ["small", "large"]


def test_training_seeds_are_a_level_of_their_own(tmp_path):
    seeds = [(RNG.random(40) < r).astype(int) for r in (0.6, 0.7, 0.75, 0.3, 0.45, 0.4)]
    files = [
        f"{'one' if i < 3 else 'other'}={diffusion_policy(tmp_path / f'{i}.json', s)}"
        for i, s in enumerate(seeds)
    ]
    found = compare(files)
    expected = contrast([np.stack(seeds[:3]), np.stack(seeds[3:])], (1, -1), np.zeros(40, int))
    (pair,) = found.pairs
    assert (pair.pooled.value, pair.pooled.low, pair.pooled.p) == pytest.approx(
        (expected.value, expected.low, expected.p)
    )
    assert pair.seeds_known
    assert found.policies[0].seeds == 3
    assert "3 and 3 training seeds" in pair.sentence
    assert not found.notes


def test_a_table_holds_several_policies_and_their_seeds(tmp_path):
    lines = ["policy,training seed,task,initial state,success"]
    for policy, seed, outcomes in (
        ("a", 0, A),
        ("a", 1, B),
        ("b", 0, B),
        ("b", 1, B),
        ("c", 0, A),
        ("c", 1, A),
    ):
        lines += [f"{policy},{seed},t{i % 2},{i},{'true' if x else 'false'}" for i, x in enumerate(outcomes)]
    found = compare([write(tmp_path / "all.csv", "\n".join(lines))])
    assert [(p.first, p.second) for p in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(p.holm >= p.pooled.p for p in found.pairs)
    assert set(found.policies[0].per_task) == {"t0", "t1"}


def test_episodes_that_do_not_pair_up_are_counted(tmp_path):
    found = compare([lerobot(tmp_path / "a.json", A), lerobot(tmp_path / "b.json", B[:40])])
    (pair,) = found.pairs
    assert (pair.pooled.pairs, pair.only_first, pair.only_second) == (40, 20, 0)
    assert "Of a, 20 episodes and of b 0 do not pair up" in " ".join(found.notes)
    assert found.policies[0].episodes == 60


def test_tasks_of_unequal_size_count_equally(tmp_path):
    """The rate is the mean over tasks, and so is the difference."""
    lines = [[f"{task},{i},{x}" for task, of in (("t", a), ("u", b)) for i, x in enumerate(of)] for a, b in (
        ([1] * 6, [0, 0]), ([0] * 6, [0, 0]),
    )]  # fmt: skip
    files = [
        write(tmp_path / f"{i}.csv", "\n".join([ROWS.removeprefix("policy,").strip(), *of]))
        for i, of in enumerate(lines)
    ]
    found = compare(files)
    assert found.pairs[0].pooled.value == pytest.approx(0.5)
    assert found.policies[0].rate.value == pytest.approx(0.5)


def test_vla_evals_seed_is_part_of_what_is_compared(tmp_path):
    files = [vla_eval(tmp_path / f"{i}.json", A, seed=i) for i in (0, 1)]
    with pytest.raises(UserError, match="under different protocols"):
        compare(files)


def test_different_runs_that_happen_to_be_called_alike_are_not_taken_for_training_seeds(tmp_path):
    for run, outcomes in (("small", A), ("large", B)):
        (tmp_path / run / "eval").mkdir(parents=True)
        lerobot(tmp_path / run / "eval" / "eval_info.json", outcomes)
    files = [str(tmp_path / r / "eval" / "eval_info.json") for r in ("small", "large")]
    with pytest.raises(
        UserError, match="two files are of a policy called 'eval' by their folder or their name; name them"
    ):
        compare(files)


def test_of_many_pairs_the_corrected_p_decides(tmp_path):
    """Six policies with one pair at p = 0.03: not separated after Holm over fifteen."""
    base = np.array([1] * 20 + [0] * 20)
    better = base.copy()
    better[20:26] = 1  # six discordant pairs
    files = [f"{n}={table(tmp_path / f'{n}.csv', base)}" for n in "abcde"]
    found = compare([*files, f"best={table(tmp_path / 'best.csv', better)}"])
    pair = found.pairs[-1]
    assert pair.pooled.p == pytest.approx(2 * 0.5**6)
    assert pair.holm > 0.05
    assert "after Holm" in pair.sentence
    assert "They are not separated" in pair.sentence


def test_scores_between_0_and_1_take_students_t(tmp_path):
    a, b = RNG.random(30), RNG.random(30)
    found = compare([diffusion_policy(tmp_path / "a.json", a), diffusion_policy(tmp_path / "b.json", b)])
    assert "scores" in found.pairs[0].pooled.method
    assert "exact" not in found.pairs[0].sentence
    assert " scores " in found.pairs[0].sentence
    assert found.pairs[0].pooled.value == pytest.approx((a - b).mean())


def test_how_many_more_episodes_would_separate_two(tmp_path):
    """Simulated: with so many in all, the exact test finds the difference in about 80 % of studies, rather less."""
    a = np.repeat([1, 1, 0, 0], [20, 9, 5, 6])
    b = np.repeat([1, 0, 1, 0], [20, 9, 5, 6])
    found = compare([table(tmp_path / "a.csv", a), table(tmp_path / "b.csv", b)])
    (pair,) = found.pairs
    assert pair.pooled.p > 0.05
    assert pair.further_episodes == further_pairs(a, b)
    assert f"about {pair.further_episodes} more episodes would" in pair.sentence
    total = 40 + pair.further_episodes
    rng, hits = np.random.default_rng(1), []
    for _ in range(800):
        drawn = rng.choice(40, total)
        hits.append(paired_difference(a[drawn], b[drawn]).p < 0.05)
    assert 0.74 < np.mean(hits) < 0.84


def test_the_public_name(tmp_path):
    assert (
        cg.compare([table(tmp_path / "a.csv", A), table(tmp_path / "b.csv", B)]).pairs[0].pooled.pairs == 60
    )


def test_the_verb_prints_says_and_draws(tmp_path, capsys):
    files = [f"alpha={vla_eval(tmp_path / 'a.json', A)}", f"beta={vla_eval(tmp_path / 'b.json', B)}"]
    page = tmp_path / "new" / "page.html"
    assert main(["compare", *files, "--out", str(page)]) == 0
    said = capsys.readouterr().out
    value = round(100 * (A - B).mean())
    assert f"alpha succeeds {value} points more often than beta (95 % CI " in said
    assert "on 60 shared episodes" in said
    assert f"page: {page}" in said
    text = page.read_text()
    assert f"alpha succeeds {value} points more often than beta" in text
    assert text.count("<svg") == 1
    assert main(["compare", *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"][0]["pooled"]["value"] == pytest.approx((A - B).mean())


ROWS = "policy,task,initial state,success\n"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda d: [], "one policy has nothing to be compared with; name two or more files"),
        (lambda d: [table(d / "a.csv", A)], "one policy has nothing to be compared with"),
        (lambda d: ["nowhere.json"], "nowhere.json is no file; name episodes of this program, diffusion_policy's"),
        (lambda d: [str(d)], "holds no episodes.parquet; name episodes of this program"),
        (lambda d: [write(d / "a.json", "{")], "a.json is no JSON ("),
        (lambda d: [write(d / "a.json", "[1]")], "a.json is in no layout that is known"),
        (lambda d: [write(d / "a.json", {"mean": 3})], "a.json is in no layout that is known"),
        (lambda d: [write(d / "a.json", {"per_episode": [{"seed": 1}]})], "looks like lerobot's eval_info.json, but lacks or garbles 'success'"),
        (lambda d: [vla_eval(d / "a.json", A, partial=True)], "is partial, vla-eval says: merge its shards"),
        (lambda d: [write(d / "a.csv", ROWS)], "a.csv holds no episode"),
        (lambda d: [write(d / "a.csv", "task,success\n")], "has no column initial state; it has task, success"),
        (lambda d: [write(d / "a.csv", ROWS + "p,t,1,2\n")], "a.csv line 2: the outcome is '2.0'; it is true, false, or a number from 0 to 1"),
        (lambda d: [write(d / "a.csv", ROWS + "p,t,1,maybe\n")], "line 2: the outcome is 'maybe'"),
        (lambda d: [write(d / "a.csv", ROWS + "p,t,x,1\n")], "line 2: the initial state is 'x', no whole number"),
        (lambda d: [write(d / "a.csv", ROWS + "p,t,1\n")], "line 2 has another number of columns than the first line"),
        (lambda d: [write(d / "a.csv", ROWS + "p,t,1,1\np,t,1,0\n")], "the episode of t, initial state 1, repeat 0, stands twice for training seed 0 of p"),
        (lambda d: [table(d / "a.csv", A), lerobot(d / "b.json", B)], "a and b share no episode: a has t from initial state 0 on, b task from initial state 7 on"),
        (lambda d: [our_folder(d / "a", A), our_folder(d / "b", B, "q")], "under different protocols (their hashes differ)"),
        (lambda d: [f"x={our_folder(d / 'a', A)}", f"x={our_folder(d / 'b', B, 'q')}"], "the files of x are of different evaluation protocols"),
        (lambda d: [write(d / "a.parquet", "PAR1")], "a.parquet holds no episodes that can be read"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_sentence(make, sentence, tmp_path, capsys):
    assert main(["compare", *make(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_seeds_on_other_states_are_refused(tmp_path):
    lines = ROWS.replace("policy", "training seed") + "0,t,1,1\n1,t,2,1\n"
    with pytest.raises(UserError, match="the training seeds of a share no episode"):
        compare([write(tmp_path / "a.csv", lines), table(tmp_path / "b.csv", A)])
