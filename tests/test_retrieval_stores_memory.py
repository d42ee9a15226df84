import uuid

import numpy as np
import pytest

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.classifiers.methods import (
    KNearestClassifier,
    KNearestLearner,
    MatchingClassifier,
    MatchingLearner,
    PrototypicalClassifier,
    PrototypicalLearner,
)
from fewshot.learners.feat import FEATLearner
from fewshot.learners.lifelong import LifelongLearner
from fewshot.learners.simpleshot import SimpleShotLearner
from fewshot.retrieval.stores.faiss import FaissStore
from fewshot.retrieval.stores.memory import StoredMemory
from fewshot.retrieval.stores.pgvector import PgVectorStore
from fewshot.retrieval.stores.qdrant import QdrantStore
from fewshot.retrieval.stores.records import Record
from fewshot.search.similarity import METRICS
from tests.postgres import postgres, table  # noqa: F401


def data(n=60, d=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), np.array(["owl", "cat", "dog"])[rng.integers(0, 3, n)]


def fill(store, X, y):
    store.add(Record(f"{i:03d}", x, label) for i, (x, label) in enumerate(zip(X, y.tolist(), strict=True)))
    return store


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", ["matching", "k-nearest", "prototypical"])
def test_answers_through_all_stores_are_those_of_the_estimator(postgres, metric, method):  # noqa: F811
    (X, y), (queries, _) = data(), data(20, seed=1)
    if method == "matching":
        learner, estimator = MatchingLearner(metric), MatchingClassifier(metric)
    elif method == "k-nearest":
        learner, estimator = KNearestLearner(7, metric), KNearestClassifier(7, metric)
    else:
        learner, estimator = PrototypicalLearner(metric), PrototypicalClassifier(metric, 1.0)
        X, y = np.stack([X[y == label].mean(0) for label in np.unique(y)]), np.unique(y)
    estimator.fit(X, y)
    stores = [
        FaissStore(metric, "f", 4),
        PgVectorStore(postgres, f"t{uuid.uuid4().hex}", metric, "f", 4),
        QdrantStore(":memory:", "c", metric, "f", 4),
    ]
    answers = []
    for store in stores:
        memory = StoredMemory(fill(store, X, y), learner)
        assert memory.classes_.tolist() == estimator.classes_.tolist()
        assert memory.predict(queries).tolist() == estimator.predict(queries).tolist()
        answers.append(memory.predict_proba(queries))
        assert answers[-1] == pytest.approx(estimator.predict_proba(queries), abs=2e-5)
        store.close()
    assert (answers[0] == answers[1]).all()
    assert (answers[0] == answers[2]).all()


def test_as_many_records_are_asked_for_as_the_learner_counts():
    store = FaissStore("cosine", "f", 2)
    with pytest.raises(ValueError, match="k is 2, and KNearestLearner counts 3 neighbours; give k=3 or more"):
        StoredMemory(store, KNearestLearner(3), k=2)


def test_only_the_nearest_are_read():
    X, y = np.float32([[0, 0], [1, 0], [9, 0]]), np.array([2, 2, 5])
    memory = StoredMemory(fill(FaissStore("sqeuclidean", "f", 2), X, y), MatchingLearner("sqeuclidean", 1.0), k=2)
    assert memory.predict_proba([[0, 0]]).tolist() == [[1, 0]]
    assert memory.predict([[8, 0]]).tolist() == [5]
    assert memory.predict_proba(np.empty((0, 2))).shape == (0, 2)
    assert memory.predict(np.empty((0, 2))).shape == (0,)


def test_classes_come_and_go_with_the_records():
    store = fill(FaissStore("cosine", "f", 2), np.float32([[1, 0], [0, 1]]), np.array(["a", "b"]))
    memory = StoredMemory(store, "matching")
    store.add([Record("new", np.float32([1, 1]), "c")])
    assert memory.classes_.tolist() == ["a", "b", "c"]
    assert memory.predict([[2, 2]]).tolist() == ["c"]
    store.remove(["new"])
    assert memory.predict([[2, 1]]).tolist() == ["a"]


def test_records_are_what_the_learner_transforms_to_and_queries_are_transformed():
    (X, y), learner = data(), SimpleShotLearner()
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    prototypes = np.stack([rows[y == label].mean(0) for label in np.unique(y)])
    memory = StoredMemory(fill(FaissStore("sqeuclidean", "f", 4), prototypes, np.unique(y)), learner)
    wanted = FewShotClassifier("simpleshot").fit(X, y).predict_proba(X)
    assert memory.predict_proba(X) == pytest.approx(wanted, abs=2e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mahalanobis", "nearest keys alone"),
        ("bd-cspn", "nearest keys alone"),
        ("ridge", "keys of"),
        ("multi-prototypical", "keys of"),
        ("key-value-cache", "keys of"),
    ],
)
def test_learners_with_other_keys_are_refused(name, message):
    from fewshot.learners.registry import learner_class

    learner = learner_class(name)()
    store = FaissStore(learner.metric, "f", 4)
    with pytest.raises(ValueError, match=message):
        StoredMemory(store, learner)


@pytest.mark.parametrize(
    "learner",
    [MatchingLearner(balanced=True), MatchingLearner(centered=True), PrototypicalLearner("cosine", temperature=None)],
)
def test_what_only_all_support_can_say_is_refused(learner):
    with pytest.raises(ValueError, match="give a temperature, centered=False and balanced=False"):
        StoredMemory(FaissStore("cosine", "f", 4), learner)


def test_what_does_not_fit_is_refused():
    store = FaissStore("cosine", "f", 4)
    for learner in (FEATLearner(), LifelongLearner()):
        with pytest.raises(ValueError, match="nearest keys alone"):
            StoredMemory(store, learner)
    with pytest.raises(ValueError, match="give the same metric"):
        StoredMemory(store, MatchingLearner("dot"))
    with pytest.raises(ValueError, match="k is 0"):
        StoredMemory(store, MatchingLearner(), k=0)
    memory = StoredMemory(store, "matching")
    with pytest.raises(ValueError, match="store is empty"):
        memory.predict(np.ones((1, 4)))
    store.add([Record("a", np.ones(4, np.float32))])
    with pytest.raises((ValueError, TypeError)):
        memory.predict(np.ones((1, 4)))  # a record without a label
    store.add([Record("b", np.ones(4, np.float32), "x"), Record("c", np.ones(4, np.float32), 3)])
    store.remove(["a"])
    with pytest.raises(TypeError):
        memory.predict(np.ones((1, 4)))  # labels of two types
    with pytest.raises(ValueError, match="shape"):
        memory.predict(np.ones((1, 5)))


def test_a_class_that_goes_between_search_and_answer_is_asked_for_again():
    X, y = data()

    class Going(FaissStore):
        gone = False

        def search(self, *args, **kwargs):
            found = super().search(*args, **kwargs)
            if not self.gone:
                self.gone = True
                self.remove([f"{i:03d}" for i in np.flatnonzero(y == "owl")])
            return found

    store = fill(Going("cosine", "f", 4), X, y)
    memory = StoredMemory(store, MatchingLearner("cosine"), k=1)
    shares = memory.predict_proba(X[y == "owl"])
    np.testing.assert_allclose(shares.sum(1), 1)
    assert memory.classes_.tolist() == ["cat", "dog"]
