"""Check the demonstrations of a store: three episodes, whose frames show something that moves."""

import sys
from pathlib import Path

from compression_gap.demos import DemoSet

(folder,) = (Path(sys.argv[1]) / "demos").iterdir()
demos = DemoSet.load(folder)
assert len(demos.episodes) == 3, len(demos.episodes)
for camera, frames in demos.images.items():
    first, last = frames[0].astype(int), frames[demos.episodes[0].length - 1].astype(int)
    assert first.std() > 10, f"{camera}: the first frame shows nothing"
    assert abs(last - first).mean() > 0.5, f"{camera}: nothing moves"
    print(camera, frames.shape)
