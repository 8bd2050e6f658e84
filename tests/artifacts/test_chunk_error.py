"""Chunk errors: the sums, the points they are taken at, and every predictor against a computation by hand."""

import json

import numpy as np
import pytest

from compression_gap.demos import DemoSet, Normaliser, make_chunks, make_windows
from compression_gap.information.chunk_error import error_sums, held_out
from compression_gap.policies import Policy
from compression_gap.rollouts.run import decision_seed
from compression_gap.sims import Observation
from compression_gap.store.store import Store
from compression_gap.study.file import load_study
from compression_gap.study.offline import make_offline_plan


@pytest.fixture(scope="module")
def plan(recorded):
    return make_offline_plan(load_study(recorded.file, None), Store(recorded.store))


@pytest.fixture(scope="module")
def demos(recorded):
    return DemoSet.load(recorded.demos)


UNITS = Normaliser(*(np.array([v] * 3, np.float32) for v in (0.0, 1.0, -3, 3)))


def every(sets, n_obs_steps=2):
    """All held-out decision points of the sets."""
    return make_chunks(sets, UNITS, "test", horizon=16, n_obs_steps=n_obs_steps, tasks=sets[0].tasks)


def test_all_points_are_taken_where_they_are_few(demos):
    points = held_out(every([demos]))
    windows = make_windows([demos], demos.tasks, 16, 2, "test")
    assert len(points.rows) == len(windows) == sum(e.length for e in demos.split("test"))
    expected = np.concatenate([np.arange(e.length) for e in demos.split("test")])
    np.testing.assert_array_equal(points.rows.step, expected)
    np.testing.assert_array_equal(points.windows.actions, windows.actions)


def test_many_points_are_thinned_evenly_and_no_episode_is_lost(demos):
    windows, whole = make_windows([demos, demos], demos.tasks, 16, 2, "test"), every([demos, demos])
    for most in (1, 3, 20):
        points = held_out(whole, most)
        assert set(points.windows.episode) == set(windows.episode)
        assert len(points.rows) <= most + len(set(windows.episode))
        at = whole.rows.find(points.rows, "all")
        np.testing.assert_array_equal(points.windows.frames, windows.frames[at])
    # steps count within the episode, in the second set, too
    starts = np.array(
        [e.start for e in demos.episodes] + [len(demos.actions) + e.start for e in demos.episodes]
    )
    np.testing.assert_array_equal(
        points.rows.step, points.windows.frames[:, -1] - starts[points.windows.episode]
    )
    spread = np.diff(at)
    assert spread.max() <= 2 * len(windows) / 20


def test_sums_are_over_valid_steps_alone(demos):
    points = held_out(every([demos], n_obs_steps=1), most=30)
    rng = np.random.default_rng(0)
    n = len(points.rows)
    chunks, predicted = rng.normal(size=(2, n, 16, 3))
    found = error_sums(predicted, chunks, points, execute=5)
    for i, episode in enumerate(found["episode"]):
        own = np.flatnonzero(points.windows.episode == episode)
        for kind, steps in enumerate((16, 5)):
            expected = [
                (predicted[p, h] - chunks[p, h]) ** 2
                for p in own
                for h in range(steps)
                if points.windows.valid[p, h]
            ]
            np.testing.assert_allclose(found["sums"][kind, i], np.sum(expected, axis=0))
            assert found["counts"][kind, i] == len(expected)
    assert [demos.tasks[t] for t in found["task"]] == [demos.episodes[e].task for e in found["episode"]]


def by_hand(plan, store, demos, predict, steps=16):
    """Errors per held-out episode of ``predict(episode number, t) -> [steps, d]`` standardised."""
    normaliser = Normaliser.load(store.open(next(s for s in plan.steps.values() if s.kind == "normaliser")))
    out = []
    for number, e in enumerate(demos.episodes):
        if e.split != "test":
            continue
        actions = normaliser.normalise(np.asarray(demos.actions[e.start : e.start + e.length]))
        errors = []
        for t in range(e.length):
            own = actions[t : t + steps]
            errors.append((predict(number, t, actions)[: len(own)] - own) ** 2)
        out.append(np.concatenate(errors).mean())
    return np.array(out)


def test_the_mean_and_the_last_action(recorded, plan, demos):
    store = Store(recorded.store)
    mean, last = (p.runs[None].load(store) for p in plan.references[:2])
    zeros = np.zeros((16, 3))
    np.testing.assert_allclose(mean.whole, by_hand(plan, store, demos, lambda *_: zeros), rtol=1e-5)
    np.testing.assert_allclose(mean.executed, by_hand(plan, store, demos, lambda *_: zeros, 8), rtol=1e-5)

    def before(_, t, actions):
        return np.tile(actions[t - 1], (16, 1)) if t else zeros

    np.testing.assert_allclose(last.whole, by_hand(plan, store, demos, before), rtol=1e-5)


def test_a_code_alone_errs_by_its_distortion(recorded, plan):
    store = Store(recorded.store)
    (coded,) = (p for p in plan.references if p.actor == "coded")
    assert len(coded.runs) == 2  # each training seed's own tokenizer
    for run in coded.runs.values():
        folder, step = store.open(run), plan.steps[run.key]
        sums, counts = (np.load(folder / f"{n}.npy") for n in ("sums", "counts"))
        tokens = plan.steps[step.inputs["tokens"].key]
        distortion = store.meta(tokens.inputs["tokenizer"])["distortion"]
        assert sums[0].sum() / counts[0].sum() / 3 == pytest.approx(distortion, rel=1e-5)


@pytest.mark.parametrize("action", ["regression", "oat"])
@pytest.mark.parametrize("encoder", ["retina-4", "oracle"])
def test_a_policy_s_error_is_that_of_what_it_does_on_raw_observations(recorded, plan, demos, encoder, action):
    store = Store(recorded.store)
    cell = next(c for c in plan.cells if (c.encoder, c.action) == (encoder, action))
    policy = Policy.load(store.open(cell.policy))

    def act(number, t, _):
        e = demos.episodes[number]
        rows = e.start + np.maximum([t - 1, t], 0)
        seen = Observation(
            images={c: a[rows][None] for c, a in demos.images.items()},
            proprio=demos.proprio[rows][None],
            task=np.array([demos.tasks.index(e.task)]),
            state=demos.state[rows][None],
        )
        seed = decision_seed(e.task, number, 0, t)
        return policy.normaliser.normalise(policy.act(seen, np.array([seed])).chunk[0])

    found = cell.evidence.load(store)
    np.testing.assert_allclose(found.whole, by_hand(plan, store, demos, act), rtol=2e-3)
    np.testing.assert_allclose(found.raw / policy.normaliser.std**2, _standardised(store, cell), rtol=1e-6)
    np.testing.assert_allclose((found.raw / policy.normaliser.std**2).mean(1), found.whole, rtol=1e-6)


def _standardised(store, cell):
    folder = store.open(cell.evidence)
    sums, counts = (np.load(folder / f"{n}.npy") for n in ("sums", "counts"))
    return sums[0] / counts[0][:, None]


def test_an_encoder_that_is_trained_sees_the_recorded_images(record, tmp_path):
    """No cached features there: the frames go through the policy's own network."""
    from compression_gap.api.progress import RunWatcher
    from compression_gap.store.engine import InProcess, run_steps
    from compression_gap.study.file import parse_study

    folder = record(tmp_path / "store", tasks=["one"], episodes=3, sizes={"front": (40, 40)}, state_dim=None)
    study = parse_study(
        f"name: own\ndata: ['{folder}']\nlimits: false\n"
        "factors: {encoder: [resnet18], action: [regression], seed: [0]}\n"
        "training: {steps: 4, batch_size: 2, warmup: 1, validations: 4}\npolicy: {stride: 6}\n",
        "f",
    )
    store = Store(tmp_path / "store")
    plan = make_offline_plan(study, store)
    assert "features" not in {s.kind for s in plan.steps.values()}
    steps = list(plan.steps.values())
    with RunWatcher(steps, len(steps), 1, tmp_path / "log") as watcher:
        outcome = run_steps(steps, store, engine=InProcess(), watcher=watcher)
    assert not outcome.failures, json.dumps(outcome.failures)
    demos, (cell,) = DemoSet.load(folder), plan.cells
    policy = Policy.load(store.open(cell.policy))
    windows = make_windows([demos], demos.tasks, 16, 2, "test", 6)
    seen = Observation(
        images={c: a[windows.frames] for c, a in demos.images.items()},
        proprio=demos.proprio[windows.frames],
        task=windows.task,
        state=None,
    )
    chunks = policy.emit(seen, np.zeros(len(windows), np.int64)).chunk  # a regression draws nothing
    error = (chunks - policy.normaliser.normalise(np.asarray(demos.actions))[windows.actions]) ** 2
    assert cell.evidence.load(store).whole == pytest.approx([error[windows.valid].mean()], rel=1e-3)
