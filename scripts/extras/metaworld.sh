# Meta-World: three demonstrations with images, in a worker process.
set -euo pipefail
cgap doctor --store "$STORE"
cgap demos make metaworld/push --episodes 3 --image-size 64 --store "$WORK/metaworld-store"
python scripts/extras/frames.py "$WORK/metaworld-store"
