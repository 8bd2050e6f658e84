"""The extras of this installation: the packages that each needs, in the versions that were tested.

What is needed stands in pyproject.toml alone; an installed program carries it in its metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

DISTRIBUTION = "compression-gap"


@dataclass(frozen=True)
class Extra:
    """One extra as it is installed here."""

    name: str
    found: dict[str, str]  # package -> version
    missing: tuple[str, ...]
    untested: dict[str, str]  # package -> the tested range that its version lies outside of

    def untested_words(self) -> str:
        """The packages outside of their tested ranges: "mujoco 3.17.0 (tested: ==3.3.0)"; empty if there are none."""
        return ", ".join(f"{p} {self.found[p]} (tested: {r})" for p, r in self.untested.items())


def install(extra: str) -> str:
    """The command that installs an extra, or corrects its versions, in the environment that runs this program."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def names() -> list[str]:
    """The extras that users install; developers' tools are none of them."""
    marks = (re.search(r"extra == [\"']([\w-]+)", line) for line in _asked())
    return sorted({mark[1] for mark in marks if mark} - {"dev", "fuzz"})


def needs(extra: str = "") -> list[Requirement]:
    """What an extra needs, or the program itself if none is named."""
    found = []
    for line in _asked():
        need = Requirement(line)
        own = need.marker is None or "extra" not in str(need.marker)
        if own != bool(extra) and (need.marker is None or need.marker.evaluate({"extra": extra})):
            found.append(need)
    return found


def _asked() -> list[str]:
    """What the installed program's metadata asks for; nothing, where its source alone is on the path."""
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def installed(extra: str = "") -> Extra:
    """What of an extra is there (of the program itself, if none is named), and what was not tested so."""
    found, missing, untested = {}, [], {}
    for need in needs(extra):
        version = version_of(need.name)
        if version is None:
            missing.append(need.name)
            continue
        found[need.name] = version
        if not need.specifier.contains(version, prereleases=True):
            untested[need.name] = str(need.specifier)
    return Extra(extra, found, tuple(missing), untested)


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
