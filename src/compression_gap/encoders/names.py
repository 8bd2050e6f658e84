"""Names of pretrained encoders, taken apart. No torch, no transformers: a plan checks names at once.

siglip-so400m   hub:OWNER/NAME[@REVISION]   folder:PATH      … and behind any of them, in this order:
+patchesK       K × K average-pooled patches in place of their mean (K of 2 or more)
+finetune[N]    trained with the policy: the last N blocks, or all of it
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UserError

KNOWN = {
    "resnet18-imagenet": "microsoft/resnet-18",
    "siglip-base": "google/siglip-base-patch16-224",
    "siglip-so400m": "google/siglip-so400m-patch14-224",
    "siglip2-base": "google/siglip2-base-patch16-224",
    "siglip2-so400m": "google/siglip2-so400m-patch14-224",
    "dinov2-s": "facebook/dinov2-small",
    "dinov2-b": "facebook/dinov2-base",
    "dinov2-l": "facebook/dinov2-large",
}
FORMS = (*KNOWN, "hub:OWNER/NAME", "folder:PATH")
Conditioning = Literal["embedding", "index", "text"]  # how the task enters the context: ``base``
CONDITIONINGS: tuple[str, ...] = get_args(Conditioning)
ALL = "all"  # blocks that +finetune trains

_HUB = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w-][\w.-]*(?:/[\w-][\w.-]*)*))?")
_SUFFIX = re.compile(r"\+(patches|finetune)([1-9]\d*)?")


@dataclass(frozen=True)
class PretrainedName:
    """A name taken apart. ``finetune``: None when frozen, else how many blocks from the top, or "all"."""

    repo: str | None  # owner/name on the hub …
    revision: str  # … and its branch, tag or commit
    folder: str | None  # or a path
    patches: int = 1
    finetune: int | str | None = None

    def __str__(self) -> str:
        """The one spelling of the name."""
        if self.folder is not None:
            base = f"folder:{os.path.normpath(self.folder)}"
        else:
            at = "" if self.revision == "main" else f"@{self.revision}"
            short = [k for k, repo in KNOWN.items() if repo == self.repo and not at]
            base = short[0] if short else f"hub:{self.repo}{at}"
        patches = f"+patches{self.patches}" if self.patches > 1 else ""
        if self.finetune is None:
            return base + patches
        return f"{base}{patches}+finetune{'' if self.finetune == ALL else self.finetune}"


def is_pretrained(name: str) -> bool:
    """Whether a name asks for a pretrained checkpoint (it may still be misspelt behind that)."""
    return name.startswith(("hub:", "folder:")) or name.partition("+")[0] in KNOWN


def parse(name: str) -> PretrainedName:
    """Take a name apart. Raises ``UserError`` for one that breaks the grammar or has another spelling."""
    base, patches = name, 1
    finetune: int | str | None = None
    while found := re.search(r"\+[^+/]*$", base):
        suffix = _SUFFIX.fullmatch(found[0])
        if not suffix:
            if base.startswith("folder:"):
                break  # a path may hold a +
            raise UserError(
                f"encoder '{name}': '{found[0]}' is no suffix; known: +patchesK (as in +patches4), +finetune "
                "and +finetuneN (as in +finetune2)"
            )
        kind, number = suffix.groups()
        if kind == "patches" and number is None:
            raise UserError(f"encoder '{name}': +patches needs a number, as in +patches4 for 4 × 4")
        if (kind == "patches" and patches > 1) or (kind == "finetune" and finetune is not None):
            raise UserError(f"encoder '{name}' says +{kind} twice: leave one of them out")
        if kind == "patches":
            patches = int(number)
        else:
            finetune = ALL if number is None else int(number)
        base = base[: found.start()]
    asked = PretrainedName(*_place(name, base), patches, finetune)
    if str(asked) != name:
        raise UserError(
            f"encoder '{name}' is written '{asked}': one thing has one name, so that it is made once"
        )
    return asked


def _place(name: str, base: str) -> tuple[str | None, str, str | None]:
    """Hub id, revision and path of a name without its suffixes."""
    if base in KNOWN:
        return KNOWN[base], "main", None
    if base.startswith("folder:"):
        if not base.removeprefix("folder:"):
            raise UserError(f"encoder '{name}' names no folder: write folder:PATH")
        return None, "main", base.removeprefix("folder:")
    found = _HUB.fullmatch(base.removeprefix("hub:"))
    if not found:
        raise UserError(
            f"encoder '{name}': write hub:OWNER/NAME or hub:OWNER/NAME@REVISION, with nothing else in it"
        )
    return found[1], found[2] or "main", None
