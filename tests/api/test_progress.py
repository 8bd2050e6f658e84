"""Progress of a run: the log."""

import os

import pytest

from compression_gap.api.progress import RunWatcher


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_log_that_cannot_be_written_is_not_worth_a_word(capsys):
    from pathlib import Path

    with RunWatcher([], 3, 1, Path("/dev/full")) as watcher:
        watcher.log.info("something")
    assert capsys.readouterr().err == "3 of 3 steps are there already\n"
