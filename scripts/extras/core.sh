# The core: the machine's check, and a study on the toy channel from nothing to the report.
set -euo pipefail
cgap doctor --store "$STORE"
cgap study run scripts/extras/small.yaml --store "$STORE" --processes 1
