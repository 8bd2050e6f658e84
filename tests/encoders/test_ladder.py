"""The controlled ladder's names and shares."""

import pytest

from compression_gap.encoders.ladder import FEWEST, frames_of, is_pose, pose_name, share
from compression_gap.errors import UserError


@pytest.mark.parametrize(
    ("name", "frames"), [("pose-0", 0), ("pose-300", 300), ("pose-1k", 1000), ("pose-2500", 2500), ("pose-10k", 10_000)]
)  # fmt: skip
def test_a_rung_has_one_name(name, frames):
    assert is_pose(name)
    assert frames_of(name) == frames
    assert pose_name(frames) == name


@pytest.mark.parametrize("name", ["pose-", "pose-x", "pose-1.5k", "pose--3", "pose-03", "pose-K"])
def test_no_whole_number_is_a_sentence(name):
    with pytest.raises(UserError, match="needs a whole number of frames, as in pose-300 or pose-10k"):
        frames_of(name)


def test_a_second_spelling_is_refused():
    with pytest.raises(UserError, match="encoder 'pose-1000' is written pose-1k"):
        frames_of("pose-1000")
    with pytest.raises(UserError, match="encoder 'pose-0k' is written pose-0"):
        frames_of("pose-0k")


def test_frames_are_shared_out_evenly():
    assert share(300, 4) == [75] * 4
    assert share(302, 4) == [76, 76, 75, 75]
    assert share(0, 3) == [0, 0, 0]
    with pytest.raises(
        UserError, match=f"pose-20 has too few frames for 4 tasks: take pose-{4 * FEWEST} or more"
    ):
        share(20, 4)
