"""MP4 in and out with PyAV: frames matched to timestamps while decoding once from front to back.

Only the MP4 demuxer is opened, whatever a file calls itself: playlists and references to other files are not
followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .checks import ROW_BYTES, check_row_size, library_errors
from .source import block_rows


def decode_frames(file: Path, wanted: np.ndarray, fps: float, where: str) -> Iterator[np.ndarray]:
    """The frames shown at the times ``wanted`` (seconds, increasing): blocks of uint8 [n, h, w, 3].

    Each is the nearest frame, at most half a frame away, and none serves twice. Raises ``UserError`` if the video
    ends before, has a gap, or cannot be decoded; ``where`` names it.
    """
    import av
    from av.video.reformatter import VideoReformatter

    if not file.is_file():
        raise UserError(f"{where} is missing; the data set is incomplete, fetch it again")
    colour = VideoReformatter()  # keeps its tables from frame to frame
    block: np.ndarray | None = None
    filled = 0
    kinds = (av.error.FFmpegError, ValueError, TypeError, ArithmeticError, MemoryError)
    with library_errors(where, *kinds), av.open(str(file), format="mp4") as container:
        if not container.streams.video:
            raise UserError(f"{where} holds no video; fetch it again")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"{where} has a codec that is not decoded here; encode it again, as H.264")
        context = stream.codec_context
        check_row_size("a frame", (context.height, context.width, 3), where, item=1)
        # The codec itself may claim another size than its file does.
        context.options = {**context.options, "max_pixels": str(ROW_BYTES // 3)}
        stream.thread_type = "AUTO"
        for frame in _nearest(container.decode(stream), wanted, 0.5 / fps, where):
            shape = (frame.height, frame.width, 3)
            if block is None:
                check_row_size("a frame", shape, where, item=1)
                block = np.empty((block_rows(shape), *shape), np.uint8)
            elif block.shape[1:] != shape:
                raise UserError(
                    f"{where} changes its size from {block.shape[1:3]} to {shape[:2]}; re-encode it"
                )
            plane: Any = colour.reformat(frame, format="rgb24").planes[0]
            lines = np.frombuffer(plane, np.uint8).reshape(shape[0], plane.line_size)
            block[filled] = lines[:, : 3 * shape[1]].reshape(shape)
            filled += 1
            if filled == len(block):
                yield block
                block, filled = np.empty_like(block), 0
    if block is not None and filled:
        yield block[:filled]


def _nearest(frames: Iterator[Any], wanted: np.ndarray, tolerance: float, where: str) -> Iterator[Any]:
    """Of frames in order of time, the one nearest to each wanted time."""
    left = iter(wanted.tolist())
    at = next(left, None)
    before: Any = None  # the last frame that has not served
    when = last = -np.inf
    for frame in frames:
        if at is None:
            return
        if frame.pts is None:
            raise UserError(f"{where} has frames without a time; re-encode it")
        now = float(frame.pts * frame.time_base)
        free = True
        while at is not None and now >= at:
            older = before is not None and at - when <= now - at
            if older and at - when <= tolerance:
                yield before
                before = None
            elif free and now - at <= tolerance:
                yield frame
                free = False
            else:
                raise _absent(where, at, now)
            at = next(left, None)
        before, when = (frame, now) if free else (None, -np.inf)
        last = now
    while at is not None:
        if before is None or abs(at - when) > tolerance:
            raise _absent(where, at, last)
        yield before
        before, at = None, next(left, None)


def _absent(where: str, at: float, last: float) -> UserError:
    if last < at:
        return UserError(
            f"{where} is shorter than its table: it ends at {last:.3f} s, and the table needs a frame at "
            f"{at:.3f} s; record or encode it again, or leave out those episodes"
        )
    return UserError(
        f"{where} has no frame of its own at {at:.3f} s, where its table needs one; check the set's fps and "
        "timestamps, or encode the video again"
    )


class VideoWriter:
    """An H.264 file in LeRobot's manner (yuv420p, a keyframe every second frame), each episode on a keyframe."""

    def __init__(self, file: Path, size: tuple[int, int], fps: float, crf: int) -> None:
        import av

        self._av = av
        self._container = av.open(str(file), "w", format="mp4")
        rate = Fraction(fps).limit_denominator(1001)
        # No frames that wait for later ones: the first is shown at 0, and times are n / fps.
        options = {"g": "2", "crf": str(crf), "bf": "0", "forced-idr": "1"}
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"

    def write(self, frame: np.ndarray, *, first: bool) -> None:
        """Append a frame, uint8 [h, w, 3]; ``first``: of an episode."""
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if first:
            picture.pict_type = self._av.video.frame.PictureType.I
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())
        self._container.close()
