"""The order in which folders may import, and what the program must never do."""

import ast
import re
from pathlib import Path

import pytest

import compression_gap

SOURCE = Path(compression_gap.__file__).parent

# ARCHITECTURE.md: each imports from those above it alone. Entries of one line stand side by side.
LAYERS = (
    ("errors", "extras"),
    ("records",),
    ("artifacts",),
    ("sims",),
    ("demos",),
    ("nn",),
    ("encoders",),
    ("tokenizers",),
    ("policies",),
    ("rollouts",),
    ("serving",),
    ("bits",),
    ("study",),
    ("report",),
    ("commands", "terminal", "doctor"),
    ("commands_bits", "commands_data", "commands_policies", "cli_types", "terminal_bits", "terminal_plan"),
    ("cli_bits", "cli_data", "cli_policies"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def room(file):
    """The folder or file of the house that a source file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(file):
    """The rooms that a file imports from, with the line, absolute and relative imports alike."""
    here = ("compression_gap", *file.relative_to(SOURCE).with_suffix("").parts)
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            targets = [tuple(name.name.split(".")) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            targets = [(*base, name.name) for name in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "compression_gap" and len(target) > 1 and target[1] in RANK:
                found.append((target[1], node.lineno))
    return found


def test_every_file_has_its_place_in_the_order():
    rooms = {room(f) for f in FILES} - {"__init__", "__main__", "presets"}
    assert rooms <= set(RANK), f"not in the order of the house: {sorted(rooms - set(RANK))}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_go_upwards_only(file):
    own = room(file)
    if own not in RANK:
        return
    wrong = [
        f"{file.name}:{line} imports {other}"
        for other, line in imported_rooms(file)
        if other != own and RANK[other] >= RANK[own]
    ]
    # the verbs know the terminal they print to
    if own == "commands":
        wrong = [w for w in wrong if not w.endswith("imports terminal")]
    assert not wrong, "; ".join(wrong)


def test_the_walk_sees_relative_and_absolute_imports():
    """A guard for the test itself: imports that are known to be there."""
    assert "study" in {other for other, _ in imported_rooms(SOURCE / "cli.py")}
    assert "artifacts" in {other for other, _ in imported_rooms(SOURCE / "study" / "engine.py")}
    assert "errors" in {other for other, _ in imported_rooms(SOURCE / "sims" / "registry.py")}


FORBIDDEN = {
    "pickle": r"\b(import|from) (c?pickle|dill|cloudpickle|joblib|shelve|marshal)\b",
    "torch.load": r"\btorch\.(load|save)\(",
    "allow_pickle": r"allow_pickle\s*=\s*True",
    "eval": r"(?<![\w.])(eval|exec)\(",
    "trust_remote_code": r"trust_remote_code",
    "unsafe YAML": r"yaml\.(unsafe_load|full_load|unsafe_load_all|load_all)\(|\b(UnsafeLoader|FullLoader)\b",
    "shell": r"shell\s*=\s*True|os\.system\(",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_source_has_no(what):
    found = [
        f"{file.relative_to(SOURCE)}:{number}"
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(FORBIDDEN[what], line)
    ]
    assert not found


def calls(name):
    """Every call of ``module.function`` in the source: (where, the call's node)."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in name:
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", node


def test_yaml_is_loaded_in_one_place_with_a_safe_loader():
    import yaml

    from compression_gap import records

    assert issubclass(records.YamlLoader, yaml.SafeLoader)
    loads = {f"yaml.{name}" for name in ("load", "safe_load", "compose", "parse", "scan")}
    assert not list(calls(loads))
    assert [w.partition(":")[0] for w, _ in calls({"YamlLoader"})] == ["records.py"]


# Text that this very process wrote, or ships; the readers of data sets have bounds of their own.
OWN_JSON = {
    *(
        "encoders/pretrained.py",
        "encoders/text.py",
        "report/page.py",
        "study/published.py",
        "tokenizers/fast.py",
    ),
    *("demos/source.py", "demos/libero_hdf5.py"),
}


def test_json_of_files_is_parsed_in_one_place():
    """``json.loads`` knows no bounds: ``records`` does."""
    found = {where.partition(":")[0] for where, _ in calls({"json.load", "json.loads"})}
    assert "records.py" in found
    assert found <= {"records.py", *OWN_JSON}


def test_arrays_are_read_and_written_without_pickle():
    """``np.load`` and ``np.save`` say so in words: ``np.save`` would pickle objects by default."""
    found = list(calls({"np.load", "np.save", "np.lib.format.open_memmap"}))
    assert found
    for where, node in found:
        if ast.unparse(node.func) == "np.lib.format.open_memmap":  # never pickles
            continue
        said = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert said.get("allow_pickle") == "False", where


def test_no_random_number_comes_from_a_shared_generator():
    """NumPy's global generator would make results depend on the order of work."""
    allowed = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"}
    found = [
        f"{file.relative_to(SOURCE)}: np.random.{name}"
        for file in FILES
        for name in re.findall(r"\bnp\.random\.(\w+)", file.read_text())
        if name not in allowed
    ]
    assert not found


def test_files_stay_readable():
    """One concept each: none beyond about 500 lines."""
    long = {str(f.relative_to(SOURCE)): n for f in FILES if (n := len(f.read_text().splitlines())) > 500}
    assert not long
