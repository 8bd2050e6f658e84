"""An oracle that gives the state as it is, for tests of what stands behind it."""

import json
import tempfile
from pathlib import Path

import numpy as np

from compression_gap.encoders.state import Blocks, Scale


def write_oracle(folder, dims, tasks=("reach",)):
    """A prepared oracle in ``folder``: one block a task, each the state's ``dims`` numbers as they are."""
    scale = Scale(np.arange(dims), np.zeros(dims), np.ones(dims))
    blocks = Blocks(tuple(tasks), (scale,) * len(tasks), dims)
    (folder / "encoder.json").write_text(json.dumps({"name": "oracle", **blocks.as_json()}))
    return folder


_folders = []


def oracle_folder(dims, tasks=("reach",)):
    """``write_oracle`` in a folder of its own, which is there until the tests end."""
    _folders.append(tempfile.TemporaryDirectory())
    return write_oracle(Path(_folders[-1].name), dims, tasks)
