"""TensorBoard: a folder of event files for each run. Look with ``tensorboard --logdir STORE/studies/NAME/mirrors``.

The files are written by TensorBoard's own writer, without torch or TensorFlow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ..follower import Say
from .base import Run

TEXT = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))


class TensorBoard:
    """Event files under a folder."""

    def __init__(self, study: str, folder: Path, say: Say) -> None:
        self.folder = folder
        self.writers: dict[str, EventFileWriter] = {}

    def begin(self, run: Run) -> None:
        """The configuration stands in the run's text."""
        self.writers[run.key] = EventFileWriter(str(self.folder / run.file_name))
        text = f"# {run.name}\n\n```json\n{json.dumps(run.config, indent=1, sort_keys=True)}\n```"
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()])
        self._add(run, 0, [Summary.Value(tag="configuration/text_summary", metadata=TEXT, tensor=tensor)])

    def log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
        """Scalars, which can be read at once."""
        self._add(run, step, [Summary.Value(tag=n, simple_value=v) for n, v in values.items()])
        self.writers[run.key].flush()

    def end(self, run: Run, *, failed: bool) -> None:
        """Close its file; a failure stands in the configuration."""
        self.writers.pop(run.key).close()

    def close(self) -> None:
        """Nothing is open."""

    def _add(self, run: Run, step: int, values: list[Summary.Value]) -> None:
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self.writers[run.key].add_event(event)
