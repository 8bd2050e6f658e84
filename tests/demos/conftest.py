"""Small data sets in the field's formats, written as their own programs lay them out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from compression_gap.demos import DemoSet
from compression_gap.demos.demoset import DemoWriter
from compression_gap.demos.lerobot_export import export_lerobot

CAMERAS = ("front", "wrist")
FPS = 10.0


@dataclass(frozen=True)
class Recordings:
    """What every format below holds, episode by episode."""

    tasks: tuple[str, ...]
    actions: list[np.ndarray]  # float32 [T, 3]
    proprio: list[np.ndarray]  # float32 [T, 4]
    images: dict[str, list[np.ndarray]]  # uint8 [T, 16, 16, 3]

    def joined(self, name: str) -> np.ndarray:
        """All episodes of ``actions``, ``proprio`` or a camera."""
        return np.concatenate(self.images[name] if name in self.images else getattr(self, name))

    def demoset(self, folder: Path) -> DemoSet:
        """The same as a set of demonstrations."""
        folder.mkdir()
        writer = DemoWriter(folder, source={"kind": "test", "fps": FPS}, cameras=list(CAMERAS))
        for i, task in enumerate(self.tasks):
            writer.episode(task, len(self.actions[i]))
            writer.stream("actions", self.actions[i])
            writer.stream("proprio", self.proprio[i])
            for camera in CAMERAS:
                writer.stream(f"images-{camera}", self.images[camera][i])
        writer.close()
        return DemoSet.load(folder)


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    """Six episodes of two tasks; frames are smooth, so that a lossy video keeps them nearly."""
    rng = np.random.default_rng(5)
    lengths = [7, 12, 9, 8, 11, 10]
    shade = [np.linspace(20 * i + 20, 20 * i + 60, n) for i, n in enumerate(lengths)]
    ramp = np.linspace(0, 60, 16)[None, :, None, None] * np.ones((1, 16, 16, 3))
    frames = {
        c: [(s[:, None, None, None] + (ramp if k else ramp.swapaxes(1, 2))).astype(np.uint8) for s in shade]
        for k, c in enumerate(CAMERAS)
    }
    return Recordings(
        ("open the drawer", "push the cube") * 3,
        [rng.normal(size=(n, 3)).astype(np.float32) for n in lengths],
        [rng.normal(size=(n, 4)).astype(np.float32) for n in lengths],
        frames,
    )


@pytest.fixture
def v3(recordings, tmp_path):
    """A LeRobotDataset v3.0 with PNG images: nothing is lost."""
    export_lerobot(recordings.demoset(tmp_path / "made"), tmp_path / "v3", fps=FPS, images=True)
    return tmp_path / "v3"


@pytest.fixture
def v3_video(recordings, tmp_path):
    """A LeRobotDataset v3.0 with videos."""
    export_lerobot(recordings.demoset(tmp_path / "made"), tmp_path / "v3", fps=FPS)
    return tmp_path / "v3"


@pytest.fixture
def v21(recordings, tmp_path):
    """A LeRobotDataset v2.1 with a table and a video for each episode."""
    import av
    import pyarrow as pa
    import pyarrow.parquet as parquet

    root = tmp_path / "v21"
    tasks = list(dict.fromkeys(recordings.tasks))
    (root / "meta").mkdir(parents=True)
    start = 0
    episodes = []
    for i, task in enumerate(recordings.tasks):
        n = len(recordings.actions[i])
        table = pa.table(
            {
                "observation.state": pa.array(list(recordings.proprio[i])),
                "action": pa.array(list(recordings.actions[i])),
                "timestamp": pa.array((np.arange(n) / FPS).astype(np.float32)),
                "frame_index": pa.array(np.arange(n)),
                "episode_index": pa.array(np.full(n, i)),
                "index": pa.array(start + np.arange(n)),
                "task_index": pa.array(np.full(n, tasks.index(task))),
            }
        )
        file = root / f"data/chunk-000/episode_{i:06d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, file)
        for camera in CAMERAS:
            film = root / f"videos/chunk-000/observation.images.{camera}/episode_{i:06d}.mp4"
            film.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(film), "w") as container:
                stream = container.add_stream("libx264", rate=int(FPS), options={"crf": "10", "bf": "0"})
                stream.width = stream.height = 16
                stream.pix_fmt = "yuv420p"
                for frame in recordings.images[camera][i]:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                container.mux(stream.encode())
        episodes.append({"episode_index": i, "tasks": [task], "length": n})
        start += n

    def vector(n):
        return {"dtype": "float32", "shape": [n], "names": None}

    camera = {"dtype": "video", "shape": [16, 16, 3], "names": ["height", "width", "channel"]}
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "total_episodes": len(episodes),
        "total_frames": start,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": vector(4),
            "action": vector(3),
            **{f"observation.images.{c}": camera for c in CAMERAS},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **{k: scalar for k in ("frame_index", "episode_index", "index", "task_index")},
        },
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/episodes.jsonl").write_text("\n".join(json.dumps(e) for e in episodes))
    lines = [{"task_index": i, "task": t} for i, t in enumerate(tasks)]
    (root / "meta/tasks.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return root


@pytest.fixture
def hdf5(recordings, tmp_path):
    """A file for each task, as LIBERO writes them: observation t was taken after action t."""
    import h5py

    root = tmp_path / "hdf5"
    root.mkdir()
    for task in dict.fromkeys(recordings.tasks):
        own = [i for i, t in enumerate(recordings.tasks) if t == task]
        with h5py.File(root / f"{task.replace(' ', '_')}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": task})
            data.attrs["env_args"] = json.dumps({"env_name": "Table", "env_kwargs": {"control_freq": 20}})
            for number, i in enumerate(own):
                demo = data.create_group(f"demo_{number}")
                actions, proprio = recordings.actions[i], recordings.proprio[i]
                demo["actions"] = np.concatenate([-actions[:1], actions])  # the first has no observation
                demo["states"] = np.tile(np.arange(len(actions) + 1.0)[:, None], 9)
                demo["obs/ee_states"] = np.concatenate([proprio, -proprio[:1]])[:, :2]
                demo["obs/gripper_states"] = np.concatenate([proprio, -proprio[:1]])[:, 2:]
                for camera in CAMERAS:
                    frames = recordings.images[camera][i]
                    demo[f"obs/{camera}_rgb"] = np.concatenate([frames, frames[:1]])
    return root


@pytest.fixture
def replay(recordings, tmp_path):
    """A Zarr replay buffer, format 2, as Diffusion Policy writes it."""
    return write_replay(recordings, tmp_path / "replay.zarr", 2)


@pytest.fixture
def replay_v3(recordings, tmp_path):
    """The same in format 3, with consolidated metadata."""
    return write_replay(recordings, tmp_path / "replay3.zarr", 3)


def write_replay(recordings, root, version):
    import warnings

    import zarr

    group = zarr.open_group(root, mode="w", zarr_format=version)
    numbers = {t: i for i, t in enumerate(dict.fromkeys(recordings.tasks))}
    arrays = {
        "data/action": recordings.joined("actions"),
        "data/agent_pos": recordings.joined("proprio"),
        **{f"data/{c}_rgb": recordings.joined(c) for c in CAMERAS},
        "data/task_uid": np.concatenate(
            [np.full(len(a), numbers[t]) for t, a in zip(recordings.tasks, recordings.actions, strict=True)]
        ),
        "meta/episode_ends": np.cumsum([len(a) for a in recordings.actions]),
    }
    for name, rows in arrays.items():
        group.create_array(name, data=rows, chunks=(5, *rows.shape[1:]))
    if version == 3:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # consolidated metadata are no part of the format's specification yet
            zarr.consolidate_metadata(group.store)
    return root
