"""One episode as a video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..sims import EvaluationProtocol, Sim, make_sim, simulating
from ..sims.episode import EpisodeRunner, Outcome
from .actors import Actor
from .run import Decider, EpisodeRow


def record_episode(
    actor: Actor,
    protocol: EvaluationProtocol,
    task: str,
    initial_state: int,
    path: Path,
    *,
    actor_key: str,
    repeat: int = 0,
    size: int = 168,
    every: int = 2,
    fps: int = 30,
) -> EpisodeRow:
    """Run one episode in this process, film it, and return its evidence row.

    The film (MP4, H.264 where the encoder is there) shows every ``every``-th step in ``size`` pixels, an even
    number. It is rendered from a second simulator, so that the actor sees what it sees in an evaluation.
    """
    decider = Decider(actor, protocol, actor_key, [(task, initial_state, repeat)])
    sim = make_sim(protocol.sim)
    camera = make_sim(protocol.sim.model_copy(update={"image_size": size}))
    frames: list[np.ndarray] = []

    def film(running: Sim) -> None:
        if runner.steps % every == 0 or running.success:
            camera.set_state(running.get_state())
            frames.append(next(iter(camera.observe().images.values()))[0, 0])

    try:
        runner = EpisodeRunner(sim, decider.drive, after_step=film)
        with simulating(protocol.sim, task, initial_state):
            camera.reset(task, initial_state)
            asked = runner.start(task, initial_state)
        while not isinstance(asked, Outcome):
            (chunk,) = decider.decide([0], [asked])
            with simulating(protocol.sim, task, initial_state):
                if chunk is None:
                    frames.clear()
                    asked = runner.start(task, initial_state)
                else:
                    asked = runner.execute(chunk)
    finally:
        sim.close()
        camera.close()
    _write_video(frames, path, fps)
    return decider.end(0, asked)


def _write_video(frames: Sequence[np.ndarray], path: Path, fps: int) -> None:
    """Write frames, uint8 [h, w, 3], as MP4. Browsers play H.264 with 4:2:0 colours."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError('videos need PyAV: pip install "compression-gap[metaworld]"') from error
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
