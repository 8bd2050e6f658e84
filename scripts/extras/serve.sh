# Serving: a policy of the core's study answers a client for an episode.
set -euo pipefail
python scripts/extras/serve.py "$STORE"
