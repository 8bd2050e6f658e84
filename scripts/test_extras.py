"""Each extra alone, in an environment of its own: does it install, and does the smallest verb that needs it work?

    python scripts/test_extras.py [--versions lowest newest] [--extras libero ...]

Everything is done twice: with the lowest version of each package that pyproject.toml allows, and with the newest.
torch is the one exception: it is taken as scripts/setup.sh takes it. An environment is a copy, by hard links, of one
that holds torch alone (the core's) or torch and the core (an extra's); the rest is installed anew. Needs a Linux machine that can render.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERBS = ROOT / "scripts" / "extras"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [name for name in PROJECT["optional-dependencies"] if name not in ("dev", "fuzz")]


def main() -> int:
    """Test what was asked for; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", nargs="+", choices=("lowest", "newest"), default=["lowest", "newest"])
    parser.add_argument("--extras", nargs="+", choices=["core", *EXTRAS], default=["core", *EXTRAS])
    asked = parser.parse_args()
    failed: list[str] = []
    passed = 0
    with tempfile.TemporaryDirectory(prefix="extras-") as work:
        subprocess.run(
            ["bash", "scripts/setup.sh", f"{work}/torch"],
            cwd=ROOT,
            env={**os.environ, "ONLY": "torch"},
            check=True,
        )
        for versions in asked.versions:
            bench = Bench(Path(work), versions)
            for name in ["core", *(e for e in asked.extras if e != "core")]:
                begun = time.monotonic()
                problem = bench.core() if name == "core" else bench.extra(name)
                seconds = time.monotonic() - begun
                print(
                    f"{versions} {name}: {'FAILED' if problem else 'passed'} in {seconds:.0f} s", flush=True
                )
                if problem:
                    print(problem, flush=True)
                    failed.append(f"{versions} {name}")
                    if name == "core":
                        break
                else:
                    passed += 1
    print(f"{passed} passed, {len(failed)} failed" + "".join(f"\nfailed: {name}" for name in failed))
    return 1 if failed else 0


class Bench:
    """The environments of one choice of versions, and the folder in which they work."""

    def __init__(self, root: Path, versions: str) -> None:
        self.torch, self.work = root / "torch", root / versions
        self.work.mkdir()
        self.base = self.work / "core"
        self.store = self.work / "store"
        self.constraints = self.work / "constraints.txt"
        lines = lowest() if versions == "lowest" else []
        self.constraints.write_text("".join(f"{line}\n" for line in lines))

    def core(self) -> str:
        """Make the base environment; what is wrong with it, or nothing."""
        subprocess.run(["cp", "-al", self.torch, self.base], check=True)
        setup = {"CONSTRAINTS": str(self.constraints), "EXTRAS": ""}
        return self._run("bash", "scripts/setup.sh", str(self.base), **setup) or self._verb(self.base, "core")

    def extra(self, name: str) -> str:
        """A copy of the base with one extra, and the verb that needs it; what is wrong, or nothing."""
        there = self.work / name
        subprocess.run(["cp", "-al", self.base, there], check=True)
        install = ["install", "--quiet", "--constraint", str(self.constraints), "--editable", f".[{name}]"]
        return (
            self._run(str(there / "bin/python"), "-m", "pip", *install)
            or self._run(str(there / "bin/python"), "-m", "pip", "check")
            or self._verb(there, name)
        )

    def _verb(self, environment: Path, name: str) -> str:
        return self._run("bash", str(VERBS / f"{name}.sh"), at=environment, STORE=str(self.store))

    def _run(self, *command: str, at: Path | None = None, **variables: str) -> str:
        """Run a command in the repository; its last lines if it fails, else nothing."""
        path = os.environ["PATH"] if at is None else f"{at / 'bin'}:{os.environ['PATH']}"
        threads = {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **threads, "PATH": path, "WORK": str(self.work), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return ""
        return f"{' '.join(command)}\n" + "\n".join(done.stdout.splitlines()[-40:])


def lowest() -> list[str]:
    """The lowest version of each package that the ranges allow, as pip's constraints; torch is left out."""
    ranges = [*PROJECT["dependencies"], *(r for e in EXTRAS for r in PROJECT["optional-dependencies"][e])]
    found: dict[str, str] = {}
    for line in ranges:
        match = re.match(r"([\w.-]+)(?:>=|==)([\d.]+)", line)
        if match is None:
            sys.exit(f"pyproject.toml: '{line}' has no lower bound; give the lowest version that was tested")
        name, version = match.groups()
        if found.setdefault(name, version) != version:
            sys.exit(f"pyproject.toml: {name} has two lower bounds, {found[name]} and {version}; give one")
    return [f"{name}=={version}" for name, version in found.items() if name != "torch"]


if __name__ == "__main__":
    sys.exit(main())
