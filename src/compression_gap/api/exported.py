"""A study as a folder that travels: its file, a row an episode, and what its report is made from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet
import yaml

from ..artifacts.policy import TrainedPolicy
from ..demos.source import inside
from ..errors import UserError
from ..results.rows import episode_rows
from ..store.archive import Taken, Watched, read_archive, write_archive
from ..store.artifact import Artifact
from ..store.outcome import failure_file
from ..store.store import MANIFEST, Store
from ..study.file import load_study
from ..study.plan import Plan
from .options import folder_of
from .results import summarise_study
from .study import OpenStudy, open_study

# What numbers and names in another's archive lead to that are not of their kind: its checksums are its author's own.
OTHERS_FAULT = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)
STUDY, ROWS, ARCHIVE = "study.yaml", "episodes.parquet", "artefacts.zip"


@dataclass(frozen=True)
class Exported:
    """What ``export_study`` wrote. ``episodes``: rows, None for a study of recordings; ``artefacts``: with files."""

    folder: Path
    episodes: int | None
    artefacts: int
    records: int
    bytes: int


@dataclass(frozen=True)
class ExportSet:
    """What a study's report is made from: artefacts with their files, records of others, records of failures."""

    whole: Sequence[Artifact]
    records: Sequence[Artifact]
    failures: Sequence[Artifact]


def export_set(opened: OpenStudy) -> ExportSet:
    """Found by making the report's summary, and noting what it reads. Raises ``UserError`` if nothing was measured."""
    plan, store = opened.plan, Watched(opened.store)
    summarise_study(OpenStudy(opened.study, plan, store))
    known = {a.key: a for a in (*plan.steps.values(), *plan.taken)}
    whole = {key for _, key in store.opened}
    whole |= {a.key for a in plan.wanted if store.has(a) and not isinstance(a, TrainedPolicy)}
    records = {key for _, key in store.read if key not in whole and store.recorded(known[key])}
    return ExportSet(
        [a for key, a in known.items() if key in whole],
        [a for key, a in known.items() if key in records],
        [a for a in plan.steps.values() if failure_file(store, a).exists()],
    )


def export_study(opened: OpenStudy, out: str | Path) -> Exported:
    """Write all that a study's report needs to the folder ``out``; what it measured so far, if it is not finished.

    ``study.yaml``: the study with every option at its value; ``episodes.parquet``: a row an episode
    (``results.rows``), for other programs; ``artefacts.zip``: what results are read from, with files, and the
    manifests of policies and of other artefacts that are too large to travel. Equal stores give equal bytes.
    Raises ``UserError`` if nothing was measured.
    """
    plan, needed = opened.plan, export_set(opened)
    folder, rows = folder_of(Path(out)), None
    text = yaml.safe_dump(opened.study.model_dump(mode="json", exclude_none=True), sort_keys=False)
    (folder / STUDY).write_text(text, encoding="utf-8")
    if isinstance(plan, Plan):
        table = episode_rows(plan, opened.store)
        rows = len(table)
        parquet.write_table(table, folder / ROWS, compression="zstd")
    write_archive(folder / ARCHIVE, opened.store, needed.whole, needed.records, needed.failures)
    size = sum(f.stat().st_size for n in (STUDY, ROWS, ARCHIVE) if (f := folder / n).exists())
    return Exported(folder, rows, len(needed.whole), len(needed.records), size)


def import_study(folder: str | Path, store: str | Path = "store") -> Taken:
    """Take an exported study into a store: ``cgap study run FOLDER/study.yaml`` then builds what is missing alone.

    A policy whose episodes came along is not trained again. Raises ``UserError`` for a folder that is none.
    """
    folder = Path(folder)
    if not (folder / ARCHIVE).is_file() or not (folder / STUDY).is_file():
        raise UserError(f"{folder} is no exported study: it has no {STUDY} and {ARCHIVE} (cgap store export)")
    for name in (STUDY, ARCHIVE):
        inside(folder, name)
    return read_archive(folder / ARCHIVE, Store(store))


@contextmanager
def opened_export(folder: str | Path) -> Iterator[OpenStudy]:
    """An exported study with a store of its own, which is gone at the end: to be read, not to be run."""
    with tempfile.TemporaryDirectory(prefix="cgap-") as scratch:
        import_study(folder, scratch)
        opened = open_study(load_study(Path(folder) / STUDY, None), scratch)
        known = {a.key for a in (*opened.plan.steps.values(), *opened.plan.taken)}
        if {f.parent.name for f in Path(scratch).glob(f"*/*/{MANIFEST}")} - known:
            raise UserError(
                f"{folder} was made with other versions of this program or of its simulator, which would build other "
                "artefacts from the same study: read it with the versions of its time"
            )
        try:
            yield opened
        except OTHERS_FAULT as error:
            raise UserError(
                f"{folder} holds results that cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]}): "
                "export the study again where it was run"
            ) from error
