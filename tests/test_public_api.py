"""Every public name is there, documented, and its example runs."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import fewshot

MODULES = [m.name for m in pkgutil.walk_packages(fewshot.__path__, "fewshot.") if "__main__" not in m.name]


@pytest.mark.parametrize("name", fewshot.__all__)
def test_a_public_name_is_importable_and_documented(name):
    value = getattr(fewshot, name)
    assert name in dir(fewshot)
    if name != "__version__":
        assert len(inspect.getdoc(value).splitlines()) > 3


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Prototypical'"):
        _ = fewshot.Prototypical


def test_the_names_for_type_checkers_are_the_names_at_run_time():
    """The block under TYPE_CHECKING and the table that loads lazily must not drift apart."""
    source = inspect.getsource(fewshot).split("if TYPE_CHECKING:")[1].split("_HOME")[0]
    imports = [line.split(" import ")[1] for line in source.splitlines() if " import " in line]
    typed = {name.split(" as ")[1].strip() for line in imports for name in line.split(",")}
    assert typed == set(fewshot.__all__) - {"__version__"}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    from fewshot.learners import registry

    registry.list_learners()  # those of the package stay; what an example registers goes
    learners = dict(registry._LEARNERS)
    try:
        module = importlib.import_module(name)
        failed, _ = doctest.testmod(module, extraglobs={}, optionflags=doctest.NORMALIZE_WHITESPACE)
    finally:
        registry._LEARNERS.clear()
        registry._LEARNERS.update(learners)
    assert not failed


def test_the_module_runs_as_a_command():
    run = subprocess.run([sys.executable, "-m", "fewshot", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"fewshot {fewshot.__version__}"
