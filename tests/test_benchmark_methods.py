"""Learners of a grid: their code is digested, and invalid ones are refused."""

import importlib.util
import sys

import pytest

from fewshot import PrototypicalLearner
from fewshot.benchmark.grid_file import Backbone, LearnerSpec
from fewshot.benchmark.methods import code_of, describe_method, make_learner, script_class
from fewshot.learners import registry
from fewshot.learners.registry import learner_class, list_learners

PIXELS = Backbone("pixels")
BASE = """
from fewshot import PrototypicalLearner

class Base(PrototypicalLearner):
    strength = 1
"""
MINE = """
from base_of_mine import Base

class Mine(Base):
    pass
"""


def imported(monkeypatch, path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_a_change_of_a_learner_or_of_what_it_inherits_from_is_noticed(tmp_path, monkeypatch):
    def code(base=BASE, mine=MINE):
        imported(monkeypatch, tmp_path / "base_of_mine.py", base)
        return code_of(imported(monkeypatch, tmp_path / "mine.py", mine).Mine)

    before = code()
    assert code() == before
    assert code(mine=MINE + "    other = 2\n") != before
    assert code(base=BASE + "    other = 2\n") != before


def test_a_class_from_a_notebook_never_counts_as_unchanged():
    space = {"PrototypicalLearner": PrototypicalLearner, "__name__": "cell"}
    exec("class Mine(PrototypicalLearner): pass", space)
    assert code_of(space["Mine"]) != code_of(space["Mine"])
    assert code_of(PrototypicalLearner) == code_of(PrototypicalLearner)


def test_only_a_class_of_the_running_script_is_sent_with_its_units(monkeypatch):
    assert (
        script_class(LearnerSpec("prototypical"))
        is script_class(LearnerSpec("own"))
        is script_class(LearnerSpec("linear-probe"))
        is None
    )
    monkeypatch.setattr(PrototypicalLearner, "__module__", "__main__")
    assert script_class(LearnerSpec("prototypical")) is PrototypicalLearner


def test_an_untrained_learned_learner_is_refused_also_with_a_given_size():
    for params in ({}, {"d": 784}):
        with pytest.raises(ValueError, match=r"'feat.*must be trained first; take 'own'"):
            make_learner(LearnerSpec("feat", params=params), PIXELS, None)


def test_a_misspelled_parameter_is_named_with_the_one_that_was_meant():
    message = "no parameter of the learner 'matching' is called 'temprature'; did you mean 'temperature'"
    with pytest.raises(ValueError, match=message):
        make_learner(LearnerSpec("matching", params={"temprature": 0.5}), PIXELS, None)


def test_a_description_has_every_parameter():
    found = describe_method(LearnerSpec("matching", params={"temperature": 0.5}), PIXELS)
    assert found["params"]["temperature"] == 0.5
    assert {"metric", "learn_temperature"} <= found["params"].keys()
    with pytest.raises(ValueError, match="'strength'"):
        describe_method(LearnerSpec("linear-probe", params={"strength": 2}), PIXELS)


def test_a_change_of_a_module_beside_a_plug_in_is_noticed(tmp_path, monkeypatch):
    list_learners()  # has found the built-in ones, which stay
    monkeypatch.setattr(registry, "_LEARNERS", dict(registry._LEARNERS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(registry.PLUGINS, "")
    (tmp_path / "factor_of_mine.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "mine.py").write_text(
        "from factor_of_mine import FACTOR\nfrom fewshot import PrototypicalLearner, register_learner\n\n"
        "@register_learner('with a factor')\nclass Mine(PrototypicalLearner):\n"
        "    def transform(self, x):\n        return super().transform(FACTOR * x)\n"
    )
    registry.add_plugin(str(tmp_path / "mine.py"))  # finds what lies beside it, as a script does
    before = code_of(learner_class("with a factor"))
    assert code_of(learner_class("with a factor")) == before
    (tmp_path / "factor_of_mine.py").write_text("FACTOR = -1.0\n")
    assert code_of(learner_class("with a factor")) != before
