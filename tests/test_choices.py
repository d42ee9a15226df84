"""Options that take one of a few strings: what is checked, what is typed and what is documented are one set."""

import contextlib
import importlib
import inspect
import pkgutil
import re
import typing

import pytest

import fewshot
from fewshot.data.crop import AUTO, CROP_NAMES, CROPS
from fewshot.data.glyphs import SPLITS, GlyphSplit
from fewshot.data.preprocess import SALIENT
from fewshot.embedding.embedder import POOLS
from fewshot.images.suggesting.suggest import STRATEGIES, StrategyName
from fewshot.integrations.label_formats import WRITERS, LabelFormat, write_labels

#: A parameter of a few strings in a docstring: ``name : {"a", "b"}``, also over several lines.
DOCUMENTED = re.compile(r"^ *([a-z_]+(?:, [a-z_]+)*) : (?:tuple of )?\{([^}]*)\}", re.MULTILINE)
MODULES = [m.name for m in pkgutil.walk_packages(fewshot.__path__, "fewshot.") if "__main__" not in m.name]


def strings(kind):
    """Return all strings of the `Literal` types in a type."""
    if typing.get_origin(kind) is typing.Literal:
        return {value for value in typing.get_args(kind) if isinstance(value, str)}
    return {value for part in typing.get_args(kind) for value in strings(part)}


def documented(thing):
    """Yield each parameter that a docstring says to be one of a few strings, with these."""
    for names, values in DOCUMENTED.findall(inspect.getdoc(thing) or ""):
        for name in names.split(", "):
            yield name, set(re.findall(r'"([^"]+)"', values))


def hints_of(thing):
    """Return the types of annotations, without those of names that are imported for type checkers alone."""
    owners = (
        [thing]
        if inspect.isfunction(thing)
        else [own for c in reversed(thing.__mro__) for own in (c, vars(c).get("__init__"))]
    )
    found = {}
    for owner in owners:
        names = (
            vars(importlib.import_module(owner.__module__))
            if inspect.isclass(owner)
            else getattr(owner, "__globals__", {})
        )
        for name, written in getattr(owner, "__annotations__", {}).items():
            with contextlib.suppress(NameError):
                found[name] = eval(written, names) if isinstance(written, str) else written
    return found


def callables():
    """Yield each public class, method and function of the package, with the types of its parameters."""
    for thing in (*(getattr(fewshot, name) for name in fewshot.__all__), write_labels):
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield thing.__qualname__, thing, hints_of(thing)
        for name, own in vars(thing).items() if inspect.isclass(thing) else ():
            own = own.__func__ if isinstance(own, classmethod | staticmethod) else own
            if inspect.isfunction(own) and not name.startswith("_"):
                yield own.__qualname__, own, hints_of(own)


CASES = [(where, name, values, hints) for where, thing, hints in callables() for name, values in documented(thing)]


@pytest.mark.parametrize(
    ("name", "values", "hints"), [case[1:] for case in CASES], ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_a_parameter_of_a_few_strings_is_typed_as_it_is_documented(name, values, hints):
    assert name in hints
    assert strings(hints[name]) == values


def test_there_are_such_parameters():
    """Else the pattern above has missed them."""
    assert {"metric", "index", "on_error", "strategy", "quantize", "query_classes", "executor"} <= {c[1] for c in CASES}
    assert len(CASES) > 40


def test_a_public_parameter_that_is_checked_by_name_is_no_plain_string():
    """`metric` and its like are nowhere `str` among the public names."""
    wanted = {name for _, name, _, _ in CASES} - {"split"}  # of a table or a folder, splits have any name
    for where, _, hints in callables():
        assert not [name for name in wanted & hints.keys() if hints[name] is str], where


@pytest.mark.parametrize(
    ("alias", "known"),
    [(StrategyName, STRATEGIES), (LabelFormat, WRITERS), (GlyphSplit, SPLITS)],
)
def test_a_table_has_a_row_of_each_name(alias, known):
    assert typing.get_args(alias) == tuple(known)


def test_crops_and_pools_are_those_of_preprocessing():
    assert set(CROP_NAMES) == {AUTO, *CROPS}
    assert set(POOLS) == {AUTO, SALIENT}


@pytest.mark.parametrize("module", MODULES)
def test_no_set_of_names_is_written_twice_in_a_module(module):
    """An alias beside a tuple of the same strings would drift apart: `typing.get_args` makes one of the other."""
    found = vars(importlib.import_module(module))
    source = inspect.getsource(importlib.import_module(module))
    for name, alias in found.items():
        if typing.get_origin(alias) is typing.Literal and len(typing.get_args(alias)) > 1:
            written = ", ".join(f'"{value}"' for value in typing.get_args(alias))
            assert source.count(f"({written})") == 0, name
