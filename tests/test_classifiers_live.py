"""The model of many classes answers as the one that copies all of them at each change."""

import copy
import pickle
import threading
import warnings
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewshot import (
    CosinePrototypicalLearner,
    DiscriminantClassifier,
    FewShotClassifier,
    KNearestClassifier,
    KNearestLearner,
    MatchingClassifier,
    MatchingLearner,
    MultiPrototypicalClassifier,
    MultiPrototypicalLearner,
    PrototypicalClassifier,
    SimpleShotClassifier,
)
from fewshot.classifiers import kinds, live
from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.live import LiveModel

D, N, SHOTS = 12, 40, 3


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(kinds, "LIVE_FROM", 20)
    for name, most in (("SMALL_DELTA", 12), ("LARGE_DELTA", 12)):
        monkeypatch.setattr(f"fewshot.search.growing.{name}", most)
    for module, classes, support in (("utils.discriminant", 15, 60), ("classifiers.taught", 15, 60)):
        monkeypatch.setattr(f"fewshot.{module}.MOST_CLASSES", classes)
        monkeypatch.setattr(f"fewshot.{module}.MOST_ROWS", support)
    monkeypatch.setattr(kinds, "MOST_CLASSES", 20)
    monkeypatch.setattr(live, "MOST_DRIFT", 9)
    monkeypatch.setattr("fewshot.utils.places.MOST_CHANGES", 9)
    monkeypatch.setattr("fewshot.utils.blocks.BLOCK_BYTES", 8 * D * 4)


def rows(rng, n, offset=0.0):
    return (rng.normal(size=(n, D)) + offset).astype(np.float32)


@contextmanager
def copying():
    """Make only models that copy all classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "LIVE_FROM", 10**9)
        patch.setattr(kinds, "MOST_CLASSES", 10**9)
        yield


def pair(make, x, y):
    """Return a live classifier, and one that is not."""
    one = make().fit(x, y)
    with copying():
        other = make().fit(x, y)
    assert isinstance(one.model_, LiveModel)
    assert type(other.model_) is FittedModel
    return one, other


def both(models, change):
    """Apply a change to a live classifier, and to one that stays what it is."""
    one, other = models
    change(one)
    with copying():
        change(other)


def check_equal(models, queries):
    one, other = models
    assert one.classes_.tolist() == other.classes_.tolist()
    assert one.n_support_.tolist() == other.n_support_.tolist()
    sums = [model.model_.statistics.class_sums for model in models]
    torch.testing.assert_close(*sums, rtol=1e-12, atol=1e-9)
    assert one.predict(queries).tolist() == other.predict(queries).tolist()
    k = min(4, int((one.n_support_ > 0).sum()))
    labels, similarities = zip(*(model.nearest(queries, k) for model in models), strict=True)
    assert labels[0].tolist() == labels[1].tolist()
    np.testing.assert_allclose(*similarities, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(*(model.predict_proba(queries[:5]) for model in models), atol=1e-5)
    scores = [model.model_.classify(queries[:5])[1] for model in models]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-5)
    wide = queries.astype(np.float64)
    assert one.predict(wide).tolist() == other.predict(wide).tolist()
    np.testing.assert_allclose(*(model.decision_function(wide[:5]) for model in models), rtol=1e-8, atol=1e-7)


KINDS = {
    "distances": (lambda **how: PrototypicalClassifier(temperature=1.0, **how), 0.0),
    "far from the origin": (lambda **how: PrototypicalClassifier(temperature=1.0, **how), 1e4),
    "cosine": (lambda **how: PrototypicalClassifier("cosine", temperature=0.1, **how), 0.5),
    "simpleshot": (lambda **how: SimpleShotClassifier(**how), 0.5),
    "discriminant": (lambda **how: DiscriminantClassifier(**how), 0.5),
    "learner": (lambda **how: FewShotClassifier(CosinePrototypicalLearner(), **how), 0.5),
    "centred cosine": (lambda **how: PrototypicalClassifier("cosine", temperature=0.1, centered=True, **how), 0.5),
    "centred products": (lambda **how: PrototypicalClassifier("dot", temperature=5.0, centered=True, **how), 0.5),
    "centred distances": (lambda **how: PrototypicalClassifier(centered=True, **how), 9.0),
    "matching": (lambda **how: MatchingClassifier(**how), 0.5),
    "matching, distances": (lambda **how: MatchingClassifier("sqeuclidean", None, **how), 20.0),
    "matching, newest": (lambda **how: MatchingClassifier(max_support=2, replacement="oldest", **how), 0.5),
    "matching, sample": (lambda **how: MatchingClassifier("dot", 9.0, max_support=2, **how), 0.5),
    "k-nearest": (lambda **how: KNearestClassifier(**how), 0.5),
    "k-nearest, distances": (lambda **how: KNearestClassifier(3, "sqeuclidean", None, **how), 1e3),
    "several prototypes": (lambda **how: MultiPrototypicalClassifier(n_prototypes=2, **how), 0.5),
    "several directions": (lambda **how: MultiPrototypicalClassifier("cosine", n_prototypes=2, **how), 0.5),
}


@pytest.mark.parametrize(
    ("text", "index"),
    [
        pytest.param(False, "hnsw", id="integers-hnsw"),
        pytest.param(True, "auto", id="text-auto"),
        pytest.param(False, "auto", id="integers-auto", marks=pytest.mark.slow),
        pytest.param(True, "hnsw", id="text-hnsw", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_any_changes_give_the_same_answers(kind, text, index):
    make, offset = KINDS[kind]
    if index == "hnsw" and kind.startswith("several"):
        index = "faiss"  # a graph may miss one of many keys
    rng = np.random.default_rng(0)
    name = str if text else int
    y = np.array([name(10 * i) for i in range(N)]).repeat(SHOTS)
    x = rows(rng, N * SHOTS, offset)
    models = pair(lambda: make(index=index), x, y)
    queries = rows(rng, 30, offset)
    check_equal(models, queries)
    for step in range(40):
        known = models[0].classes_.tolist()
        what = rng.choice(["learn", "learn", "remove class", "rename", "remove", "register"])
        if what == "learn":
            labels = [
                known[rng.integers(len(known))] if rng.random() < 0.5 else name(rng.integers(1000)) for _ in "abc"
            ]
            more = rows(rng, 3, offset)
            both(models, lambda m: m.partial_fit(more, labels))  # noqa: B023
        elif what == "remove class" and len(known) > 25:
            both(models, lambda m: m.remove_class(known[3]))  # noqa: B023
        elif what == "rename":
            new = name(2000 + step) + ("é" * step if text else 0)
            both(models, lambda m: m.rename_class(known[5], new))  # noqa: B023
        elif what == "register":
            both(models, lambda m: m.partial_fit(x[:1], y[:1], classes=[name(3000 + step)]))  # noqa: B023
        elif y[SHOTS * step] in known and models[0].n_support_[known.index(y[SHOTS * step])] == SHOTS:
            gone = slice(SHOTS * step, SHOTS * step + rng.choice([1, SHOTS]))
            both(models, lambda m: m.remove(x[gone], y[gone], drop_empty=bool(step % 2)))  # noqa: B023
        if step % 4 == 3:
            check_equal(models, queries)
    assert isinstance(models[0].model_, LiveModel)
    other = PrototypicalClassifier.fit(make(), rows(rng, 4, offset), [known[0], *map(name, (71, 72, 73))])
    both(models, lambda m: m.merge(other))
    check_equal(models, queries)


@pytest.mark.parametrize("weights", [(0.0, 1.0, 2.0), (0.0, 0.3, 0.5)], ids=["whole", "fractions"])
@pytest.mark.parametrize("kind", ["matching", "k-nearest, distances", "several prototypes"])
def test_rows_have_weights(kind, weights):
    make, rng = KINDS[kind][0], np.random.default_rng(1)
    x, y = rows(rng, N * SHOTS), np.arange(N).repeat(SHOTS)
    weight = rng.choice(weights, len(x))
    weight[::SHOTS] = weights[1]
    both(models := pair(make, x, y), lambda m: m.fit(x, y, weight))
    for i in range(8):
        more, labels, shares = rows(rng, 4), rng.integers(0, 2 * N, 4), rng.choice(weights, 4)
        both(models, lambda m: m.partial_fit(more, labels, sample_weight=shares))  # noqa: B023
        both(models, lambda m: m.remove(x[SHOTS * i : SHOTS * i + 1], y[SHOTS * i : SHOTS * i + 1], weights[1:2]))  # noqa: B023
        check_equal(models, rows(rng, 20))


CHANGED_ALONE = [kind for kind in KINDS if "centred" not in kind and kind != "discriminant"]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["learn", "drop", "rename", "less", "merge"]), st.integers(0, 99)), max_size=12
)


@given(st.sampled_from(CHANGED_ALONE), CHANGES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answers_are_those_of_what_was_just_learned(kind, changes):
    """Whatever changed, a model that is loaded gives the same bits where all queries are compared with all."""
    make, offset = KINDS[kind]
    x, y = rows(np.random.default_rng(0), 3 * N, offset), np.arange(N).repeat(3)
    model, queries = make().fit(x, y), rows(np.random.default_rng(1), 6, offset)
    for what, seed in changes:
        known, more = model.classes_.tolist(), rows(np.random.default_rng(seed), 3, offset)
        if what == "learn":
            model.partial_fit(more, [known[seed % len(known)], 100 + seed, known[0]])
        elif what == "drop":
            model.remove_class(known[seed % len(known)])
        elif what == "rename" and 500 + seed not in known:
            model.rename_class(known[seed % len(known)], 500 + seed)
        elif what == "less" and (kept := model.model_.statistics.support):
            row = seed % len(kept["labels"])
            model.remove(kept["x"][row : row + 1].numpy(), [known[kept["labels"][row]]], drop_empty=seed % 2 == 0)
        elif what == "merge":
            model.merge(make().fit(more, [100 + seed, known[-1], 300]))
        model.predict(queries)
    assert isinstance(model.model_, LiveModel)
    again = make().adopt(pickle.loads(pickle.dumps(model.model_)))
    assert again.n_support_.tolist() == model.n_support_.tolist()
    check_equal([model, again], queries)
    model.steady = again.steady = True
    if model.learner_.metric != "dot":  # products have no bound
        np.testing.assert_array_equal(*(one.predict_proba(queries) for one in (model, again)))


def test_learning_a_class_clusters_no_other(monkeypatch):
    rng, seen = np.random.default_rng(0), []
    model = MultiPrototypicalClassifier().fit(rows(rng, N * SHOTS), np.arange(N).repeat(SHOTS))
    memorize = MultiPrototypicalLearner.memorize

    def counted(self, statistics):
        seen.append(statistics.n_way)
        return memorize(self, statistics)

    monkeypatch.setattr(MultiPrototypicalLearner, "memorize", counted)
    monkeypatch.setattr(MultiPrototypicalLearner, "keys_by_class", True)
    model.partial_fit(rows(rng, 4), [3, 3, 99, 99]).remove_class(5).rename_class(6, 66)
    model.predict(rows(rng, 3))
    model.predict_proba(rows(rng, 3))
    made = model.model_.memory
    assert seen == [2]
    again = memorize(model.learner_, model.model_.statistics).present()
    for name in ("keys", "labels", "log_weight"):
        torch.testing.assert_close(getattr(made, name), getattr(again, name), rtol=0, atol=0)
    assert made.extras == again.extras


@pytest.mark.parametrize("learner", [MatchingLearner(balanced=True), KNearestLearner(centered=True), "key-value-cache"])
def test_learners_whose_keys_depend_on_all_classes_copy_all(learner):
    rng = np.random.default_rng(0)
    model = FewShotClassifier(learner).fit(rows(rng, N * SHOTS), np.arange(N).repeat(SHOTS))
    assert type(model.model_) is FittedModel
    assert not model.learner_.keys_by_class


def test_the_centre_moves_far():
    """Keys are searched relative to a new centre in time, and answers are those of a model that has just learned."""
    rng = np.random.default_rng(0)
    models = pair(lambda: PrototypicalClassifier("cosine", centered=True), rows(rng, N, 1.0), np.arange(N))
    for i in range(6):
        more = rows(rng, 8, 3.0 * i)
        both(models, lambda m: m.partial_fit(more, 100 + 8 * i + np.arange(8)))  # noqa: B023
        check_equal(models, np.concatenate([rows(rng, 10, 3.0 * i), rows(rng, 10, 1.0)]))
    assert isinstance(models[0].model_, LiveModel)


def test_versions_branch_and_readers_keep_theirs():
    rng = np.random.default_rng(0)
    x, y = rows(rng, N), np.arange(N)
    first = PrototypicalClassifier().fit(x, y)
    assert first.predict(x).tolist() == y.tolist()
    one, two = first.view(), first.view()
    a, b = 9 + rows(rng, 1), -9 + rows(rng, 1)
    one.partial_fit(a, [100]), two.partial_fit(b, [200]), one.remove_class(3)
    assert one.predict([*a, x[4]]).tolist() == [100, 4]
    assert two.predict([*b, x[3]]).tolist() == [200, 3]
    assert first.predict(x).tolist() == y.tolist()
    assert one.classes_.tolist() == [0, 1, 2, *range(4, N), 100]
    assert first.classes_.tolist() == y.tolist()


def test_equal_classes_are_told_apart_by_their_labels():
    x = np.ones((N, D), np.float32)
    x[:5] = 7
    for index in ("auto", "hnsw"):
        model = PrototypicalClassifier(index=index).fit(x[::-1], np.arange(N)[::-1])
        model.partial_fit(x[-1:], [-4])
        assert model.predict(x[[0, -1]]).tolist() == [0, -4]
        assert model.nearest(x[-1:], 3)[0].tolist() == [[-4, 5, 6]]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_go_their_own_way(copied):
    rng = np.random.default_rng(0)
    model = PrototypicalClassifier().fit(rows(rng, N), np.arange(N))
    x = rows(rng, 5)
    twin = copied(model.partial_fit(5 + x[:1], [-1]))
    assert type(twin.model_) is LiveModel
    assert twin.predict(x).tolist() == model.predict(x).tolist()
    twin.partial_fit(x[:1], [77])
    assert (twin.predict(x[:1]).item(), len(twin.classes_), len(model.classes_)) == (77, N + 2, N + 1)


def test_a_wrong_change_is_refused_and_changes_nothing():
    rng = np.random.default_rng(0)
    x, y = rows(rng, N), [f"c{i:02}" for i in range(N)]
    model = PrototypicalClassifier(closed_set=True, reject=-1.0).fit(x, y)
    before = model.model_
    for change, message in (
        (lambda: model.partial_fit(x[:1], ["new"]), r"y has the new classes \['new'\], but closed_set"),
        (lambda: model.remove_class("new"), "there is no class 'new'"),
        (lambda: model.rename_class("c01", "c02"), "'c02' is a class already"),
        (lambda: model.rename_class("new", "c99"), "there is no class 'new'"),
        (lambda: model.rename_class("c01", "unknown"), "unknown_label='unknown' is a class"),
        (lambda: model.remove(x[:1], ["c05"]), "as many as it learned, but not the same"),
        (lambda: model.remove(x[[0, 0]], ["c00"] * 2), "cannot remove 2 support rows of 'c00', which has 1"),
        (lambda: model.remove(x, y), "nothing would remain"),
        (lambda: model.nearest(x[:1], N + 1), "expected an integer from 1 to 40"),
    ):
        with pytest.raises(ValueError, match=message):
            change()
        assert model.model_ is before
    with pytest.raises(TypeError, match="mix the types"):
        model.partial_fit(x[:1], [3])
    model.set_params(closed_set=False).partial_fit(x[:1], ["cafe\u0301"])
    with pytest.warns(UserWarning, match="one text in two Unicode forms"):
        model.partial_fit(x[:1], ["caf\u00e9"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(x[:1], ["c00"])


def test_numbers_of_removed_classes_are_given_up():
    rng = np.random.default_rng(0)
    x = rows(rng, N)
    model = PrototypicalClassifier().fit(x, np.arange(N))
    for i in range(5 * N):
        model.partial_fit(x[i % N : i % N + 1] + 1, [1000 + i]).remove_class(1000 + i)
    assert len(model.model_.known.sums) <= live.MOST_NUMBERS * N + 1
    assert model.predict(x).tolist() == list(range(N))


@pytest.mark.parametrize("kind", [PrototypicalClassifier, MatchingClassifier, MultiPrototypicalClassifier])
def test_readers_see_one_moment_while_a_writer_learns(monkeypatch, kind):
    """Each class comes with a partner at the same moment; no answer knows one without the other."""
    monkeypatch.setattr("fewshot.search.growing.EXACT_LIMIT", 60)  # merges happen in the background
    rng = np.random.default_rng(0)
    x = 10 * rows(rng, 400)
    model = kind().fit(x[:N], np.arange(N))
    failures, stop = [], threading.Event()

    def read():
        try:
            while not stop.is_set():
                now = model.view()
                n = len(now.classes_)
                assert n % 2 == 0
                assert now.predict(x[[n - 1, n - 2, 0]]).tolist() == [n - 1, n - 2, 0]
                assert now.predict_top(x[[n - 1]], 1)[0].item() == n - 1
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(N, 400, 2):
        model.partial_fit(x[i : i + 2], [i, i + 1])
    stop.set()
    for reader in readers:
        reader.join(60)
    assert not failures
    assert model.predict(x).tolist() == list(range(400))


@pytest.mark.parametrize("index", ["auto", "hnsw"])
def test_probabilities_come_from_all_classes(index):
    rng = np.random.default_rng(0)
    x, y, queries = rows(rng, 600), [f"c{i % 300:03}" for i in range(600)], rows(rng, 7)
    for model in pair(lambda: PrototypicalClassifier(index=index, on_error="unknown"), x, y):
        proba = model.predict_proba(queries)
        labels, top = model.predict_top(queries, 3)
        order = np.argsort(-proba, axis=-1, kind="stable")[:, :3]
        assert labels.tolist() == model.classes_[order].tolist()
        np.testing.assert_allclose(top, np.take_along_axis(proba, order, -1), rtol=1e-5)
        np.testing.assert_allclose(model.predict_top(queries, 300)[1].sum(-1), 1, rtol=1e-5)
        labels, top = model.predict_top([[np.nan] * D], 2)
        assert (labels.tolist(), top.tolist()) == ([["unknown"] * 2], [[0, 0]])
        for k in (0, 301):
            with pytest.raises(ValueError, match=f"k is {k}; expected an integer from 1 to 300, the number of classes"):
                model.predict_top(queries, k)


def discriminants(n, shots=SHOTS):
    rng = np.random.default_rng(0)
    x, y = rows(rng, n * shots, 0.5), np.arange(n).repeat(shots)
    return (*pair(DiscriminantClassifier, x, y), x, y, rows(rng, 20, 0.5))


def test_each_version_has_the_metric_of_its_own_support():
    """Whichever is asked first, also if the metric of neither was known when they parted."""
    one, other, x, _, queries = discriminants(N)
    more = np.abs(rows(np.random.default_rng(1), 60, 3.0))
    for asked_first in (False, True):
        old, new = one.view(), one.view().partial_fit(more, np.arange(100, 160))
        later = new if asked_first else old
        (old if asked_first else new).predict(queries)
        with copying():
            expected = other.view().partial_fit(more, np.arange(100, 160)) if later is new else other
            np.testing.assert_allclose(later.nearest(queries, 3)[1], expected.nearest(queries, 3)[1], rtol=1e-5)
        one = DiscriminantClassifier().fit(x, np.arange(N).repeat(SHOTS))


def test_fewer_classes_than_a_sample_stand_for_themselves():
    models = discriminants(N)
    *models, _, _, queries = models
    models[0].predict(queries)
    for label in range(N - 8):
        both(models, lambda m: m.remove_class(label))  # noqa: B023
        if label > N - 28:
            check_equal(models, queries)
    assert type(models[0].model_) is LiveModel


def test_rows_that_are_gone_are_given_up():
    one, other, x, y, queries = discriminants(N)
    for _ in range(100):
        for model in (one, other):
            with copying() if model is other else nullcontext():
                model.remove(x[:2], y[:2]).partial_fit(x[:2], y[:2])
    assert len(one.model_._taught.rows.number) <= 2 * len(x) + 4
    check_equal([one, other], queries)


def test_lists_are_made_for_the_queries_that_they_answer(monkeypatch):
    """Keys are means times the inverse of the second moment: without a turn, no query looks like its key."""
    monkeypatch.setattr("fewshot.search.snapshot.GLANCED_FROM", 4000)
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(64, 64)) @ np.diag(np.geomspace(1, 0.01, 64))
    classes = rng.normal(size=(4000, 64))
    draw = lambda rows: ((rows + 0.1 * rng.normal(size=rows.shape)) @ mix).astype(np.float32)  # noqa: E731
    model = DiscriminantClassifier(regularization=0.3, power=1.0, index="ivf").fit(draw(classes), np.arange(4000))
    served = model.model_.served("ivf")
    choice = served.build()
    assert choice.glance
    exact = model.view(index="exact")
    queries = np.concatenate([draw(classes[:200]), draw(rng.normal(size=(200, 64)))])
    assert (model.predict(queries) == exact.predict(queries)).mean() > 0.97
    keys, index = served._keys, served._keys.state.base.snapshot.built
    x = served._transform(queries[:200]).double() @ keys._turn[1]
    closeness = index.glance(keys.state.base.snapshot._to_faiss(x), 20, None)[1]
    assert (closeness >= choice.sure).mean() > 0.6  # though those of a class lie around its one image, not at it
    for i in range(20):
        model.partial_fit(draw(classes[i : i + 1] + 2), [4000 + i]).remove_class(i)
    queries = np.concatenate([draw(classes[:20] + 2), draw(classes[20:220])])
    found = model.predict(queries)
    assert (found == np.r_[4000:4020, 20:220]).mean() > 0.95
    assert (found == model.view(index="exact").predict(queries)).mean() > 0.97


@pytest.mark.parametrize("kind", [FewShotClassifier, PrototypicalClassifier])
def test_a_similarity_as_threshold_makes_no_keys_of_all_classes(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1100, 4))
    model = kind(reject=0.9).fit(X, [f"class {i:04d}" for i in range(1100)])
    assert isinstance(model.model_, LiveModel)
    for name in ("one more", "and another"):
        model.partial_fit(rng.normal(size=(1, 4)), [name]).predict(X[:2])
        assert "memory" not in vars(model.model_)
