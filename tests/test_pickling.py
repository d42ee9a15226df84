import pickle
import warnings

import pytest

import fewshot.pickling
from fewshot.pickling import VersionedPickle


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
