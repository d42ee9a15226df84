"""The model behind a classifier is replaced as a whole, and never changed."""

import threading
import time

import numpy as np
import pytest

from fewshot import Learner, MatchingClassifier, PrototypicalClassifier

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
def test_row_78_a_reader_sees_the_old_model_or_the_new_one(index):
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


@pytest.mark.slow
@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_row_78_four_readers_and_one_writer_for_half_a_minute(index):
    """Classes come, change, are renamed, removed and merged; every answer is one that some whole model gives."""
    rng = np.random.default_rng(0)
    centres = 100 * rng.normal(size=(12, 8))
    model = PrototypicalClassifier(index=index).fit(centres[:2], ["a0", "a1"])
    queries, failures, stop, answered = centres[:2] + rng.normal(size=(2, 8)), [], threading.Event(), [0]

    def read():
        while not stop.is_set():
            answer, proba = model.predict(queries).tolist(), model.predict_proba(queries)
            labels, similarities = model.nearest(queries, 2)
            answered[0] += 1
            whole = answer in (["a0", "a1"], ["renamed", "a1"]) and (np.diff(similarities) <= 0).all()
            if not whole or not np.allclose(proba.sum(1), 1) or labels[1, 0] != "a1":
                failures.append((answer, proba, labels))

    def write():
        other = PrototypicalClassifier().fit(centres[10:], ["m0", "m1"])
        while not stop.is_set():
            for i in range(2, 10):
                model.partial_fit(centres[i : i + 1], [f"b{i}"])
            model.merge(other).rename_class("a0", "renamed").rename_class("renamed", "a0")
            model.remove(centres[2:6], [f"b{i}" for i in range(2, 6)])
            for label in ("b6", "b7", "b8", "b9", "m0", "m1"):
                model.remove_class(label)

    threads = [threading.Thread(target=work) for work in (read, read, read, read, write)]
    for thread in threads:
        thread.start()
    time.sleep(30)  # for each of two kinds of index: a minute
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert answered[0] > 100
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("kind", [PrototypicalClassifier, MatchingClassifier])
def test_row_30_support_is_learned_a_part_at_a_time(kind, monkeypatch):
    """What is added to sums needs no second copy of all support in double precision."""
    x, y = RNG.normal(size=(300, 6)), RNG.integers(0, 5, 300)
    whole = kind().fit(x, y)
    monkeypatch.setattr("fewshot.classifiers.summary.CHUNK_BYTES", 6 * 8 * 7)
    sizes, learn = [], Learner.learn
    monkeypatch.setattr(Learner, "learn", lambda self, x, *rest: sizes.append(len(x)) or learn(self, x, *rest))
    parts = kind().fit(x, y)
    assert max(sizes) == 7
    np.testing.assert_allclose(parts.decision_function(x), whole.decision_function(x), rtol=1e-9)


def test_row_30_answers_that_do_not_fit_in_memory_are_refused_with_the_numbers(monkeypatch):
    model = PrototypicalClassifier().fit(np.eye(3), [0, 1, 2])
    monkeypatch.setattr("fewshot.utils.heap.available_memory", lambda: 1000.0)
    monkeypatch.setattr("fewshot.utils.heap.ALWAYS_FITS", 100)
    with pytest.raises(MemoryError, match=r"100 x 3 logits, .* take 0\.0 GB, and 0\.0 GB of memory are free; pass"):
        model.predict_proba(np.zeros((100, 3)))
    assert model.predict(np.zeros((100, 3))).shape == (100,)


@pytest.fixture
def full(monkeypatch):
    """A machine with 1000 bytes of memory."""
    monkeypatch.setattr("fewshot.utils.heap.available_memory", lambda: 1000.0)
    monkeypatch.setattr("fewshot.utils.heap.ALWAYS_FITS", 100)


def test_what_would_not_fit_in_memory_is_not_begun_to_be_learned(full, monkeypatch):
    monkeypatch.setattr(Learner, "learn", lambda *_: pytest.fail("it has begun"))
    x, y = np.ones((30, 3)), np.arange(30) % 20
    with pytest.raises(MemoryError, match=r"prototypical keeps of 90 x 9 embeddings of at most 20 classes take"):
        PrototypicalClassifier().fit(np.ones((90, 9)), np.arange(90) % 20)
    with pytest.raises(MemoryError, match=r"matching keeps of 30 x 3 .* free; give fewer or shorter ones, or take a"):
        MatchingClassifier().fit(x, y)


def test_what_would_not_fit_in_memory_is_not_begun_to_be_merged_or_grown(monkeypatch, request):
    one, other = (MatchingClassifier().fit(np.ones((20, 3)), np.arange(20) % 4 + shift) for shift in (0, 9))
    request.getfixturevalue("full")
    with pytest.raises(MemoryError, match=r"keeps of 40 x 3 embeddings of at most 8 classes"):
        one.merge(other)
    with pytest.raises(MemoryError, match=r"keeps of 21 x 3 embeddings of at most 5 classes"):
        one.partial_fit(np.ones((1, 3)), [0])
    assert one.n_support_.sum() == 20
