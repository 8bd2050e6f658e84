"""The readers: what each is given, and how it is called. A reader takes its input, or raises ``UserError``."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compression_gap.errors import UserError

from . import seeds
from .draw import Draw
from .guard import SLOW, Guard, check
from .mutate import mutate

Read = Callable[
    [Path, Path, Draw], object
]  # the folder with the input, a folder to write to, further choices


@dataclass(frozen=True)
class Target:
    """A reader, and the valid input that is mutated."""

    name: str
    seed: Callable[[Path], None]
    read: Read
    links: bool = False  # whether it reads a folder of others, in which links may lead elsewhere


def fail_softly(*reads: Callable[[], object]) -> None:
    """Call several readers; the last sentence is raised in the end."""
    said = None
    for read in reads:
        try:
            read()
        except UserError as error:
            said = error
    if said is not None:
        raise said


def read_study(root: Path, work: Path, draw: Draw) -> None:
    """Load a study and plan it."""
    from compression_gap.api.study import load_study, open_study

    open_study(load_study(root / "study.yaml"), work / "store", sketch=True)


def read_binding(root: Path, work: Path, draw: Draw) -> None:
    """Load a binding, and send an observation by it."""
    from compression_gap.api.actors import binding_named
    from compression_gap.sims import Observation

    binding = binding_named(str(root / "binding.yaml"))
    image, proprio = np.zeros((1, 1, 64, 64, 3), np.uint8), np.zeros((1, 1, 7), np.float32)
    if set(binding.cameras) <= {"front"} and (binding.resize or 0) <= 4096:
        binding.message(Observation({"front": image}, proprio, np.zeros(1, np.int64), None), 0, "a", "b", 0)
    binding.chunk({binding.actions.key: np.zeros((8, 2))}, 2)


def read_outcomes(root: Path, work: Path, draw: Draw) -> None:
    """Compare what every result file holds with itself."""
    from compression_gap.api.compare import compare

    fail_softly(*(functools.partial(compare, [f"a={f}", f"b={f}"]) for f in sorted(root.iterdir())))


def read_demos(root: Path, work: Path, draw: Draw) -> None:
    """Map a set of demonstrations."""
    from compression_gap.demos import DemoSet

    found = DemoSet.load(root)
    for episode in found.episodes:
        found.actions[episode.start : episode.start + episode.length].sum()


def read_recording(root: Path, work: Path, draw: Draw) -> None:
    """Import a recorded data set."""
    from compression_gap.demos.importing import Wanted, import_demos, open_source
    from compression_gap.store.store import Store

    inner = [f for f in root.iterdir() if f.suffix == ".zip"]
    import_demos(open_source(inner[0] if inner else root), Wanted(), Store(work / "store"))


def read_libero(root: Path, work: Path, draw: Draw) -> None:
    """Read a recording of LIBERO as far as no simulator is needed."""
    from xml.etree import ElementTree

    from compression_gap.demos.libero_hdf5 import check_file, fixture_places, read_recording, task_of

    file = root / "pick_demo.hdf5"
    for name in check_file(file, task_of(file), None):
        with contextlib.suppress(
            ElementTree.ParseError, ValueError
        ):  # its caller, who has the simulator, says it
            fixture_places(read_recording(file, name).model, ("stove",))


def read_video(root: Path, work: Path, draw: Draw) -> None:
    """Decode a film."""
    from compression_gap.demos.video import decode_frames

    for _ in decode_frames(root / "film.mp4", np.arange(seeds.FRAMES) / seeds.FPS, seeds.FPS, "film"):
        pass


def read_images(root: Path, work: Path, draw: Draw) -> None:
    """Decode pictures, as recordings and as messages hold them."""
    from compression_gap.demos.source import decode_image, read_bytes
    from compression_gap.serving.wire import pack, unpack

    def both(file: Path) -> None:
        data = read_bytes(file, 2**26)
        sent = [lambda: unpack(pack({"__image__": True, "format": "png", "data": data}))]
        fail_softly(
            lambda: decode_image(data, file.name), *(sent if file.suffix in (".png", ".jpeg") else [])
        )

    fail_softly(*(functools.partial(both, f) for f in sorted(root.iterdir())))


def read_states(root: Path, work: Path, draw: Draw) -> None:
    """Read initial states."""
    from compression_gap.sims.libero_states import read_states

    fail_softly(*(functools.partial(read_states, f) for f in sorted(root.iterdir())))


def read_store(root: Path, work: Path, draw: Draw) -> None:
    """List, verify and open what a store holds."""
    from compression_gap.store.inventory import entries
    from compression_gap.store.store import Store

    store = Store(root / "store")
    for entry in list(entries(store)):
        store.damage(entry)
        fail_softly(functools.partial(store.manifest, entry), functools.partial(store.open, entry))


def read_archive(root: Path, work: Path, draw: Draw) -> None:
    """Take an archive into a store."""
    from compression_gap.store.archive import read_archive
    from compression_gap.store.store import Store

    read_archive(root / "all.zip", Store(work / "store"))


def read_exported(root: Path, work: Path, draw: Draw) -> None:
    """The report of an exported study."""
    from compression_gap.api.exported import opened_export
    from compression_gap.api.results import Results

    with opened_export(root) as opened:
        results = Results(opened, "cgap report")
        results.write_report(work / "page")
        results.to_json()
        len(results.episodes.to_pylist())


def read_tokenizers(root: Path, work: Path, draw: Draw) -> None:
    """Load each tokenizer, and decode tokens with it."""
    from compression_gap.tokenizers import load_tokenizer

    def one(folder: Path) -> None:
        made = load_tokenizer(folder)
        made.encode(np.zeros((2, made.horizon, made.action_dim), np.float32))
        decode_any(made, draw)

    fail_softly(*(functools.partial(one, f) for f in sorted(root.iterdir())))


@functools.cache
def fitted() -> list[Any]:
    """A fitted tokenizer of each kind."""
    import tempfile

    from compression_gap.tokenizers import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        seeds.tokenizers(Path(folder))
        return [load_tokenizer(f) for f in sorted(Path(folder).iterdir())]


def decode_any(tokenizer: Any, draw: Draw) -> None:
    """Decode ids of the fuzzer's choice. Chunks are finite, and inside the range."""
    from compression_gap.tokenizers import Tokens

    rows, width = draw.below(4), draw.below(2 + 2 * len(tokenizer.codebook_sizes))
    most = draw.one((max(tokenizer.codebook_sizes, default=1), 2**31, 2**62))
    ids = np.array(
        [[draw.below(most) - (draw.below(64) == 63) for _ in range(width)] for _ in range(rows)], np.int64
    )
    lengths = np.array([draw.below(width + 2) for _ in range(rows)], np.int64)
    if draw.chance(3):
        lengths[:] = len(tokenizer.codebook_sizes)
    decoded = tokenizer.decode(Tokens(ids.reshape(rows, width), lengths))
    assert decoded.chunk.shape == (rows, tokenizer.horizon, tokenizer.action_dim)
    if not np.isfinite(decoded.chunk[decoded.ok]).all():
        raise AssertionError("a decoded chunk is not finite")


def read_tokens(root: Path, work: Path, draw: Draw) -> None:
    """Decode any stream of tokens."""
    decode_any(draw.one(fitted()), draw)


def read_policy(root: Path, work: Path, draw: Draw) -> None:
    """Load a policy's folder, and act."""
    from compression_gap.policies import Policy

    made = Policy.from_pretrained(root)
    if made.spec.image_size <= 64 and made.spec.horizon <= 64:
        made.act(made.example(), np.zeros(1, np.int64))


def read_checkpoint(root: Path, work: Path, draw: Draw) -> None:
    """Pin a vision checkpoint, and load it."""
    from compression_gap.encoders.checkpoints import prepare_pretrained, read_pin, resolve
    from compression_gap.encoders.pretrained import load_network

    (work / "prepared").mkdir()
    prepare_pretrained(resolve(f"folder:{root}"), work / "prepared")
    load_network(read_pin(work / "prepared"))


@functools.cache
def served() -> Any:
    """A policy to talk to."""
    return seeds.make_policy()


HARNESS = ("message-3.msgpack", "message-4.msgpack")  # of vla-eval's protocol


def read_messages(root: Path, work: Path, draw: Draw) -> None:
    """Answer messages; read a server's answer and its greeting."""
    from compression_gap.serving.binding import BINDINGS, own_binding, own_setting
    from compression_gap.serving.harness import Conversation
    from compression_gap.serving.server import metadata
    from compression_gap.serving.session import Session
    from compression_gap.serving.wire import unpack

    def talk(files: list[Path]) -> None:
        talks = Conversation(Session(served()), metadata(served()), execute=2)
        fail_softly(*(functools.partial(talks.answer, f.read_bytes()) for f in files))

    def answer() -> None:
        found = unpack((root / "answer.msgpack").read_bytes())
        if isinstance(found, dict):
            BINDINGS["openpi-libero"].chunk(found, 2)

    def greeting() -> None:
        found = unpack((root / "greeting.msgpack").read_bytes())
        if isinstance(found, dict):
            own_setting(found)
            own_binding(found)

    files = sorted(f for f in root.glob("message-*") if f.is_file() and not f.is_symlink())
    gone = [
        n
        for n in ("answer.msgpack", "greeting.msgpack")
        if not (root / n).is_file() or (root / n).is_symlink()
    ]
    fail_softly(
        *(
            functools.partial(talk, [f for f in files if (f.name in HARNESS) == framed])
            for framed in (False, True)
        ),
        *([] if gone else [answer, greeting]),
    )


def read_instructions(root: Path, work: Path, draw: Draw) -> None:
    """Load instructions and their embeddings."""
    from compression_gap.encoders.text import Instructions

    Instructions.load(root)


TARGETS = {
    t.name: t
    for t in (
        Target("study", seeds.study_file, read_study),
        Target("binding", seeds.binding_file, read_binding),
        Target("outcomes", seeds.outcome_files, read_outcomes),
        Target("demos", seeds.demo_set, read_demos),
        Target("lerobot-v3", seeds.lerobot_v3, read_recording, links=True),
        Target("lerobot-v2", seeds.lerobot_v2, read_recording, links=True),
        Target("lerobot-video", seeds.lerobot_video, read_recording, links=True),
        Target("hdf5", seeds.hdf5, read_recording, links=True),
        Target("libero-hdf5", seeds.libero_hdf5, read_libero),
        Target("libero-states", seeds.states, read_states),
        Target("zarr-v2", seeds.zarr_v2, read_recording, links=True),
        Target("zarr-v3", seeds.zarr_v3, read_recording, links=True),
        Target("zarr-zip", seeds.zarr_zip, read_recording),
        Target("video", seeds.video, read_video),
        Target("images", seeds.images, read_images),
        Target("store", seeds.store, read_store),
        Target("archive", seeds.store, read_archive),
        Target("exported", seeds.exported, read_exported, links=True),
        Target("tokenizers", seeds.tokenizers, read_tokenizers, links=True),
        Target("tokens", seeds.binding_file, read_tokens),
        Target("policy", seeds.policy, read_policy, links=True),
        Target("checkpoint", seeds.checkpoint, read_checkpoint, links=True),
        Target("messages", seeds.messages, read_messages),
        Target("instructions", seeds.instructions, read_instructions),
    )
}


class Fuzzed:
    """A target with its valid input, ready to be run on one string of bytes after the other."""

    def __init__(self, target: Target, place: Path, guard: Guard) -> None:
        self.target, self.place, self.guard = target, place, guard
        self.valid = place / f"valid-{target.name}"
        if not self.valid.exists():
            self.valid.mkdir(parents=True)
            target.seed(self.valid)
        self.taken = self.refused = 0
        os.environ["HF_HUB_OFFLINE"] = "1"

    def run(self, data: bytes) -> str | None:
        """Mutate the valid input by these bytes, and read it; no bytes: the valid input itself."""
        root, work = self.place / "input", self.place / "work"
        for folder in (root, work):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.valid, root)
        work.mkdir()
        draw = Draw(data)
        if data:
            mutate(draw, root, self.guard.outside, links=self.target.links)
        slow = SLOW if data else 0  # at first, libraries are imported
        sentence = check(lambda: self.target.read(root, work, draw), self.guard, slow=slow)
        self.taken += sentence is None
        self.refused += sentence is not None
        return sentence
