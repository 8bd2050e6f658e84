import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression_gap.errors import UserError
from compression_gap.policies.base import Emission
from compression_gap.rollouts.run import decision_seed
from compression_gap.serving import session as sessions
from compression_gap.serving.session import Session
from compression_gap.serving.wire import pack


@pytest.fixture
def session(policy):
    return Session(policy)


def test_the_answer_is_the_policys_own_act_bit_by_bit(session, policy, frame, acted):
    first = session.answer(pack(frame(0, seed=11)))
    # nothing was seen before the start, so the first step stands for it
    np.testing.assert_array_equal(first["actions"], acted(policy, [frame(0), frame(0)], 11))
    assert first["actions"].dtype == np.float32
    assert first["actions"].shape == (4, 2)
    assert (first["seed"], first["ok"], first["episode"], first["decision"]) == (11, True, 0, 0)
    assert first["server_timing"]["infer_ms"] > 0
    second = session.answer(pack(frame(1, seed=12)))
    np.testing.assert_array_equal(second["actions"], acted(policy, [frame(0), frame(1)], 12))
    third = session.answer(pack(frame(2, seed=12, task="pick-place-v3")))
    np.testing.assert_array_equal(third["actions"], acted(policy, [frame(1), frame(2)], 12, task=1))


def test_steps_between_decisions_are_seen_and_not_acted_on(session, policy, frame, acted):
    session.answer(pack(frame(0, seed=1)))
    between = session.answer(pack(frame(1, act=False)))
    assert between == {"episode": 0, "decision": 1}
    answer = session.answer(pack(frame(2, seed=2)))
    np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(1), frame(2)], 2))
    assert answer["decision"] == 1


def window(frames, **more):
    return {
        "images": {c: np.stack([f["images"][c] for f in frames]) for c in ("front", "wrist")},
        "proprio": np.stack([f["proprio"] for f in frames]),
        "task": "reach-v3",
        **more,
    }


def test_a_window_stands_for_what_was_seen(session, policy, frame, acted):
    session.answer(pack(frame(9)))
    for frames in ([frame(7), frame(8)], [frame(1), frame(7), frame(8)]):
        answer = session.answer(pack(window(frames, seed=3)))
        np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(7), frame(8)], 3))
    after = session.answer(pack(frame(4, seed=3)))
    np.testing.assert_array_equal(after["actions"], acted(policy, [frame(8), frame(4)], 3))


def test_of_a_long_window_only_what_the_policy_sees_is_kept(session, policy, frame, acted, monkeypatch):
    built = []
    monkeypatch.setattr(sessions, "_at", lambda new, t, at=sessions._at: built.append(t) or at(new, t))
    frames = [frame(i % 9) for i in range(200)]
    answer = session.answer(pack(window(frames, seed=3)))
    np.testing.assert_array_equal(answer["actions"], acted(policy, frames[-2:], 3))
    assert built == [198, 199]


def test_a_policy_of_three_steps_repeats_the_first(made, frame, acted):
    policy = made(n_obs_steps=3)
    session = Session(policy)
    session.answer(pack(frame(0)))
    answer = session.answer(pack(frame(1, seed=5)))
    np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(0), frame(0), frame(1)], 5))


def test_seeds_follow_from_task_episode_and_decision(session, policy, frame, acted):
    seeds = []
    for message in (frame(0), frame(1), frame(2, reset=True), frame(3, task=1)):
        answer = session.answer(pack(message))
        seeds.append(answer["seed"])
    reach = [
        decision_seed("reach-v3", episode, 0, decision) for episode, decision in ((0, 0), (0, 1), (1, 0))
    ]
    assert seeds == [*reach, decision_seed("pick-place-v3", 1, 0, 1)]
    again = Session(policy).answer(pack(frame(0)))
    assert again["seed"] == seeds[0]
    np.testing.assert_array_equal(again["actions"], acted(policy, [frame(0), frame(0)], seeds[0]))


def test_a_reset_forgets_what_was_seen(session, policy, frame, acted):
    assert session.answer(pack({"reset": True})) == {"reset": True, "episode": 0}  # nothing to forget yet
    session.answer(pack(frame(0)))
    assert session.answer(pack({"reset": True})) == {"reset": True, "episode": 1}
    assert session.answer(pack({"reset": True})) == {"reset": True, "episode": 1}
    answer = session.answer(pack(frame(1, seed=4)))
    np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(1), frame(1)], 4))
    assert (answer["episode"], answer["decision"]) == (1, 0)
    answer = session.answer(pack(frame(2, seed=4, reset=True)))
    np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(2), frame(2)], 4))
    assert (answer["episode"], answer["decision"]) == (2, 0)


@pytest.mark.parametrize(
    "bad", [{"proprio": np.zeros(4)}, {"reset": True, "task": 9}, {"step": 7}, {"seed": -1}, {"sed": 1}]
)
def test_a_message_that_is_refused_changes_nothing(session, policy, frame, acted, bad):
    session.answer(pack(frame(0)))
    with pytest.raises(UserError):
        session.answer(pack({**frame(5), **bad}))
    answer = session.answer(pack(frame(1, step=1)))
    assert (answer["episode"], answer["decision"]) == (0, 1)
    np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(0), frame(1)], answer["seed"]))


def test_gaps_between_numbered_steps_are_refused(session, frame):
    with pytest.raises(UserError, match=r"step 3 does not follow \(an episode begins at step 0"):
        session.answer(pack(frame(0, step=3)))
    session.answer(pack(frame(0, step=0)))
    for step in (0, 2, 8):
        with pytest.raises(UserError, match=r"1 step seen so far.*sees 2 consecutive steps: .* 'act' false"):
            session.answer(pack(frame(0, step=step)))
    session.answer(pack(frame(1, step=1)))
    # windows may leap, and overlap, but not go back
    session.answer(pack(window([frame(7), frame(8)], step=8)))
    session.answer(pack(window([frame(8), frame(9)], step=9)))
    with pytest.raises(UserError, match="step 4 does not follow"):
        session.answer(pack(window([frame(3), frame(4)], step=4)))
    session.answer(pack(frame(10, step=10)))
    session.answer(pack(frame(0, step=0, reset=True)))
    # without a number, a window says nothing of the steps; the next number is taken as it comes
    session.answer(pack(window([frame(7), frame(8)])))
    session.answer(pack(frame(1, step=30)))
    with pytest.raises(UserError, match="step 30 does not follow"):
        session.answer(pack(frame(1, step=30)))


def test_a_policy_of_one_step_may_leap(made, frame):
    session = Session(made(n_obs_steps=1))
    for step in (0, 8, 16):
        assert session.answer(pack(frame(step, step=step)))["decision"] == step // 8
    with pytest.raises(UserError, match="step 3 does not follow"):
        session.answer(pack(frame(0, step=3)))


def notices(policy, messages):
    said = []
    session = Session(policy, notice=said.append)
    for message in messages:
        session.answer(pack(message))
    return said


def test_whoever_may_skip_steps_is_told_once(policy, made, frame):
    (said,) = notices(policy, [frame(0), frame(1), frame(2), frame(3)])
    assert "asks for a chunk with every step" in said
    session = Session(policy)
    warned = [session.answer(pack(frame(n))).get("warning") for n in range(4)]
    assert warned == [None, said, said, said]  # the client itself, at each decision
    assert "warning" not in session.answer(pack(frame(5, reset=True)))
    assert "the policy sees 2 consecutive steps" in said
    careful = [
        [frame(0, step=0), frame(1, step=1), frame(2, step=2)],
        [frame(0), frame(1, act=False), frame(2), frame(3, act=False), frame(4)],
        [window([frame(0), frame(1)]), window([frame(4), frame(5)])],
        [frame(0), frame(0, reset=True), frame(0, reset=True)],
    ]
    assert [notices(policy, messages) for messages in careful] == [[]] * 4
    session = Session(policy)
    assert not any("warning" in session.answer(pack(m)) for m in careful[1])
    assert notices(made(n_obs_steps=1), [frame(0), frame(1), frame(2)]) == []


def test_with_a_repeated_history_the_newest_step_stands_for_all(policy, frame, acted):
    session = Session(policy, history="repeat")
    for n in (0, 8, 16):
        answer = session.answer(pack(frame(n, step=n)))  # gaps are what it is for
        np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(n), frame(n)], answer["seed"]))
    answer = session.answer(
        pack(window([frame(17), frame(18)]))
    )  # all that the policy sees needs no repeating
    np.testing.assert_array_equal(answer["actions"], acted(policy, [frame(17), frame(18)], answer["seed"]))
    with pytest.raises(UserError, match="unknown history 'latest'; known: consecutive, repeat"):
        Session(policy, history="latest")


def test_nothing_of_a_message_is_kept_but_the_steps_that_the_policy_sees(session, frame):
    """A view would keep all bytes of a long window, in each of the connections."""
    session.answer(pack(window([frame(i % 9) for i in range(50)])))
    for seen in session.seen:
        for kept in (seen.proprio, *seen.images.values()):
            whole = kept if kept.base is None else kept.base
            assert isinstance(whole, np.ndarray)
            assert whole.nbytes == kept.nbytes


def test_text_is_refused(session):
    with pytest.raises(UserError, match="this is a text message; observations are binary messages"):
        session.answer("hello")


def test_a_policy_that_diverged_says_so_and_the_step_is_not_counted(session, policy, frame, monkeypatch):
    session.answer(pack(frame(0)))
    with monkeypatch.context() as patch:
        chunk = np.full((1, 4, 2), np.nan, np.float32)
        patch.setattr(policy, "act", lambda asked, seeds: Emission(chunk, np.ones(1, bool)))
        with pytest.raises(UserError, match="not a finite number: its training has diverged"):
            session.answer(pack(frame(1)))
    assert session.answer(pack(frame(1, step=1)))["decision"] == 1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["act", "see", "reset", "fresh", "window", "bad"]), max_size=8))
def test_any_order_of_messages_has_the_history_of_its_steps(policy, frame, acted, moves):
    """Against the definition: the last two steps of the episode, the first one repeated before it."""
    session, seen, decisions = Session(policy), [], 0
    for n, move in enumerate(moves):
        if move == "bad":
            with pytest.raises(UserError):
                session.answer(pack(frame(n, colour="red")))
            continue
        if move in ("reset", "fresh"):
            seen, decisions = [], 0
        if move == "reset":
            session.answer(pack({"reset": True}))
            continue
        if move == "window":
            new = [frame(n + 50), frame(n)]
            answer = session.answer(pack(window(new)))
        else:
            new = [frame(n)]
            answer = session.answer(pack(frame(n, act=move != "see", reset=move == "fresh")))
        seen = [*(seen or new[:1]), *new]
        assert answer["decision"] == decisions
        if move != "see":
            decisions += 1
            np.testing.assert_array_equal(answer["actions"], acted(policy, seen[-2:], answer["seed"]))
