"""Names that were registered by hand travel with what is pickled, to processes that do not know them."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import types

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

from fewshot import (
    Embedder,
    FewShotClassifier,
    FewShotImageClassifier,
    FewShotModel,
    MetaTrainer,
    PrototypicalLearner,
    TransductiveClassifier,
    digits,
    register_backbone,
    register_learner,
)
from fewshot.embedding.backbones import registered
from fewshot.errors import UnknownNameError
from fewshot.learners import registry
from fewshot.learners.soft_k_means import SoftKMeansLearner
from fewshot.utils import carried
from fewshot.utils.carried import Carried, all_carried, know

DATA = digits()[:120]
X = DATA.images.reshape(len(DATA), -1) / 255
SCRIPT = """
from torch import nn
from sklearn.model_selection import cross_val_score
from fewshot import FewShotClassifier, FewShotImageClassifier, PrototypicalLearner
from fewshot import digits, register_backbone, register_learner, run_benchmark

WIDTH = 6


@register_learner("mymine", "mm")
class Mine(PrototypicalLearner):
    def __init__(self):
        super().__init__("cosine", 0.1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3)

    def forward(self, x):
        return self.conv(x).relu().mean((2, 3))


if __name__ == "__main__":
    register_backbone("mine", Net, mean=0.2, std=0.3, size=28, channels=1)
    data = digits()[:120]
    X = data.images.reshape(len(data), -1) / 255
    for estimator, x in (
        (FewShotClassifier("mymine"), X),
        (FewShotImageClassifier("mine", "mm", progress=False), data.images),
    ):
        how = {"cv": 2, "error_score": "raise"}
        found = cross_val_score(estimator, x, data.labels, n_jobs=2, **how)
        print((found == cross_val_score(estimator, x, data.labels, **how)).all())
    grid = {
        "datasets": [{"source": "digits"}], "backbones": [{"backbone": "mine"}], "n_shot": [1, 5], "n_episodes": 10,
        "learners": [{"learner": "prototypical"}, {"learner": "mm"}],
    }
    frame = run_benchmark(grid, executor="joblib", jobs=2, progress=False)
    print(frame["error"].tolist() == [""] * 4)
"""


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Nothing stays registered."""
    FewShotClassifier("prototypical").fit([[0.0], [1.0]], [0, 1])  # has found the built-in learners
    monkeypatch.setattr(registry, "_LEARNERS", dict(registry._LEARNERS))
    monkeypatch.setattr(registry, "_ALIASES", dict(registry._ALIASES))
    monkeypatch.setattr(registered, "_REGISTERED", {})
    monkeypatch.setattr(Carried, "_arrived", {})


def small(width=6):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, width, 3)

        def forward(self, x):
            return self.conv(x).relu().mean((2, 3))

    register_backbone("mine", Small, mean=0.2, std=0.3, size=28, channels=1)
    return Small


def mine(shift=0.0, base=PrototypicalLearner):
    @register_learner("mymine", "mm")
    class Mine(base):
        moved = shift

        def transform(self, x):
            return super().transform(x) * (1 - self.moved)

    return Mine


def forget():
    """Be a process that knows nothing."""
    registered._REGISTERED.clear()
    registry._LEARNERS.pop("mymine", None)
    registry._ALIASES.pop("mm", None)
    Carried._arrived.clear()


@pytest.mark.slow
def test_a_script_with_names_of_its_own_uses_several_processes_also_for_a_grid(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["True", "True", "True"], run.stderr


@pytest.mark.slow
def test_workers_know_what_was_registered_and_what_has_taken_its_place():
    """The workers of a notebook stay when a cell is run again."""
    how = {"cv": 2, "error_score": "raise"}
    small()
    for shift in (0.0, 1.0):
        mine(shift)
        found = cross_val_score(FewShotClassifier("mm"), X, DATA.labels, n_jobs=2, **how)
        np.testing.assert_array_equal(found, cross_val_score(FewShotClassifier("mm"), X, DATA.labels, **how))
        assert (found.min() > 0.5) == (shift == 0)  # with 1, all embeddings are equal
    for width in (6, 1):
        small(width)
        pipeline = make_pipeline(Embedder("mine"), LogisticRegression())
        found = cross_val_score(pipeline, DATA.images, DATA.labels, n_jobs=2, **how)
        np.testing.assert_array_equal(found, cross_val_score(pipeline, DATA.images, DATA.labels, **how))


def shape_of(images):
    FewShotClassifier("mm").fit(X, DATA.labels)
    return Embedder("mine").transform(images).shape


def test_a_process_is_told_all_that_was_registered_by_hand():
    small(), mine()
    data = all_carried()
    assert data == all_carried()  # so that workers are kept
    forget()
    know(data)
    assert shape_of(DATA.images[:2]) == (2, 6)
    forget()
    assert b"mymine" not in all_carried()


@pytest.mark.parametrize(
    "make",
    [
        lambda: FewShotClassifier("mymine"),
        lambda: FewShotClassifier("mm"),
        lambda: FewShotModel(Embedder("mine"), "mymine"),
        lambda: FewShotImageClassifier("mine", "mm"),
        lambda: FewShotImageClassifier(Embedder("mine"), "mm"),
        lambda: make_pipeline(Embedder("mine"), FewShotClassifier("mm")),
        lambda: MetaTrainer("mine", "mymine"),
    ],
)
def test_whatever_holds_a_name_is_pickled_with_what_it_stands_for(make, tmp_path):
    small(), mine()
    holder = make()
    data = joblib.wrap_non_picklable_objects(holder, keep_wrapper=False)
    joblib.dump(data, tmp_path / "holder")
    forget()
    read = joblib.load(tmp_path / "holder")
    if not isinstance(read, FewShotClassifier):
        assert Embedder("mine").transform(DATA.images[:2]).shape == (2, 6)
    if not isinstance(read, MetaTrainer):  # which holds the learner itself
        assert FewShotClassifier("mm").fit(X, DATA.labels).predict(X[:1]).shape == (1,)
        assert FewShotClassifier("mymine").get_params() == {**FewShotClassifier().get_params(), "learner": "mymine"}
    assert "_carried" not in vars(read)
    assert vars(read).keys() - {"_expected"} == vars(holder).keys() - {"_expected", "_ready"}


def test_a_transductive_classifier_brings_its_learner_along():
    mine(base=SoftKMeansLearner)
    data = pickle.dumps(TransductiveClassifier("mymine"))
    forget()
    assert pickle.loads(data).fit(X, DATA.labels).predict(X).shape == (120,)


def test_what_is_known_by_hand_is_never_replaced_and_what_a_pickle_has_brought_is():
    small(6), mine()
    first = pickle.dumps(FewShotImageClassifier("mine", "mymine"))
    small(9), mine()
    second = pickle.dumps(FewShotImageClassifier("mine", "mymine"))
    forget()
    widths = []
    for data in (first, second, second):
        model = pickle.loads(data)
        widths.append(model.make_embedder().transform(DATA.images[:1]).shape[1])
    assert widths == [6, 9, 9]
    assert registered._REGISTERED["mine"].number == 2  # the third is as the second
    own, learner = small(4), mine()
    pickle.loads(first)
    assert registered._REGISTERED["mine"].factory is own
    assert registry.learner_class("mm") is learner


@pytest.mark.parametrize("of", [pickle.dumps, copy.deepcopy, clone])
def test_what_cannot_be_pickled_is_found_by_its_name_as_before(of):
    with torch.random.fork_rng():
        lock, network = threading.Lock(), small()()
    register_backbone("mine", lambda: network if lock else None, mean=0.2, std=0.3, size=28, channels=1)
    model = FewShotImageClassifier("mine", progress=False).fit(DATA)
    made = of(model)
    again = pickle.loads(made) if of is pickle.dumps else made
    again = again.fit(DATA) if of is clone else again
    np.testing.assert_array_equal(again.predict_proba(DATA.images[:3]), model.predict_proba(DATA.images[:3]))
    if of is pickle.dumps:
        forget()
        with pytest.raises(UnknownNameError, match="no backbone is called 'mine'"):
            pickle.loads(made).predict(DATA.images[:1])


def test_copies_in_this_process_pack_nothing(monkeypatch):
    small(), mine()
    model = FewShotImageClassifier("mine", "mymine", progress=False).fit(DATA)
    monkeypatch.setattr(carried, "_packed", lambda _: pytest.fail("packed"))
    for made in (copy.copy(model), copy.deepcopy(model), clone(model)):
        assert "_carried" not in vars(made)
        assert made.get_params().keys() == model.get_params().keys()


def test_names_of_the_library_are_pickled_as_names_alone():
    small(), mine()
    for holder in (Embedder("conv4", weights="random"), FewShotClassifier("matching"), FewShotModel(Embedder())):
        assert "_carried" not in holder.__getstate__()


def test_a_module_that_is_missing_and_another_python_are_passed_over(monkeypatch):
    module = types.ModuleType("only_here")
    exec("from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten())", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    register_backbone("mine", module.make, size=8)
    data = pickle.dumps(Embedder("mine"))
    forget()
    monkeypatch.delitem(sys.modules, "only_here")
    embedder = pickle.loads(data)
    with pytest.raises(UnknownNameError, match="no backbone is called 'mine'"):
        embedder.transform(DATA.images[:1])
    small()
    assert embedder.transform(DATA.images[:1]).shape == (1, 6)
    data = pickle.dumps(Embedder("mine"))
    forget()
    monkeypatch.setattr(carried, "_THIS_PYTHON", (4, 0))
    pickle.loads(data)
    assert not registered._REGISTERED


def test_a_module_that_registers_the_name_when_it_is_imported_is_believed(tmp_path, monkeypatch):
    (tmp_path / "registers_mine.py").write_text(
        "from fewshot import PrototypicalLearner, register_learner\n\n\n"
        '@register_learner("mymine", "mm")\nclass Mine(PrototypicalLearner):\n    pass\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import registers_mine  # ty: ignore

    data = pickle.dumps(FewShotClassifier("mm"))
    assert registers_mine.Mine.__module__ == "registers_mine"
    forget()
    monkeypatch.delitem(sys.modules, "registers_mine")
    pickle.loads(data)
    assert registry.learner_class("mm") is sys.modules["registers_mine"].Mine
    sys.modules.pop("registers_mine")


def test_saved_folders_hold_no_code(tmp_path):
    small(), mine()
    FewShotImageClassifier("mine", "mymine", progress=False).fit(DATA).save(tmp_path / "model")
    for folder, _, files in os.walk(tmp_path / "model"):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                assert b"_arrive" not in file.read()
