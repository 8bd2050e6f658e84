# LIBERO: three demonstrations with images, in a worker process.
set -euo pipefail
cgap doctor --store "$STORE"
cgap demos make libero/libero_object-0 --episodes 3 --image-size 64 --store "$WORK/libero-store"
python scripts/extras/frames.py "$WORK/libero-store"
