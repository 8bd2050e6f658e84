"""Extras: what each needs, what is there, and in which versions; the doctor's word on them."""

import importlib.util
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from compression_gap import extras
from compression_gap.api.mirrors.registry import MIRRORS
from compression_gap.cli import doctor

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def declared(monkeypatch):
    """The program asks for these packages; these are installed."""

    def declare(needs, found):
        monkeypatch.setattr(metadata, "requires", lambda name: needs)
        monkeypatch.setattr(extras, "version_of", found.get)

    return declare


def test_an_extra_s_packages_are_its_own_and_not_the_program_s(declared):
    declared(
        ["numpy<3,>=2.0", 'mujoco==3.3.0; extra == "libero"', 'h5py>=3; extra == "data"'], {"numpy": "2.4.6"}
    )
    assert [r.name for r in extras.needs()] == ["numpy"]
    assert [r.name for r in extras.needs("libero")] == ["mujoco"]


def test_the_extras_are_those_of_the_project_without_the_developers_tools():
    assert extras.names() == sorted(set(PROJECT["optional-dependencies"]) - {"dev", "fuzz"})


def test_a_source_that_is_not_installed_asks_for_nothing(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert extras.names() == extras.needs() == []


def test_what_is_there_what_is_missing_and_what_was_not_tested(declared):
    needs = [f'{r}; extra == "libero"' for r in ("mujoco==3.3.0", "robosuite==1.4.0", "av>=13,<19")]
    declared(needs, {"mujoco": "3.17.0", "av": "18.1.0"})
    extra = extras.installed("libero")
    assert extra.found == {"mujoco": "3.17.0", "av": "18.1.0"}
    assert extra.missing == ("robosuite",)
    assert extra.untested_words() == "mujoco 3.17.0 (tested: ==3.3.0)"


def test_the_doctor_passes_an_extra_that_is_absent_and_fails_one_that_was_not_tested(declared):
    needs = ['mujoco==3.3.0; extra == "libero"', 'zarr>=3; extra == "data"', 'av>=13; extra == "data"']
    declared(needs, {"mujoco": "3.17.0", "av": "13.0.0"})
    wrong, absent = doctor._extra("libero"), doctor._extra("data")
    assert (wrong.ok, wrong.found) == (False, "mujoco 3.17.0 (tested: ==3.3.0)")
    assert wrong.advice == 'pip install "compression-gap[libero]"'
    assert (absent.ok, absent.found) == (True, "not installed: zarr")
    assert absent.advice == 'pip install "compression-gap[data]"'


def test_without_mujoco_the_doctor_has_nothing_to_render(monkeypatch):
    monkeypatch.setattr(extras, "version_of", lambda name: None)
    check = doctor._rendering()
    assert check.ok
    assert check.found == "MuJoCo is not installed"
    assert "compression-gap[metaworld]" in check.advice


# The project's own files


def every_range():
    return [*PROJECT["dependencies"], *(r for e in PROJECT["optional-dependencies"].values() for r in e)]


@pytest.mark.parametrize("line", [r for r in every_range() if not r.startswith("types-")])
def test_every_dependency_has_a_tested_lower_bound_and_an_end(line):
    assert re.search(r">=[\d.]+,<\d+|==[\d.]+$", line), f"{line}: give a range that was tested"


def test_the_simulators_share_one_mujoco():
    asked = {r for e in ("libero", "metaworld") for r in PROJECT["optional-dependencies"][e] if "mujoco" in r}
    assert asked == {"mujoco==3.3.0"}


def test_each_mirror_of_this_program_is_an_extra_of_its_own():
    assert all(e.package == name for name, e in MIRRORS.own.items())
    assert set(MIRRORS.own) <= set(PROJECT["optional-dependencies"])


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_constraints_are_exact_lie_in_the_ranges_and_leave_torch_alone():
    pinned = constraints()
    assert not {n for n in pinned if re.match(r"torch$|triton|nvidia|cuda", n.lower())}
    assert all(re.fullmatch(r"[\w.!]+", v) for v in pinned.values())
    pinned = {re.sub(r"[-_.]+", "-", n).lower(): v for n, v in pinned.items()}
    from packaging.requirements import Requirement

    # `make` installs no mirrors: trackio asks for an older pillow than the others take. What a cluster needs comes
    # with `make test-cluster`.
    apart = {
        r
        for name in (*MIRRORS.own, "ray", "remote", "devices")
        for r in PROJECT["optional-dependencies"][name]
    }
    for line in set(every_range()) - apart:
        need = Requirement(line)
        if need.name != "torch":
            version = pinned[re.sub(r"[-_.]+", "-", need.name).lower()]
            assert need.specifier.contains(version), f"{need.name} {version} is outside of {need.specifier}"


def test_the_lowest_versions_are_those_of_the_ranges(monkeypatch):
    spec = importlib.util.spec_from_file_location("test_extras_script", ROOT / "scripts" / "test_extras.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    lines = script.lowest()
    assert "mujoco==3.3.0" in lines
    assert "transformers==5.0" in lines
    assert not [line for line in lines if line.startswith("torch=")]
    assert [e for e in PROJECT["optional-dependencies"] if e not in ("dev", "fuzz")] == script.EXTRAS
    assert all((script.VERBS / f"{name}.sh").is_file() for name in ("core", *script.EXTRAS))
