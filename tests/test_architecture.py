"""The house: folder = floor, no circles, short files. CONTRIBUTING.md draws it."""

import ast
import functools
import io
import re
import subprocess
import sys
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fewshot"
#: From the lowest floor to the highest: a room imports only from lower floors.
FLOORS = [
    {"errors", "_version"},
    {"utils"},
    {"persistence"},
    {"data", "report", "search"},
    {"learners", "runtime"},
    {"embedding"},
    {"episodes"},
    {"classifiers", "training"},
    {"images"},
    {"benchmark", "displays", "retrieval", "testing"},
    {"integrations", "serve"},
    {"cli"},
    {"__main__"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


NAMES = {name_of(path) for path in MODULES} - {""}


def floor_of(name):
    return next(number for number, floor in enumerate(FLOORS) if name.partition(".")[0] in floor)


@functools.cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path):
    """Modules of the package that `path` imports: at its top, inside functions and for types."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module, names = node.module or "", [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name.removeprefix("fewshot.") in NAMES else module for name in names]
        else:
            continue
        yield from {name.removeprefix("fewshot.") for name in found if name.startswith("fewshot.")}


def test_every_room_has_a_floor_and_no_file_stands_beside_the_rooms():
    there = {entry.stem for entry in PACKAGE.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").exists()}
    assert there - {"__init__"} == set().union(*FLOORS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "_version", "errors"}


def test_a_module_imports_only_from_its_own_room_and_lower_floors():
    wrong = []
    for name, path in ((name_of(path), path) for path in MODULES if path != PACKAGE / "__init__.py"):
        for target in imports(path):
            same_room = name.partition(".")[0] == target.partition(".")[0]
            if not same_room and floor_of(target) >= floor_of(name):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_no_modules_import_each_other_in_a_circle():
    """Also not inside functions or for types: `prepare` raises CycleError, which names them."""
    TopologicalSorter({name_of(path): set(imports(path)) - {name_of(path)} for path in MODULES}).prepare()


def test_no_class_declares_what_another_class_must_have():
    """A mixin that declares its host is a class cut in two."""
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                tests = [ast.unparse(child.test) for child in node.body if isinstance(child, ast.If)]
                assert "TYPE_CHECKING" not in tests, f"{node.name} in line {node.lineno} of {path}"


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


def test_a_file_is_short():
    """A file of 300 lines in all has no more of code, and need not be read."""
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in MODULES}
    assert not [name for name, text in texts.items() if text.count("\n") > 300 and code_lines(text) > 300]


def test_docstrings_comments_and_blanks_are_no_code():
    assert code_lines('"""Two\nlines."""\n\n# why\nx = (\n    1,\n)\n') == 3


def test_row_72_nothing_is_unpickled_or_executed():
    forbidden = r"pickle\.load|joblib\.load|weights_only=False|allow_pickle=True|(?<![\w.])(eval|exec)\("
    for path in MODULES:
        if name_of(path) == "utils.carried":  # reads what is part of a pickle that the user is reading
            continue
        assert not re.search(forbidden, path.read_text(encoding="utf-8")), path


def test_each_module_has_a_test_file():
    tests = {p.stem.removeprefix("test_") for p in Path(__file__).parent.glob("test_*.py")}
    run_by_others = {"_version", "__main__"}
    for path in MODULES:
        name = name_of(path)
        if path.name != "__init__.py" and name not in run_by_others:
            names = [part.replace(".", "_") for part in (name, name.rpartition(".")[0], name.partition(".")[0])]
            assert tests & set(names), f"{name} has no test file"


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
