"""How fast a LeRobotDataset v3.0 is imported, beside decoding its videos alone with PyAV.

    OMP_NUM_THREADS=1 python benchmarks/import_speed.py [--episodes 50] [--frames 100] [--rounds 3]

Makes a set of 50 episodes, two cameras of 128 × 128 pixels (H.264), then measures in turns, by the clock: decoding
both videos, one after the other, and throwing the frames away; decoding them to RGB arrays; and a whole import:
source hash, checks, decoding, writing, the artefact's checksums, and waiting for the disk. The median over rounds.
An import must reach half of the first rate. The second import of the same set is timed, too.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from rows import show

from compression_gap.demos import DemoSet, DemoWriter
from compression_gap.demos.importing import Wanted, import_demos, open_source
from compression_gap.demos.lerobot_export import export_lerobot
from compression_gap.store.store import Store

CAMERAS = ("front", "wrist")
SIZE = 128
TARGET = 0.5


def make_set(folder: Path, episodes: int, frames: int) -> None:
    """A set with moving scenes: a smooth background that drifts, and a bright square."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*[np.linspace(0, 6, 2 * SIZE)] * 2)
    scene = np.stack(
        [127 + 60 * np.sin(x + k) * np.cos(y - k) + rng.normal(0, 4, x.shape) for k in range(3)], -1
    )
    scene = scene.clip(0, 255).astype(np.uint8)
    made = folder / "made"
    made.mkdir(parents=True)
    writer = DemoWriter(made, source={})
    for episode in range(episodes):
        writer.stream("actions", rng.normal(size=(frames, 7)).astype(np.float32))
        writer.stream("proprio", rng.normal(size=(frames, 8)).astype(np.float32))
        for camera in range(len(CAMERAS)):
            images = np.empty((frames, SIZE, SIZE, 3), np.uint8)
            for t in range(frames):
                at = (episode + t) % SIZE
                images[t] = scene[at : at + SIZE, camera * 20 : camera * 20 + SIZE]
                images[t, at // 2 : at // 2 + 20, 40:60] = 255 - 2 * camera
            writer.stream(f"images-{CAMERAS[camera]}", images)
        writer.episode("push", frames)
    writer.close()
    export_lerobot(DemoSet.load(made), folder / "set", fps=30)


def decode(files: list[Path], *, colour: bool) -> None:
    """Every frame of the videos, in order."""
    for file in files:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if colour:
                    frame.to_ndarray(format="rgb24")


def seconds(work: Callable[[], object]) -> float:
    """By the clock."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    total = options.episodes * options.frames * len(CAMERAS)
    found: dict[str, list[float]] = {"decode": [], "decode to RGB": [], "import": [], "import again": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_set(folder, options.episodes, options.frames)
        files = sorted((folder / "set").glob("videos/*/*/*.mp4"))
        size = sum(f.stat().st_size for f in files) / 2**20
        print(f"{options.episodes} episodes, {total} frames of {SIZE} × {SIZE}, {size:.1f} MB of video")

        def load() -> None:
            import_demos(open_source(folder / "set"), Wanted(), Store(folder / "store"))

        for _ in range(options.rounds):
            found["decode"].append(seconds(lambda: decode(files, colour=False)))
            found["decode to RGB"].append(seconds(lambda: decode(files, colour=True)))
            shutil.rmtree(folder / "store", ignore_errors=True)
            found["import"].append(seconds(load))
            found["import again"].append(seconds(load))
    rates = {what: [total / s for s in times] for what, times in found.items()}
    decoding = {"beside": rates["decode"], "of": "decoding alone"}
    show("LeRobot: decode to RGB", "frames/s", rates["decode to RGB"], **decoding)
    show("LeRobot: import", "frames/s", rates["import"], **decoding, wanted=f"≥ {TARGET}")
    show("LeRobot: import again", "frames/s", rates["import again"], **decoding)


if __name__ == "__main__":
    main()
