# Data: the core's demonstrations out as LeRobot and in again, HDF5 and Zarr in.
set -euo pipefail
set -- "$STORE"/demos/*
cgap demos export "$1" "$WORK/lerobot" --fps 10
cgap demos import "$WORK/lerobot" --store "$WORK/data-store"
cgap demos export "$1" "$WORK/lerobot-images" --fps 10 --images
cgap demos import "$WORK/lerobot-images" --store "$WORK/data-store"
python scripts/extras/data.py "$1" "$WORK"
cgap demos import "$WORK/small.hdf5" --store "$WORK/data-store" --task-text reach
cgap demos import "$WORK/small.zarr" --store "$WORK/data-store" --task-text reach
