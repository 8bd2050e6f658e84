"""With what the results of one page were made: packages and machines, and a sentence where they are not the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from .. import extras
from ..artifacts.policy import TrainedPolicy
from ..store.artifact import Artifact
from ..store.graph import Graph
from ..store.store import Store

BUILT_WITH = ("torch", "python", "device")  # of a manifest's "machine"


def version_words(graph: Graph, store: Store, sets: Sequence[Artifact] = ()) -> list[str]:
    """Sentences on the versions behind a graph's results: mixtures, and simulators outside of their tested range.

    A simulator's versions stand with what it made; those of torch in the manifests of policies.
    ``sets``: demonstrations that the graph takes as they are.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for of in (*sets, *(s for s in graph.steps.values() if store.recorded(s))):
        for package, version in _versions_of(of, store):
            seen[package][version] += 1
    return [*_mixtures(seen), *_untested({package: set(counts) for package, counts in seen.items()})]


def _versions_of(of: Artifact, store: Store) -> Iterator[tuple[str, str]]:
    """What one artefact was made with, as (package, version)."""
    yield from of.packages.items()
    if isinstance(of, TrainedPolicy):
        built = store.meta(of).get("machine", {})
        yield from ((name, str(built[name])) for name in BUILT_WITH if name in built)


def _mixtures(seen: Mapping[str, Counter[str]]) -> list[str]:
    out = []
    for package, counts in sorted(seen.items()):
        if len(counts) > 1:
            parts = ", ".join(f"{version} ({n})" for version, n in sorted(counts.items()))
            out.append(
                f"These results were made with several versions of {package}, and may differ for that alone: {parts}."
            )
    return out


def _untested(seen: Mapping[str, set[str]]) -> list[str]:
    out = []
    ranges = {need.name: need.specifier for name in extras.names() for need in extras.needs(name)}
    for package, versions in sorted(seen.items()):
        wrong = [v for v in sorted(versions) if package in ranges and not ranges[package].contains(v)]
        if wrong:
            out.append(
                f"{package} {', '.join(wrong)} lies outside of the tested range {ranges[package]}: frames and success "
                "may be others than the documented ones."
            )
    return out
