"""Token tables as the artefact "tokens" loads them, for tests that train on arrays of their own."""

import numpy as np

from compression_gap.artifacts.tokens import TokenTable
from compression_gap.demos import decision_rows


def token_tables(sets, tokens=None, coded=None, stride=1):
    """A table a split; what is not given is zero. None where nothing is given."""
    if tokens is None and coded is None:
        return None
    made = {}
    for split in tokens or coded:
        rows = decision_rows(sets, split, stride)
        ids = tokens[split].ids if tokens else np.zeros((len(rows), 1), np.int64)
        lengths = tokens[split].lengths if tokens else np.zeros(len(rows), np.int64)
        chunks = coded[split] if coded else np.zeros((len(ids), 1, 1), np.float32)
        made[split] = TokenTable(rows, ids, lengths, chunks)
    return made
