"""Small valid inputs of every format, made by the program itself where it writes them, and as others do where not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np

STUDY = """\
name: small
suite: channel
cameras: {image_size: 16}
factors:
  encoder: [retina-4]
  action: [diffusion, oat]
  seed: [0, 1]
  demos: [6]
training: {steps: 6, batch_size: 8, lr: 1e-3, warmup: 2, validations: 4}
tokenizer: {steps: 6, batch_size: 8}
policy: {sampling_steps: 2}
rollout: {execute: 16, episodes_per_task: 2}
"""
BINDING = """\
wire: openpi
cameras: {front: observation/image}
image_size: 64
resize: 32
state: {key: observation/state, parts: [{start: 0, stop: 3}, {start: 3, stop: 7, form: axis-angle}]}
prompt: prompt
actions: {key: actions, scale: [1.0], offset: [0.0], signs: [1]}
"""
OUTCOMES = {
    "eval_log.json": {"test/sim_max_reward_100": 1.0, "test/sim_max_reward_101": 0.5, "test/mean_score": 0.75},
    "eval_info.json": {"per_episode": [{"episode_ix": 0, "seed": 7, "success": True}, {"episode_ix": 1, "seed": 8, "success": False}]},
    "tasks.json": {"per_task": [{"task_group": "a", "task_id": 0, "metrics": {"successes": [True, False]}}], "overall": {}},
    "results.json": {"seed": 7, "tasks": [{"task": "a", "episodes": [{"episode_id": 0, "metrics": {"success": True}}]}]},
    "own.json": {"episodes": [{"task": "a", "initial_state": 1, "repeat": 0, "success": True, "protocol": "x"}]},
}  # fmt: skip
CSV = "policy,training seed,task,initial state,success\na,0,push,1,1\na,0,push,2,0\nb,0,push,1,0.5\nb,0,push,2,true\n"
FPS, EPISODES, FRAMES = 10.0, 6, 6


def study_file(root: Path) -> None:
    """A study file."""
    (root / "study.yaml").write_text(STUDY)


def binding_file(root: Path) -> None:
    """A binding to a served policy."""
    (root / "binding.yaml").write_text(BINDING)


def outcome_files(root: Path) -> None:
    """Result files of four programs, and a CSV."""
    for name, content in OUTCOMES.items():
        (root / name).write_text(json.dumps(content))
    (root / "table.csv").write_text(CSV)


def demo_set(root: Path) -> None:
    """A set of demonstrations: six episodes of six frames, 8 × 8 pixels."""
    from compression_gap.demos import DemoWriter

    rng = np.random.default_rng(0)
    writer = DemoWriter(root, source={"kind": "test", "fps": FPS}, cameras=["front"])
    for i in range(EPISODES):
        writer.episode(("push", "open the drawer")[i % 2], FRAMES)
        writer.stream("actions", rng.normal(size=(FRAMES, 3)).astype(np.float32))
        writer.stream("proprio", rng.normal(size=(FRAMES, 4)).astype(np.float32))
        writer.stream("images-front", np.full((FRAMES, 8, 8, 3), 40 * i, np.uint8))
    writer.close()


def _exported(root: Path, *, images: bool) -> None:
    from compression_gap.demos import DemoSet
    from compression_gap.demos.lerobot_export import export_lerobot

    made = root.with_name(root.name + "-made")
    made.mkdir()
    demo_set(made)
    root.rmdir()
    export_lerobot(DemoSet.load(made), root, fps=FPS, images=images)
    shutil.rmtree(made)


def lerobot_v3(root: Path) -> None:
    """A LeRobotDataset v3.0 with images in its table."""
    _exported(root, images=True)


def lerobot_video(root: Path) -> None:
    """A LeRobotDataset v3.0 with a video."""
    _exported(root, images=False)


def lerobot_v2(root: Path) -> None:
    """A LeRobotDataset v2.1 with images in its tables."""
    import pyarrow as pa
    from PIL import Image
    from pyarrow import parquet

    memory = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(memory, "PNG")
    (root / "meta").mkdir()
    (root / "data/chunk-000").mkdir(parents=True)
    count = np.arange(FRAMES)
    for i in range(3):
        table = {
            "observation.state": pa.array(np.ones((FRAMES, 4), np.float32).tolist()),
            "action": pa.array(np.ones((FRAMES, 3), np.float32).tolist()),
            "front": pa.array([{"bytes": memory.getvalue(), "path": "x.png"}] * FRAMES),
            "timestamp": pa.array((count / FPS).astype(np.float32)),
            "frame_index": pa.array(count),
            "episode_index": pa.array(np.full(FRAMES, i)),
            "index": pa.array(i * FRAMES + count),
            "task_index": pa.array(np.full(FRAMES, 0)),
        }
        parquet.write_table(pa.table(table), root / f"data/chunk-000/episode_{i:06d}.parquet")
    info = {
        "codebase_version": "v2.1", "fps": FPS, "total_episodes": 3, "total_frames": 3 * FRAMES, "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet", "splits": {"train": "0:1", "test": "1:2"},
        "features": {
            "observation.state": {"dtype": "float32", "shape": [4]}, "action": {"dtype": "float32", "shape": [3]},
            "front": {"dtype": "image", "shape": [8, 8, 3]},
        },
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = [{"episode_index": i, "tasks": ["push"], "length": FRAMES} for i in range(3)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = [{"task_index": i, "task": f"task {i}"} for i in range(2)]
    (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))


def hdf5(root: Path) -> None:
    """robomimic's layout."""
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(root / "small.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for i in range(4):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = FRAMES
            demo["actions"] = rng.normal(size=(FRAMES, 2))
            demo["states"] = rng.normal(size=(FRAMES, 9))
            demo.create_dataset(
                "obs/robot0_eef_pos", data=rng.normal(size=(FRAMES, 3)), chunks=(4, 3), compression="gzip"
            )
            demo["obs/robot0_eef_quat"] = rng.normal(size=(FRAMES, 4))
            demo["obs/robot0_gripper_qpos"] = rng.normal(size=(FRAMES, 2))
            demo["obs/view_image"] = rng.integers(0, 255, (FRAMES, 4, 4, 3), np.uint8)
        file["mask/train"] = np.array([b"demo_0", b"demo_1"])


def libero_hdf5(root: Path) -> None:
    """LIBERO's official layout."""
    import h5py

    with h5py.File(root / "pick_demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = (
            "libero/bddl_files/libero_10/KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it.bddl"
        )
        data.attrs["env_args"] = json.dumps(
            {"env_kwargs": {"control_freq": 20, "controller_configs": {"type": "OSC_POSE"}}}
        )
        for i in range(2):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["model_file"] = "<mujoco><body name='stove' pos='0 0 1'/></mujoco>"
            demo["actions"], demo["states"] = np.zeros((FRAMES, 7)), np.zeros((FRAMES, 20))


def _replay(root: Path, version: int) -> None:
    import zarr

    rng = np.random.default_rng(0)
    group = zarr.open_group(root, mode="w", zarr_format=version)
    arrays = {
        "data/action": rng.normal(size=(12, 2)),
        "data/agent_pos": rng.normal(size=(12, 2)),
        "data/img": rng.integers(0, 255, (12, 4, 4, 3), np.uint8),
        "meta/episode_ends": np.array([4, 8, 12]),
    }
    for name, rows in arrays.items():
        group.create_array(name, data=rows, chunks=(8, *rows.shape[1:]))


def zarr_v2(root: Path) -> None:
    """A replay buffer of Zarr's format 2."""
    _replay(root, 2)


def zarr_v3(root: Path) -> None:
    """A replay buffer of Zarr's format 3."""
    _replay(root, 3)


def zarr_zip(root: Path) -> None:
    """A replay buffer of format 2 in a .zip."""
    made = root.with_name(root.name + "-made")
    _replay(made, 2)
    shutil.make_archive(str(root / "replay"), "zip", made)
    shutil.rmtree(made)


def video(root: Path) -> None:
    """A short film."""
    from compression_gap.demos.video import VideoWriter

    writer = VideoWriter(root / "film.mp4", (16, 16), FPS, 30)
    for i in range(FRAMES):
        writer.write(np.full((16, 16, 3), 20 * i, np.uint8), first=i == 0)
    writer.close()


def images(root: Path) -> None:
    """Pictures of the formats that are read."""
    from PIL import Image

    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    for kind in ("png", "jpeg", "webp", "bmp"):
        picture.save(root / f"picture.{kind}", kind)


def states(root: Path) -> None:
    """LIBERO's files of initial states: NumPy's, and torch's with a pickle in it."""
    table = np.zeros((3, 5))
    np.savez(root / "a.npz", states=table)
    with zipfile.ZipFile(root / "b.pruned_init", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(table, protocol=2))


def store(root: Path) -> None:
    """A store with two artefacts, and an archive of it."""
    from compression_gap.store.archive import write_archive
    from compression_gap.store.store import Recipe, Store

    made, recipes = Store(root / "store"), [Recipe("rows", {"a": 1}), Recipe("weights", {"b": [2, {"c": 3}]})]
    for recipe in recipes:
        with made.create(recipe, {"seconds": 1.5}) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "data").write_bytes(b"\0rows" * 50)
    write_archive(root / "all.zip", made, recipes[:1], recipes[1:])
    shutil.rmtree(root / "store" / "tmp", ignore_errors=True)


def exported(root: Path) -> None:
    """A study of the channel, run in seconds and exported."""
    from compression_gap.api.exported import export_study
    from compression_gap.api.study import load_study, open_study
    from compression_gap.cli.main import main
    from compression_gap.rollouts.pools import close_pools

    made = root.with_name(root.name + "-made")
    made.mkdir()
    study_file(made)
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(
            [
                "study",
                "run",
                str(made / "study.yaml"),
                "--store",
                str(made / "store"),
                "--processes",
                "0",
                "--json",
            ]
        )
    close_pools()
    if code:
        raise RuntimeError(f"the small study did not run: {said.getvalue()}")
    export_study(open_study(load_study(made / "study.yaml"), made / "store"), root)
    shutil.rmtree(made)


def tokenizers(root: Path) -> None:
    """A fitted tokenizer of each kind."""
    from compression_gap.tokenizers.registry import make_tokenizer

    rng = np.random.default_rng(0)
    chunks = rng.normal(size=(64, 4, 2)).astype(np.float32).cumsum(1)
    options = {"oat": {"tokens": 2}, "quest": {"tokens": 2}}
    for name in ("bins", "fast", "rvq", "quest", "oat"):
        trained = {"steps": 2, "batch_size": 8} if name in ("rvq", "quest", "oat") else {}
        make_tokenizer(name, **options.get(name, {})).fit(chunks, **trained).save(root / name)


def policy(root: Path) -> None:
    """An untrained policy as a folder that travels."""
    make_policy().save_pretrained(root.with_name(root.name + "-made"))
    shutil.copytree(root.with_name(root.name + "-made"), root, dirs_exist_ok=True)
    shutil.rmtree(root.with_name(root.name + "-made"))
    os.unlink(root / "checksums.json")  # mutants would all end there


def make_policy():  # type: ignore[no-untyped-def]
    """A small policy with two cameras and two tasks."""
    import torch

    from compression_gap.demos import Normaliser
    from compression_gap.policies import Policy
    from compression_gap.policies.policy import PolicyModule, PolicySpec

    normaliser = Normaliser.fit(np.random.default_rng(0).normal([1, -2], [0.1, 5], (500, 2)))
    spec = PolicySpec(
        sim="plane", encoder="retina-2", head="diffusion", size="xs", horizon=4, n_obs_steps=1, tasks=("reach-v3", "push-v3"),
        cameras=("wrist", "front"), image_size=8, feature_dim=12, proprio_dim=5, action_dim=2, options={"sampling_steps": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    return Policy(spec, PolicyModule(spec, normaliser, None, None), normaliser, None)


def checkpoint(root: Path) -> None:
    """A small vision checkpoint, as transformers writes it."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.SiglipVisionConfig(**size, image_size=32, patch_size=8)
    transformers.SiglipVisionModel(config).save_pretrained(root)
    (root / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 32, "width": 32}, "resample": 2})
    )


def messages(root: Path) -> None:
    """What clients send, in the ways that they write it."""
    from compression_gap.serving.wire import pack

    image, proprio = np.zeros((8, 8, 3), np.uint8), np.zeros(5, np.float32)
    seen = {
        "images": {"wrist": image, "front": image},
        "proprio": proprio,
        "task": 0,
        "step": 0,
        "seed": 1,
        "reset": True,
    }
    flat = {
        "observation/wrist": image,
        "observation/front": image,
        "observation/state": proprio,
        "prompt": "push",
    }
    framed = {"type": "observation", "payload": {**seen, "proprio": [0.0] * 5}, "seq": 1, "timestamp": 0.0}
    hello = {
        "type": "hello",
        "payload": {"harness_version": "x", "protocol_version": 1},
        "seq": 0,
        "timestamp": 0.0,
    }
    for i, value in enumerate((seen, flat, {"reset": True}, hello, framed)):
        (root / f"message-{i}.msgpack").write_bytes(pack(value, text_keys=i > 2))
    (root / "answer.msgpack").write_bytes(pack({"actions": np.zeros((8, 2), np.float32)}))
    greeting = {
        "library": "compression-gap", "sim": "channel", "tasks": ["a"], "cameras": ["front"], "needs_images": True,
        "image_size": 64, "needs_true_state": False, "n_obs_steps": 1, "execute": 8,
    }  # fmt: skip
    (root / "greeting.msgpack").write_bytes(pack(greeting))


def instructions(root: Path) -> None:
    """Instructions and their embeddings."""
    from compression_gap.encoders.pin import TextPin
    from compression_gap.encoders.text import Instructions

    pin = TextPin(
        encoder="siglip-base", source={"hub": "a/b", "revision": "main", "commit": "0" * 40}, model_type="siglip", config={},
        feature_dim=4, tokenizer={"tokenizer.json": "0" * 64}, length=8,
    )  # fmt: skip
    Instructions(("push", "reach"), np.eye(4, dtype=np.float32)[:2], pin).save(root)
