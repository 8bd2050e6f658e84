"""``meta/info.json`` as a record: what it says, and what stands in where it says nothing."""

from compression_gap.demos.lerobot_info import V2_DATA, V3_VIDEO, read_info
from compression_gap.demos.source import Field

from .conftest import CAMERAS, FPS
from .test_lerobot import edit

VIDEOS = tuple(f"observation.images.{c}" for c in CAMERAS)


def test_what_is_used_of_it(v3_video):
    info = read_info(v3_video)
    assert (info.version, info.fps, info.videos) == ("v3.0", FPS, VIDEOS)
    assert info.fields["action"] == Field("action", (3,))
    assert info.fields[VIDEOS[0]] == Field(VIDEOS[0], (16, 16, 3), camera=True)
    assert info.totals == {"total_episodes": 6, "total_frames": 57}
    assert (info.splits, info.video_path) == ((), V3_VIDEO)  # one split alone is none


def test_defaults_stand_in_for_what_is_missing(v21):
    def change(about):
        for name in ("chunks_size", "data_path", "total_frames", "total_episodes"):
            about.pop(name, None)
        about["splits"] = {"train": "0:4", "val": "4:6"}

    edit(v21 / "meta/info.json", change)
    info = read_info(v21)
    assert (info.chunk_size, info.data_path, info.totals) == (1000, V2_DATA, {})
    assert info.splits == (("train", range(4)), ("val", range(4, 6)))


def test_depth_is_no_camera(v3_video):
    edit(
        v3_video / "meta/info.json",
        lambda about: about["features"][VIDEOS[1]]["info"].update({"video.is_depth_map": True}),
    )
    info = read_info(v3_video)
    assert info.videos == VIDEOS[:1]
    assert VIDEOS[1] not in info.fields
