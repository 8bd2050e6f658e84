"""A client of ``cgap serve``: one episode in the policy's own simulator, as a robot would ask.

Run it beside a server: python examples/client.py ws://127.0.0.1:8000
"""

import sys

from websockets.sync.client import connect

from compression_gap.serving.wire import pack, unpack
from compression_gap.sims import SimSpec, make_sim


def episode(url: str, *, initial_state: int = 2_000_000, execute: int = 8) -> list[dict]:
    """The server's answers at the decisions of one episode, of which ``execute`` actions each are executed."""
    with connect(url, compression=None, max_size=None) as server:
        policy = unpack(server.recv())
        task, size, cameras = policy["tasks"][0], policy["image_size"], tuple(policy["cameras"])
        sim = make_sim(SimSpec(sim=policy["sim"], tasks=(task,), cameras=cameras, image_size=size))
        sim.reset(task, initial_state)
        answers: list[dict] = []
        for step in range(sim.info.step_limit):
            seen, decide = sim.observe(images=policy["needs_images"]), step % execute == 0
            message = {"images": {c: frames[0, 0] for c, frames in seen.images.items()}, "task": task}
            message |= {"proprio": seen.proprio[0, 0], "step": step, "act": decide}
            message |= {"true_state": seen.state[0, 0]} if policy["needs_true_state"] else {}
            server.send(pack(message))
            if isinstance(answer := server.recv(), str):
                raise SystemExit(answer)  # what was wrong with the observation
            if decide:
                answers.append(unpack(answer))
                print(f"step {step}: actions {answers[-1]['actions'].shape}, seed {answers[-1]['seed']}")
            sim.step(answers[-1]["actions"][step % execute])
            if sim.success:
                break
        print("success" if sim.success else "no success")
        sim.close()
        return answers


if __name__ == "__main__":
    episode(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8000")
