"""Write a small SigLIP with a SentencePiece tokenizer, as a user would have it, and embed instructions with it."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers

from compression_gap.encoders.text import embed, resolve_text

folder, texts = Path(sys.argv[1]), ["push the red block", "open the drawer"]
piece = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts * 3), model_writer=piece, vocab_size=18, hard_vocab_limit=False,
    pad_id=-1, eos_id=1, unk_id=0, bos_id=-1, minloglevel=3, model_type="char",
)  # fmt: skip
torch.manual_seed(0)
size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
config = transformers.SiglipConfig(
    text_config={**size, "vocab_size": 18, "max_position_embeddings": 32, "projection_size": 12},
    vision_config={**size, "image_size": 16, "patch_size": 8},
)
transformers.SiglipModel(config).save_pretrained(folder)
(folder / "spiece.model").write_bytes(piece.getvalue())
about = {"tokenizer_class": "SiglipTokenizer", "model_input_names": ["input_ids"], "model_max_length": 32}
(folder / "tokenizer_config.json").write_text(json.dumps(about))
table = embed(resolve_text(f"folder:{folder}"), [*texts, texts[0].upper() + "!"])
assert table.shape[0] == 3
assert np.isfinite(table).all()
assert np.array_equal(table[0], table[2])
assert abs(table[0] - table[1]).max() > 1e-3
print(table.shape)
