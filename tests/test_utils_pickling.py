import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import fewshot.utils.pickling
from fewshot import Embedder, digits
from fewshot.utils.pickling import VersionedPickle

EMBEDDER = Embedder("conv4", weights="random", img_size=28)


class Thing(VersionedPickle, BaseEstimator):
    def __init__(self):
        self.value = 3


def test_a_copy_is_the_same_and_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vars(pickle.loads(pickle.dumps(Thing()))) == {"value": 3}


def test_a_pickle_of_another_version_is_read_with_a_warning(monkeypatch):
    data = pickle.dumps(Thing())
    monkeypatch.setattr(fewshot.utils.pickling, "__version__", "9.9")
    with pytest.warns(UserWarning, match=r"this Thing was pickled by fewshot .* and is read by 9\.9"):
        assert pickle.loads(data).value == 3


def test_one_without_a_version_too():
    with pytest.warns(UserWarning, match="pickled by fewshot unknown"):
        Thing().__setstate__({"value": 4})


def test_an_embedder_of_an_older_version_has_the_defaults_of_newer_parameters():
    state = EMBEDDER.__getstate__()
    del state["bits"], state["max_pixels"]
    old = Embedder.__new__(Embedder)
    old.__setstate__(state)
    assert old.get_params() == EMBEDDER.get_params()
    np.testing.assert_array_equal(old.transform(digits().images[:2]), EMBEDDER.transform(digits().images[:2]))
