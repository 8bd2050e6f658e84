# A mirror: a part of the core's study is shown to trackio, and what it wrote is read back with its own package.
set -euo pipefail
python scripts/extras/mirror.py trackio "$STORE"
