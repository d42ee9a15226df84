import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone

import fewshot.pickling
from fewshot import Embedder, FewShotImageClassifier, digits
from fewshot.pickling import VersionedPickle

EMBEDDER = Embedder("conv4", weights="random", img_size=28)


class Thing(VersionedPickle):
    def __init__(self):
        self.value = 3


def test_a_copy_is_the_same_and_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vars(pickle.loads(pickle.dumps(Thing()))) == {"value": 3}


def test_a_pickle_of_another_version_is_read_with_a_warning(monkeypatch):
    data = pickle.dumps(Thing())
    monkeypatch.setattr(fewshot.pickling, "__version__", "9.9")
    with pytest.warns(UserWarning, match=r"this Thing was pickled by fewshot .* and is read by 9\.9"):
        assert pickle.loads(data).value == 3


def test_one_without_a_version_too():
    with pytest.warns(UserWarning, match="pickled by fewshot unknown"):
        Thing().__setstate__({"value": 4})


def as_of_an_older_version(model):
    """Return the state of a classifier of images as versions pickled it whose results were attributes."""
    results = ("embedder_", "classifier_", "support_", "classes_", "n_support_")
    gone = ("_learned", "_versions", "bits", "max_pixels")
    state = {name: value for name, value in model.__getstate__().items() if name not in gone}
    return state | {name: getattr(model, name) for name in results}


@pytest.mark.parametrize("keep_support", [True, False])
def test_an_image_classifier_of_an_older_version_answers_and_learns_as_it_did(keep_support):
    data = digits()
    model = FewShotImageClassifier(EMBEDDER, reject=0.5, keep_support=keep_support)
    model.fit(data.images[:20], data.labels[:20])
    old = FewShotImageClassifier.__new__(FewShotImageClassifier)
    old.__setstate__(as_of_an_older_version(model))
    np.testing.assert_array_equal(old.predict_proba(data.images[20:40]), model.predict_proba(data.images[20:40]))
    assert old.classes_.tolist() == model.classes_.tolist()
    assert old.n_support_.tolist() == model.n_support_.tolist()
    assert old.get_params()["bits"] is None
    assert pickle.loads(pickle.dumps(old)).classes_.tolist() == model.classes_.tolist()
    assert clone(old).partial_fit(data.images[:20], data.labels[:20]).support_ is None or keep_support
    assert old.partial_fit(data.images[20:25], data.labels[20:25]).n_support_.sum() == 25
    for one in (old, model):
        one.remove_class(3)
    assert 3 not in old.classes_
    assert old.answering().steady


def test_an_embedder_of_an_older_version_has_the_defaults_of_newer_parameters():
    state = EMBEDDER.__getstate__()
    del state["bits"], state["max_pixels"]
    old = Embedder.__new__(Embedder)
    old.__setstate__(state)
    assert old.get_params() == EMBEDDER.get_params()
    np.testing.assert_array_equal(old.transform(digits().images[:2]), EMBEDDER.transform(digits().images[:2]))
