"""The process's pool of simulator workers: kept between rollouts, since starting one takes seconds."""

from __future__ import annotations

import atexit

from ..sims import SimPool, SimSpec

_pools: dict[str, SimPool] = {}

# Workers of one rollout: several episodes in flight make the policy's batches worth their overhead.
ROLLOUT_WORKERS = 4


def pool_for(sim: SimSpec, workers: int = ROLLOUT_WORKERS) -> SimPool:
    """The pool of this simulator; one of another simulator is ended first."""
    key = f"{workers} {sim.model_dump_json()}"
    if key not in _pools:
        close_pools()
        _pools[key] = SimPool(sim, workers)
    return _pools[key]


def close_pools() -> None:
    """End the simulator workers of this process."""
    while _pools:
        _pools.popitem()[1].close()


atexit.register(close_pools)
