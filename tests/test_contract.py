"""The learner contract, over every registered learner: built in, plugged in, and one from outside the package."""

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import (
    FewShotClassifier,
    Learner,
    Memory,
    Statistics,
    TransductiveClassifier,
    digits,
    list_learners,
    pairwise_similarity,
    register_learner,
)
from fewshot.learners.registry import learner_class
from fewshot.testing import learner_checks
from fewshot.utils.discriminant import Chosen


@register_learner("outsider")
class OutsiderLearner(Learner):
    """A method from outside the package: prototypes in a projected, shifted space, per-item and trainable."""

    def __init__(self):
        super().__init__("cosine", 0.2, learn_temperature=True)
        self.shift = nn.Parameter(torch.tensor(0.1))

    def transform(self, x):
        return x + self.shift * x.abs().amax(-1, keepdim=True)

    def collect(self, support, labels, n_way, weight):
        return Statistics.of_sums(support, labels, n_way, weight)

    def memorize(self, statistics):
        mean = statistics.sums["x"] / statistics.count.clamp(min=1e-30).unsqueeze(-1)
        labels = torch.arange(statistics.n_way).expand(mean.shape[:-1])
        return Memory.of_keys(mean, labels, statistics.count, statistics.n_way)


#: Parameters that some learners have: the contract holds with them too.
VARIANTS = {
    "prototypical, of the support": ("prototypical", {"temperature": None}),
    "prototypical, dot, of the support": ("prototypical", {"metric": "dot", "temperature": None, "centered": True}),
    "multi-prototypical, of the support": ("multi-prototypical", {"temperature": None}),
    "soft-k-means, of the support": ("soft-k-means", {"temperature": None}),
    "cosine-prototypical, centred": ("cosine-prototypical", {"temperature": None, "centered": True}),
    "matching, centred and balanced": ("matching", {"temperature": None, "centered": True, "balanced": True}),
    "k-nearest, centred": ("k-nearest", {"temperature": None, "centered": True}),
    "key-value-cache, centred and balanced": ("key-value-cache", {"centered": True, "balanced": True}),
    "key-value-cache, balanced": ("key-value-cache", {"balanced": True}),
    "matching, balanced": ("matching", {"balanced": True}),
}


def _registered(name, method, parameters):
    kind = learner_class(method)

    def init(self):
        kind.__init__(self, **parameters)

    globals()[name] = register_learner(name)(type(name, (kind,), {"__init__": init}))  # where pickle finds it


for variant, (method, parameters) in VARIANTS.items():
    _registered(variant, method, parameters)
LEARNERS = list_learners()
INDEXABLE = [name for name in LEARNERS if learner_class(name).indexable]
#: Learners for which a class counts as a class, however many rows it has.
BALANCED = [name for name in LEARNERS if learner_class(name)().balanced]


ORDERED = [name for name in LEARNERS if learner_class(name).ordered]


def make(name, d=8, **parameters):
    """A learner; one with weights for embeddings of length `d` has random ones."""
    return learner_class(name)(**parameters).sized(d).double().eval()


def classifier(name, d=8, **parameters):
    """The scikit-learn face of a learner, which takes a learned one as it is."""
    face = TransductiveClassifier if learner_class(name).transductive else FewShotClassifier
    return face(make(name, d) if learner_class(name).learned else name, **parameters)


def episode(n_way=4, shots=(1, 3, 2, 5), n_query=6, d=8, seed=0, batch=()):
    """Uneven support in mixed order, and queries, as float64 tensors."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_way), shots))
    support = torch.from_numpy(rng.normal(size=(*batch, len(labels), d)))
    labels = torch.from_numpy(labels).expand(support.shape[:-1])
    return support, labels, torch.from_numpy(rng.normal(size=(*batch, n_query, d)))


def test_the_outsider_is_registered():
    assert "outsider" in LEARNERS
    assert {"matching", "prototypical"} <= set(LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
class TestContract:
    @pytest.mark.parametrize("check", learner_checks(), ids=lambda check: check.__name__)
    def test_it_fulfils(self, name, check):
        check(learner_class(name))

    def test_gradients_agree_with_finite_differences(self, name, monkeypatch):
        support, labels, queries = episode(n_way=2, shots=(1, 2), n_query=2, d=3)
        learner = make(name, 3).requires_grad_(False)
        if name == "discriminant":  # what leave-one-out chooses counts as constant
            chosen = Chosen(*(torch.tensor(value, dtype=torch.float64) for value in (0.3, 1.2, 0.4)))
            monkeypatch.setattr("fewshot.learners.discriminant.choose", lambda *_: chosen)
        support.requires_grad_(), queries.requires_grad_()
        assert torch.autograd.gradcheck(lambda s, q: learner(s, labels, q, 2), (support, queries))

    def test_bad_labels_and_shapes_are_named(self, name):
        support, labels, queries = episode()
        learner = make(name)
        with pytest.raises(ValueError, match=r"labels run from 0 to 3; expected integers in 0\.\.2"):
            learner(support, labels, queries, 3)
        with pytest.raises(ValueError, match="support has shape"):
            learner(support, labels[:-1], queries, 4)
        with pytest.raises(ValueError, match="weight has shape"):
            learner(support, labels, queries, 4, torch.ones(2))

    @pytest.mark.parametrize("names", [["b", "a", "é", "d"], [True, False], [3, 7, 40, 41]], ids=["str", "bool", "int"])
    def test_a_classifier_answers_with_the_users_labels(self, name, names):
        names = np.array(names)
        support, labels, queries = episode(len(names), (2, 1, 3, 2)[: len(names)])
        y = names[labels.numpy()]
        model = classifier(name).fit(support.numpy(), y)
        logits = make(name)(support, labels, queries, len(names)).detach().numpy()
        np.testing.assert_array_equal(model.predict(queries.numpy()), names[logits.argmax(1)])
        assert model.predict(queries.numpy()).dtype == names.dtype
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(queries.numpy()), probabilities[:, np.argsort(names)])

    def test_partial_fit_in_any_order_equals_one_fit(self, name):
        support, labels, queries = (t.numpy() for t in episode())
        whole, grown = classifier(name).fit(support, labels), classifier(name)
        portions = ([9], [0, 5, 3], [1, 2, 4, 6, 7, 8, 10]) if name not in ORDERED else ([0, 1], [2], range(3, 11))
        for rows in map(list, portions):
            grown.partial_fit(support[rows], labels[rows])
        np.testing.assert_allclose(grown.decision_function(queries), whole.decision_function(queries), rtol=1e-10)
        np.testing.assert_array_equal(grown.n_support_, whole.n_support_)

    def test_what_is_removed_was_never_there_and_merging_is_one_fit(self, name):
        support, labels, queries = (t.numpy() for t in episode())
        if name == "lifelong":
            return  # its keys are of several images, see test_learners_lifelong.py
        whole = classifier(name).fit(support, labels)
        parts = [classifier(name).fit(support[s], labels[s]) for s in (slice(0, 5), slice(5, None))]
        expected = parts[1].decision_function(queries)
        edited = classifier(name).fit(support, labels).remove(support[:5], labels[:5])
        np.testing.assert_allclose(edited.decision_function(queries), expected, rtol=1e-9)
        merged = parts[0].merge(parts[1])
        np.testing.assert_allclose(merged.decision_function(queries), whole.decision_function(queries), rtol=1e-9)


@pytest.mark.parametrize("name", BALANCED)
def test_twenty_rows_to_one_cost_a_balanced_learner_at_most_three_points(name):
    assert "discriminant" in BALANCED  # the default
    data, rng, change = digits(), np.random.default_rng(0), []
    x, learner = data.images.reshape(len(data), -1) / 16, make(name, 64)
    for _ in range(30):
        rows = [rng.permutation(np.flatnonzero(data.labels == c)) for c in range(10)]
        queries = np.concatenate([row[20:60] for row in rows])
        even = np.array([row[0] for row in rows])
        accuracies = []
        for support in (even, np.concatenate([even, rows[rng.integers(10)][1:20]])):
            model = FewShotClassifier(learner).fit(x[support], data.labels[support])
            accuracies.append((model.predict(x[queries]) == data.labels[queries]).mean())  # equally many of each class
        change.append(accuracies[1] - accuracies[0])
    assert np.mean(change) > -0.03


@pytest.mark.parametrize("name", INDEXABLE)
@pytest.mark.parametrize("offset", [0, 10, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_faiss_equals_exact_equals_a_float64_oracle_at_any_offset(name, offset, dtype):
    if make(name).metric == "dot" and dtype == np.float32 and offset > 10:
        return  # an inner product is not that of centred embeddings: float32 holds no more digits of it
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(30, 16))
    X = (centres.repeat(3, 0) + rng.normal(0, 0.3, (90, 16)) + offset).astype(dtype)
    queries = (centres.repeat(4, 0) + rng.normal(0, 0.3, (120, 16)) + offset).astype(dtype)
    y = np.arange(30).repeat(3)
    oracle = (
        make(name, 16)(torch.from_numpy(X).double(), torch.from_numpy(y), torch.from_numpy(queries).double(), 30)
        .detach()
        .numpy()
    )
    for index in ("exact", "faiss"):
        model = classifier(name, 16, index=index).fit(X, y)
        assert np.mean(model.predict(queries) == oracle.argmax(1)) == 1.0
        np.testing.assert_allclose(
            model.nearest(queries, 5)[1],
            classifier(name, 16, index="exact").fit(X.astype(float), y).nearest(queries.astype(float), 5)[1],
            rtol=1e-4 if dtype == np.float32 else 1e-9,
        )


def test_a_thousand_ways_stay_within_the_size_of_their_logits():
    """No (query, way, d) array: 400 x 1000 x 640 float32 would be a gigabyte."""
    support, queries = (
        torch.randn(1000, 640, generator=torch.Generator()),
        torch.randn(400, 640, generator=torch.Generator()),
    )
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        logits = learner_class("prototypical")()(support, torch.arange(1000), queries, 1000)
    assert logits.shape == (400, 1000)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 40e6


def test_pairwise_similarity_is_what_the_learner_scores_with():
    support, labels, queries = episode(n_way=3, shots=(1, 1, 1))
    order = labels.argsort()
    torch.testing.assert_close(
        make("prototypical")(support, labels, queries, 3), pairwise_similarity(queries, support[order])
    )
