# A store behind a URL: what one machine has built, another one, with a cache of its own, finds there.
set -euo pipefail
COMPRESSION_GAP_CACHE="$WORK/first" cgap study run scripts/extras/small.yaml --store "file://$WORK/bucket"
COMPRESSION_GAP_CACHE="$WORK/second" cgap study status scripts/extras/small.yaml --store "file://$WORK/bucket" | grep "0 failed"
python -c 'import s3fs'
