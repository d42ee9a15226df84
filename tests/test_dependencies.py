"""Whatever is imported, at any depth, is declared in setup.cfg."""

import ast
import configparser
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.lowest import constraints

ROOT = Path(__file__).parents[1]
SCRIPTS = [path for folder in ("benchmarks", "data_prep", "examples") for path in (ROOT / folder).glob("*.py")]
OWN = {"fewshot", "tests", *(path.stem for path in SCRIPTS)}
#: Modules that come with another package than one of their name.
MODULES = {
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "haystack": "haystack-ai",
    "pillow_heif": "pillow-heif",
    "skimage": "scikit-image",
}
#: What a declared package is known to bring.
BROUGHT = {"pydantic": "langchain-core", "anyio": "fastapi", "grpc": "qdrant-client"}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared():
    """Return the packages that are always installed, and those of each extra but the tests' own."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {k: v for k, v in setup["options.extras_require"].items() if k != "test"}

    def names(text):
        return {canonical(re.match(r"[\w.-]+", line)[0]) for line in text.splitlines() if line}

    return names(setup["options"]["install_requires"]), set().union(*map(names, extras.values()))


def imported(path):
    """Yield the modules that a file imports: lazily, in functions and by name too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            by_name = re.search(r"\b(import_module|find_spec|importorskip|__import__)$", ast.unparse(node.func))
            yield from [str(node.args[0].value)] if by_name else []


#: The packages that are installed, by module; reading them takes a second.
distributions = cache(packages_distributions)


def package_of(module):
    if module in BROUGHT:
        return BROUGHT[module]
    return canonical(MODULES.get(module) or distributions().get(module, [module])[0])


@pytest.mark.parametrize(("folder", "least"), [("fewshot", 15), ("benchmarks", 5), ("examples", 8)])
def test_all_that_is_imported_is_declared(folder, least):
    always, extras = declared()
    modules = {name.split(".")[0] for path in (ROOT / folder).rglob("*.py") for name in imported(path)}
    packages = {package_of(module) for module in modules - OWN - set(sys.stdlib_module_names)}
    assert packages <= always | extras, f"not in setup.cfg: {sorted(packages - always - extras)}"
    assert len(packages) >= least


def test_what_a_user_always_needs_is_always_installed():
    always, _ = declared()
    modules = {name.split(".")[0] for path in (ROOT / "fewshot").rglob("*.py") for name in imported(path)}
    needed_by_timm = {"torchvision"}
    assert always - needed_by_timm <= {package_of(module) for module in modules}, "declared, and imported nowhere"


def test_each_dependency_has_a_lowest_version():
    bounded = {canonical(line.partition("==")[0]) for line in constraints() if "==" in line}
    assert declared()[0] <= bounded
