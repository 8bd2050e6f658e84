"""The page of a comparison of tokenizers: the rate–distortion plot, success against bits, and the table."""

from __future__ import annotations

from pathlib import Path

from ..results.records.tokenizers import TokenizerTable
from .figures.tokenizers import rate_distortion, success_against_bits
from .page import table_csv, template, write_text


def write_tokenizer_page(found: TokenizerTable, path: Path) -> None:
    """Draw a comparison into ``path``."""
    text = template("tokenizers.html").render(
        s=found,
        whole=[r for r in found.rows if r.health],
        plot=rate_distortion(found),
        success=success_against_bits(found) if found.references else "",
        csv={"tokenizers": table_csv(_rows(found))},
    )
    write_text(text, path)


CSV = (
    "capacity_bits", "used_bits", "position_bits", "tokens_mean", "tokens_p95", "distortion", "distortion_low",
    "distortion_high", "within_sigma", "order_preservation", "codes", "dead_codes", "mean_perplexity",
    "gaussian_reference_rate", "decode_failures_corrupted", "encode_per_second", "decode_per_second",
)  # fmt: skip


def _rows(found: TokenizerTable) -> list[dict[str, object]]:
    return [
        {
            "tokenizer": row.label,
            "seed": row.tokenizer_seed,
            **{name: getattr(row.health, name) for name in CSV},
            "expert_coded": "" if row.expert_coded is None else row.expert_coded.value,
            "replay": "" if row.replay is None else row.replay.value,
        }
        for row in found.rows
        if row.health is not None
    ]
