# Ray: the core's study is built by a cluster that is started on this machine.
set -euo pipefail
cgap study run scripts/extras/small.yaml --engine ray --store "$WORK/ray-store"
