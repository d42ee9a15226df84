import os

import pytest

from fewshot import Learner, PrototypicalLearner, list_learners, register_learner
from fewshot.learners import registry
from tests.processes import python


@pytest.fixture
def fresh(monkeypatch):
    """A registry that may be written to, and that looks for learners anew; the built-in ones stay when it goes."""
    list_learners()
    monkeypatch.setattr(registry, "_LEARNERS", dict(registry._LEARNERS))
    monkeypatch.setattr(registry, "_discovered", False)


def test_the_built_in_learners_are_found():
    assert {"matching", "prototypical"} <= set(list_learners())
    assert registry.learner_class("prototypical") is PrototypicalLearner
    assert PrototypicalLearner.name == "prototypical"


PLUG_IN = """
from fewshot import PrototypicalLearner, register_learner

@register_learner("plugged")
class Plugged(PrototypicalLearner):
    pass
"""
USE = """
from fewshot import FewShotClassifier, MetaTrainer, list_learners
assert "plugged" in list_learners(), list_learners()
print(type(MetaTrainer("conv4", "plugged").learner).__module__)
print(*FewShotClassifier("plugged").fit([[0.0], [5.0]], ["a", "b"]).predict([[4.0]]))
"""


@pytest.mark.slow
def test_an_installed_plug_in_is_found_through_its_entry_point(tmp_path):
    """A package as pip leaves it behind: a module, and metadata with an entry point."""
    (tmp_path / "a_plug_in.py").write_text(PLUG_IN)
    metadata = tmp_path / "a_plug_in-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plug-in\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fewshot.learners]\nplugged = a_plug_in\n")
    run = python(USE, path=[tmp_path])
    assert run.stdout.split() == ["a_plug_in", "b"], run.stderr


def test_a_plug_in_may_use_its_own_learner_while_it_is_imported(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        PLUG_IN + 'from fewshot import FewShotClassifier\nFewShotClassifier("plugged").fit([[0.0]], ["a"])\n'
    )
    code = "from fewshot import list_learners; assert 'plugged' in list_learners()"
    run = python(code, env={**os.environ, registry.PLUGINS: str(path)})
    assert run.returncode == 0, run.stderr


def test_a_plug_in_that_cannot_be_loaded_is_an_error_each_time(tmp_path, monkeypatch, fresh):
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.setenv(registry.PLUGINS, str(tmp_path / "broken.py"))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"broken.py cannot be loaded \(ZeroDivisionError"):
            list_learners()


def test_a_name_is_held_by_one_class(fresh):
    with pytest.raises(ValueError, match=r"name 'prototypical' is taken by .*PrototypicalLearner; choose another"):
        register_learner("prototypical")(type("Other", (Learner,), {}))


def test_a_reloaded_module_may_register_again(fresh):
    twin = type("PrototypicalLearner", (Learner,), {"__module__": PrototypicalLearner.__module__})
    assert register_learner("prototypical")(twin) is twin


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(ValueError, match="no learner is called 'protypical'; did you mean 'prototypical'"):
        registry.learner_class("protypical")


ALIASES = {
    "protonet": "prototypical",
    "matching-networks": "matching",
    "relation-net": "relation",
    "r2d2": "ridge",
    "simple-cnaps": "mahalanobis",
    "tip-adapter": "key-value-cache",
    "laplacianshot": "laplacian-shot",
    "fce": "matching-fce",
    "knn": "k-nearest",
}


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_a_learner_answers_to_the_name_of_its_paper(alias, name):
    kind = registry.learner_class(alias)
    assert kind is registry.learner_class(name)
    assert kind.name == name
    assert alias not in list_learners()


def test_aliases_are_proposed_and_are_taken_once(fresh):
    with pytest.raises(ValueError, match=r"no learner is called 'r2d3'; did you mean 'r2d2'\?"):
        registry.learner_class("r2d3")
    for name, aliases in (("r2d2", ()), ("new", ("ridge",)), ("new", ("r2d2",))):
        with pytest.raises(ValueError, match=r"is taken by .*RidgeLearner; choose another"):
            register_learner(name, *aliases)(type("Other", (Learner,), {}))
    assert "new" not in list_learners()
