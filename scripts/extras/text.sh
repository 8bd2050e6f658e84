# Text: the embedding of an instruction by a tower with SigLIP's kind of tokenizer.
set -euo pipefail
python scripts/extras/text.py "$WORK/tower"
