"""Videos: frames by their times, each its own, and what a video that does not fit its table is told."""

import av
import numpy as np
import pytest

from compression_gap.demos.video import VideoWriter, decode_frames
from compression_gap.errors import UserError

FPS = 10.0


@pytest.fixture
def film(tmp_path):
    """Thirty grey frames, each 8 brighter than the one before."""
    file = tmp_path / "film.mp4"
    writer = VideoWriter(file, (32, 48), FPS, crf=10)
    for i in range(30):
        writer.write(np.full((32, 48, 3), 8 * i, np.uint8), first=i in (0, 15))
    writer.close()
    return file


def shades(file, times, fps=FPS):
    frames = np.concatenate(list(decode_frames(file, np.asarray(times), fps, "the video")))
    assert frames.shape[1:] == (32, 48, 3)
    assert frames.dtype == np.uint8
    return frames.mean((1, 2, 3)) / 8


def test_every_frame_is_found_at_its_time(film):
    np.testing.assert_allclose(shades(film, np.arange(30) / FPS), np.arange(30), atol=0.5)


def test_the_nearest_frame_serves_within_half_a_frame(film):
    wanted = np.array([3, 7, 20])
    np.testing.assert_allclose(shades(film, wanted / FPS + 0.04), wanted, atol=0.5)
    np.testing.assert_allclose(shades(film, wanted / FPS - 0.04), wanted, atol=0.5)


def test_episodes_begin_with_a_keyframe(film):
    with av.open(str(film)) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert {0, 15} <= set(keys)


def test_no_frame_serves_twice(film):
    with pytest.raises(UserError, match="the video has no frame of its own at"):
        shades(film, [0.5, 0.52])


def test_a_video_that_ends_too_early_is_named(film):
    with pytest.raises(UserError, match=r"the video is shorter than its table: it ends at 2\.900 s"):
        shades(film, np.arange(32) / FPS)


def test_what_is_no_video_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="the video is missing"):
        list(decode_frames(tmp_path / "none.mp4", np.zeros(1), FPS, "the video"))
    (tmp_path / "broken.mp4").write_bytes(b"no film at all" * 50)
    with pytest.raises(UserError, match="the video"):
        list(decode_frames(tmp_path / "broken.mp4", np.zeros(1), FPS, "the video"))
