"""The order in which folders may import, and what the program must never do."""

import ast
import re
from pathlib import Path

import pytest

import compression_gap

SOURCE = Path(compression_gap.__file__).parent

# docs/architecture.md: the path of the data. Each room imports from those before it alone.
ROOMS = (
    "errors",
    "extras",
    "records",
    "registry",
    "store",
    "statistics",
    "sims",
    "demos",
    "nn",
    "encoders",
    "tokenizers",
    "policies",
    "rollouts",
    "serving",
    "information",
    "artifacts",
    "study",
    "results",
    "costs",
    "report",
    "api",
    "cli",
)
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {("compression_gap", *f.relative_to(SOURCE).with_suffix("").parts): f for f in FILES}


def module_of(target):
    """The file that an imported dotted name lies in; None if it is not ours."""
    for n in range(len(target), 0, -1):
        for name in (target[:n], (*target[:n], "__init__")):
            if name in MODULES:
                return name
    return None


def imported(module):
    """The modules that a file imports, with the line: at its head, within functions and for types alike."""
    found = {}
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            targets = [tuple(name.name.split(".")) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module[: len(module) - node.level] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            targets = [(*base, name.name) for name in node.names]
        else:
            continue
        for target in targets:
            other = module_of(target)
            if target[0] == "compression_gap" and other not in (
                None,
                module,
                ("compression_gap", "__init__"),
            ):
                found.setdefault(other, node.lineno)
    return found


def words(module):
    return "/".join(module[1:])


IMPORTS = {module: imported(module) for module in MODULES}


def test_every_file_has_its_place_in_the_order():
    rooms = {m[1] for m in MODULES} - {"__init__", "__main__", "presets"}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("module", [m for m in MODULES if m[1] in ROOMS], ids=words)
def test_imports_go_upwards_only(module):
    own = ROOMS.index(module[1])
    wrong = [
        f"{words(module)}.py:{line} imports {words(other)}"
        for other, line in IMPORTS[module].items()
        if other[1] != module[1] and ROOMS.index(other[1]) >= own
    ]
    assert not wrong, "; ".join(wrong)


def cycles(imports):
    """Sets of files that import each other in a circle (Tarjan's strongly connected components)."""
    number, low, stack, found = {}, {}, [], []

    def visit(module):
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in imports[module]:
            if other not in number:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == number[module]:
            circle = {stack.pop()}
            while module not in circle:
                circle.add(stack.pop())
            if len(circle) > 1:
                found.append(sorted(words(m) for m in circle))

    for module in imports:
        if module not in number:
            visit(module)
    return found


def test_no_files_import_each_other_in_a_circle():
    assert not cycles(IMPORTS)


def test_the_walk_sees_relative_and_absolute_imports():
    """A guard for the test itself: imports that are known to be there, and a circle that is one."""
    engine = {words(m) for m in IMPORTS["compression_gap", "store", "engine"]}
    assert "store/store" in engine
    assert "errors" in {words(m) for m in IMPORTS["compression_gap", "sims", "registry"]}
    a, b, c = (("compression_gap", n) for n in "abc")
    assert cycles({a: [b], b: [c], c: [b]}) == [["b", "c"]]


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
    *("report/page.py", "results/published.py", "tokenizers/fast.py"),
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
    """One concept each."""
    long = {str(f.relative_to(SOURCE)): n for f in FILES if (n := len(f.read_text().splitlines())) > 400}
    assert not long


MOST_UNTYPED = 25  # at the store's, JSON's or YAML's edge


def untyped(tree):
    """How often the signatures of a file hold ``dict[str, Any]``, as a parameter or as what is returned."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    said = [a.annotation for f in functions for a in ast.walk(f.args) if isinstance(a, ast.arg)]
    return sum(ast.unparse(s).count("dict[str, Any]") for s in [*said, *(f.returns for f in functions)] if s)


def test_rooms_hand_each_other_records():
    """``dict[str, Any]`` stands in signatures at the edge alone: manifests and specifications, JSON and YAML."""
    seen = "def f(a: dict[str, Any], *b: dict[str, Any], c: int) -> list[dict[str, Any]]: ..."
    assert untyped(ast.parse(seen)) == 3
    found = {str(f.relative_to(SOURCE)): n for f in FILES if (n := untyped(ast.parse(f.read_text())))}
    assert sum(found.values()) <= MOST_UNTYPED, found
