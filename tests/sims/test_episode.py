"""One episode: which frames are taken, and an expert's chunk."""

import numpy as np

from compression_gap.sims import SimSpec, make_sim
from compression_gap.sims.base import arrays_equal
from compression_gap.sims.episode import Drive, EpisodeRunner, Outcome, expert_chunk

CHANNEL = SimSpec(sim="channel", tasks=("reach",), image_size=16)
LOOK = Drive("observation", execute=4, step_limit=16, n_obs_steps=3, images=True)


def steer(asked):
    """A chunk from what is seen: towards the goal, at a speed that depends on the goal."""
    toward = asked.state[0, -1] - asked.proprio[0, -1, :2]
    return np.tile(np.clip(toward * 2, -1, 1), (4, 1)).astype(np.float32)


def test_frames_are_taken_at_decisions_and_just_before_only():
    class Counting(type(make_sim(CHANNEL))):
        looked = ()

        def observe(self, *, images=True):
            self.looked = (*self.looked, self.time)
            return super().observe(images=images)

    sim, reference = Counting(CHANNEL), make_sim(CHANNEL)
    runner = EpisodeRunner(sim, LOOK)
    asked = runner.start("reach", 7)
    reference.reset("reach", 7)
    seen = [reference.observe()]
    step = 0
    while not isinstance(asked, Outcome):
        window = [seen[max(0, step - back)] for back in (2, 1, 0)]  # before the start, the first repeats
        assert all(np.array_equal(asked.proprio[0, t], o.proprio[0, 0]) for t, o in enumerate(window))
        chunk = steer(asked)
        for action in chunk:
            reference.step(action)
            seen.append(reference.observe())
        step += 4
        asked = runner.execute(chunk)
    assert sim.looked == (0, 2, 3, 4, 6, 7, 8, 10, 11, 12)
    assert asked.length == 16
    assert asked.decisions == 4


def test_an_expert_chunk_leaves_the_state_as_it_was():
    sim = make_sim(CHANNEL)
    sim.reset("reach", 2)
    before = sim.observe()
    chunk = expert_chunk(sim, 16)
    assert arrays_equal(before, sim.observe())
    for action in chunk:
        sim.step(action)
    assert sim.success
