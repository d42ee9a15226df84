"""The floors: a module imports only from lower floors. CONTRIBUTING.md draws them."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fewshot"
FLOORS = [
    {"_version", "conversion", "errors", "estimator_checks", "locks", "parameters"},
    {
        "budget",
        "content",
        "episodes",
        "files",
        "heap",
        "isolation",
        "labels",
        "manifest",
        "pickling",
        "progress",
        "randomness",
        "ranking",
        "rows",
        "twins",
        "sealed",
        "suffixes",
        "text",
        "unknown",
        "vectors",
        "waiting",
        "writers",
    },
    {
        "approximate",
        "artifact",
        "backbones",
        "checks",
        "data",
        "distributed",
        "memory",
        "registry",
        "report",
        "similarity",
        "statistics",
        "stored",
        "support",
    },
    {"editing", "executors", "learners.base", "replacement", "runtime", "snapshot", "transduction"},
    {"calibration", "embedding", "fitted", "segments"},
    {"estimator", "index"},
    {"classifier", "learners", "weights"},
    {"evaluation", "model", "stores"},
    {"annotation", "exporting", "gallery", "training"},
    {"benchmark", "demo", "integrations"},
    {"", "cli"},
    {"__main__"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def floor_of(name):
    for number, floor in enumerate(FLOORS):
        if name in floor:
            return number
    return floor_of(name.rpartition(".")[0])


def imports(path):
    """Modules of the package that are imported when `path` is, not those inside functions or for types only."""
    waiting = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.removeprefix("fewshot").lstrip(".") for name in names if name.split(".")[0] == "fewshot")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_lower_floors(path):
    name = name_of(path)
    for target in imports(path):
        same_room = name.split(".")[0] == target.split(".")[0] and "learners" not in name
        assert same_room or floor_of(target) < floor_of(name), f"{name} imports {target}"


def code_lines(text):
    """Lines that hold code: no blanks, comments or docstrings, which must not be cut to meet a number."""
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in ignored:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_is_short(path):
    assert code_lines(path.read_text(encoding="utf-8")) <= 300


def test_docstrings_comments_and_blanks_are_no_code():
    assert code_lines('"""Two\nlines."""\n\n# why\nx = (\n    1,\n)\n') == 3


def test_row_72_nothing_is_unpickled_or_executed():
    forbidden = r"pickle\.load|joblib\.load|weights_only=False|allow_pickle=True|(?<![\w.])(eval|exec)\("
    for path in MODULES:
        assert not re.search(forbidden, path.read_text(encoding="utf-8")), path


def test_each_module_has_a_test_file():
    tests = {p.stem.removeprefix("test_") for p in Path(__file__).parent.glob("test_*.py")}
    run_by_others = {"_version", "__main__"}
    for path in MODULES:
        name = name_of(path)
        if path.name != "__init__.py" and name not in run_by_others:
            assert {name.replace(".", "_"), name.split(".")[0]} & tests, f"{name} has no test file"


def seconds(code):
    """Seconds of the processor, whatever else it has to do."""
    command = f"import time; t = time.process_time(); {code}; print(time.process_time() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True) for _ in range(3)
    ]
    return min(float(run.stdout.splitlines()[-1]) for run in runs)


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    assert seconds("import fewshot") < 0.3
    heavy = "{'torch', 'timm', 'faiss', 'sklearn', 'pandas', 'numpy', 'matplotlib'}"
    code = f"import sys, fewshot, fewshot.cli; dir(fewshot); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_is_quick():
    code = "import fewshot.cli, contextlib\nwith contextlib.suppress(SystemExit): fewshot.cli.main(['--help'])\n"
    assert seconds(f"exec({code!r})") < 0.3
