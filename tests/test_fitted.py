"""The model behind a classifier is replaced as a whole, and never changed."""

import threading

import numpy as np
import pytest

from fewshot import PrototypicalClassifier

RNG = np.random.default_rng(0)


def test_learning_makes_a_new_model_and_leaves_the_old_one():
    model = PrototypicalClassifier().fit([[0.0], [4.0]], ["a", "b"])
    old = model.model_
    before = old.nearest(np.array([[3.0]]), 2)
    model.partial_fit([[3.0]], ["c"])
    assert old is not model.model_
    assert old.classes.tolist() == ["a", "b"]
    np.testing.assert_array_equal(old.nearest(np.array([[3.0]]), 2)[1], before[1])
    assert model.predict([[3.0]]).tolist() == ["c"]


def test_nearest_of_a_model_checks_k():
    model = PrototypicalClassifier().fit([[0.0], [4.0]], ["a", "b"]).model_
    with pytest.raises(ValueError, match="k is 3; expected an integer from 1 to 2"):
        model.nearest(np.array([[3.0]]), 3)


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_a_reader_sees_the_old_model_or_the_new_one(index):
    """One writer adds classes far away while readers ask about the first two: no answer is ever torn."""
    model = PrototypicalClassifier(index=index).fit(np.array([[0.0], [10.0]]), [0, 1])
    queries, failures, stop = np.array([[1.0], [9.0]]), [], threading.Event()

    def read():
        while not stop.is_set():
            answer, proba = model.predict(queries), model.predict_proba(queries)
            if answer.tolist() != [0, 1] or not np.allclose(proba.sum(1), 1):
                failures.append((answer, proba))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(2, 120):
        model.partial_fit([[1e4 + i]], [i])
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert len(model.classes_) == 120
