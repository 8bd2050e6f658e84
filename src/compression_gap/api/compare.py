"""Comparing policies by their result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..results.compared import compare_policies
from ..results.outcomes.formats import read_outcomes
from ..results.outcomes.record import PolicyOutcomes, joined
from ..results.records.compared import ComparedPolicies


def compare(named: Sequence[str]) -> ComparedPolicies:
    """Compare the policies in result files, each a path or NAME=PATH; files of one NAME are its training seeds.

    Raises ``UserError``, one sentence, for a file that cannot be read, and for policies that share no episode.
    """
    found: dict[str, list[PolicyOutcomes]] = {}
    for text in named:
        name, given, path = ("", "", text) if Path(text).exists() else text.partition("=")
        policies = read_outcomes(Path(path if given else text))
        for policy in policies:
            called = policy.name if not given else name if len(policies) == 1 else f"{name} {policy.name}"
            if not given and called in found:
                raise UserError(
                    f"two files are of a policy called '{called}' by their folder or their name; name them, as in "
                    "NAME=FILE: the same name for training seeds of one policy, different names for different ones"
                )
            found.setdefault(called, []).append(policy.named(called))
    return compare_policies([joined(name, parts) for name, parts in found.items()])
