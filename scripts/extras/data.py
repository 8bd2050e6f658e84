"""Write a set of demonstrations once more, as robomimic's HDF5 and as a Zarr replay buffer."""

import sys
from pathlib import Path

import h5py
import numpy as np
import zarr

from compression_gap.demos import DemoSet

demos, work = DemoSet.load(Path(sys.argv[1])), Path(sys.argv[2])
frames = next(iter(demos.images.values()))
with h5py.File(work / "small.hdf5", "w") as file:
    for number, e in enumerate(demos.episodes):
        rows = slice(e.start, e.start + e.length)
        group = file.create_group(f"data/demo_{number}")
        group["actions"] = demos.actions[rows]
        group["obs/robot0_eef_pos"] = demos.proprio[rows]
        group["obs/agentview_image"] = frames[rows]
        group.attrs["num_samples"] = e.length
root = zarr.open_group(work / "small.zarr", mode="w", zarr_format=2)
ends = np.cumsum([e.length for e in demos.episodes])
arrays = {"action": demos.actions, "robot_state": demos.proprio, "front_rgb": frames}
for name, rows in arrays.items():
    made = root.create_array(f"data/{name}", shape=rows.shape, dtype=rows.dtype, chunks=(16, *rows.shape[1:]))
    made[:] = np.asarray(rows)
root.create_array("meta/episode_ends", shape=ends.shape, dtype=ends.dtype)[:] = ends
