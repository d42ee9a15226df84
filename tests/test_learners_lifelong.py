"""The lifelong memory against a python list of keys, their classes and when they were touched."""

import time

import numpy as np
import pytest
import torch

from fewshot import FewShotImageClassifier, LifelongClassifier, LifelongLearner, MetaTrainer, TrainConfig
from fewshot.embedding.checkpoint import load_learner
from tests.photographs import photos, quick_embedder
from tests.test_contract import episode
from tests.training_data import SIZES, TRAIN, VAL


def unit(x):
    return x / np.sqrt((x**2).sum())


def remember(support, labels, weight, size):
    """A list of (key, class), the one that was not touched for longest first."""
    memory = []
    for x, y, w in zip(support, labels, weight, strict=True):
        if w == 0:
            continue
        x, nearest = unit(x), None
        for place, (key, _) in enumerate(memory):
            if nearest is None or key @ x > memory[nearest][0] @ x:
                nearest = place
        if nearest is not None and memory[nearest][1] == y:
            key, _ = memory.pop(nearest)
            memory.append((unit(key + w * x), y))
            continue
        if len(memory) == size:
            memory.pop(0)
        memory.append((x, y))
    return memory


def answer(memory, queries, n_way, temperature):
    sums = np.zeros((len(queries), n_way))
    for key, y in memory:
        sums[:, y] += [np.exp(unit(query) @ key / temperature) for query in queries]
    with np.errstate(divide="ignore"):
        return np.log(sums)


def keys_of(model):
    """Key and label, oldest first."""
    kept = model.model_.statistics.support
    return [(k, model.classes_[y]) for k, y in zip(kept["x"].numpy(), kept["labels"].tolist(), strict=True)]


def check_same(found, expected):
    assert [y for _, y in found] == [y for _, y in expected]
    np.testing.assert_allclose([k for k, _ in found], [k for k, _ in expected], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
@pytest.mark.parametrize("shots", [(1, 3, 0, 5), (30, 2, 11, 7)])
@pytest.mark.parametrize("d", [2, 8])
def test_it_is_its_formula(size, shots, d):
    support, labels, queries = (t.numpy() for t in episode(shots=shots, d=d))
    for weight in (np.ones(len(labels)), np.random.default_rng(3).integers(0, 4, len(labels)) * 0.7):
        learner = LifelongLearner(size, temperature=0.3)
        got = learner(*map(torch.from_numpy, (support, labels, queries)), 4, torch.from_numpy(weight)).numpy()
        expected = answer(remember(support, labels, weight, size), queries, 4, 0.3)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
        model = LifelongClassifier(size).fit(support, labels, weight)
        check_same(keys_of(model), remember(support, labels, weight, size))


def test_episodes_of_different_lengths_are_learned_together():
    rng = np.random.default_rng(0)
    support, labels = rng.normal(size=(4, 15, 3)), rng.integers(0, 3, (4, 15))
    weight, queries = rng.integers(0, 2, (4, 15)).astype(float), rng.normal(size=(4, 5, 3))
    got = LifelongLearner(4, 0.3)(*map(torch.from_numpy, (support, labels, queries)), 3, torch.from_numpy(weight))
    for b in range(4):
        expected = answer(remember(support[b], labels[b], weight[b], 4), queries[b], 3, 0.3)
        np.testing.assert_allclose(got[b].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_oldest_key_makes_room_and_a_refreshed_one_is_not_the_oldest():
    x, y = np.eye(4)[[0, 1, 0, 2]], np.array(["a", "b", "a", "c"])
    model = LifelongClassifier(size=2).fit(x, y)
    assert [label for _, label in keys_of(model)] == ["a", "c"]
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.n_support_.tolist() == [1, 0, 1]
    assert model.predict_proba(np.eye(4))[:, 1].tolist() == [0.0] * 4
    assert model.partial_fit(np.eye(4)[[1]], ["b"]).predict(np.eye(4)[[1]]).tolist() == ["b"]
    assert model.n_support_.tolist() == [0, 1, 1]


@pytest.mark.parametrize("size", [3, 7, 50])
def test_growing_equals_one_fit_and_stays_bounded(size):
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(200, 3)), rng.integers(0, 5, 200), rng.uniform(0.5, 2, 200)
    grown, start = LifelongClassifier(size), 0
    while start < 200:
        rows = slice(start, start + int(rng.integers(1, 20)))
        grown.partial_fit(x[rows], y[rows], classes=np.arange(5), sample_weight=weight[rows])
        assert grown.n_support_.sum() == len(keys_of(grown)) <= size
        start = rows.stop
    check_same(keys_of(grown), remember(x, y, weight, size))
    whole = LifelongClassifier(size).fit(x, y, weight)
    np.testing.assert_allclose(grown.decision_function(x), whole.decision_function(x), rtol=1e-9)


def test_merging_takes_the_others_keys_as_the_newest_and_stays_bounded():
    support, labels, _ = (t.numpy() for t in episode(shots=(9, 8, 4, 7)))
    one, two = (LifelongClassifier(6).fit(support[s], labels[s]) for s in (slice(0, 9), slice(9, None)))
    expected = (keys_of(one) + keys_of(two))[-6:]
    before = keys_of(two)
    merged = one.merge(two)
    check_same(keys_of(merged), expected)
    check_same(keys_of(two), before)
    assert merged.n_support_.sum() == 6


def test_a_class_is_forgotten_whole_and_its_places_are_free():
    support, labels, queries = (t.numpy() for t in episode(shots=(9, 8, 4, 7)))
    model = LifelongClassifier(6).fit(support, labels)
    expected = [(key, y) for key, y in keys_of(model) if y != 3]
    assert 0 < len(expected) < 6
    check_same(keys_of(model.remove_class(3)), expected)
    assert 3 not in model.predict(queries)
    model.partial_fit(-support[:1], [4])
    check_same(keys_of(model)[:-1], expected)


def test_an_image_that_others_share_a_key_with_is_not_taken_back():
    x, y = np.array([[2.0, 0.0], [2.0, 0.5], [0.0, 3.0]]), np.array([0, 0, 1])
    model = LifelongClassifier().fit(x, y)
    with pytest.raises(ValueError, match="row 0 is not in the memory; give support that was learned"):
        model.remove(x[:1], y[:1])
    with pytest.raises(ValueError, match="cannot remove 2 support rows of 0, which has 1"):
        model.remove(x[:2], y[:2])
    assert model.n_support_.tolist() == [1, 1]


def test_a_saved_memory_goes_on_as_if_it_had_never_been_saved(tmp_path):
    images, labels = photos(5)
    learner = LifelongLearner(size=3)
    model = FewShotImageClassifier(quick_embedder(), learner).fit(images[1:7], labels[1:7])
    model.save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    for m in (model, loaded):
        assert m.n_support_.sum() <= 3
        m.partial_fit(images[7:], labels[7:])
    np.testing.assert_array_equal(loaded.n_support_, model.n_support_)
    np.testing.assert_allclose(loaded.predict_proba(images), model.predict_proba(images), rtol=1e-6)
    check_same(keys_of(loaded.classifier_), keys_of(model.classifier_))


def test_the_loss_is_the_margin():
    """Of the soft maximum of the cosines, temperature times log-sum-exp, where a class has several keys."""
    support, labels, queries = (t.numpy() for t in episode(shots=(4, 3, 2, 5)))
    learner, target = LifelongLearner(temperature=0.05, margin=0.2), [0, 1, 2, 3, -100, 1]
    best = 0.05 * answer(remember(support, labels, np.ones(14), 1000), queries, 4, 0.05)
    losses = [max(0, np.delete(b, y).max() - b[y] + 0.2) for b, y in zip(best, target, strict=True) if y >= 0]
    logits = learner(*map(torch.from_numpy, (support, labels, queries)), 4)
    assert np.mean(losses) > 0
    assert learner.loss(logits, torch.tensor(target)).item() == pytest.approx(np.mean(losses))


def test_the_loss_is_finite_where_the_right_class_had_to_make_room():
    learner, x = LifelongLearner(size=1), torch.eye(2).double().requires_grad_()
    loss = learner.loss(learner(x, torch.tensor([0, 1]), x, 2), torch.tensor([0, 1]))
    assert torch.isfinite(loss)


def test_training_improves_it_and_what_is_saved_answers_alike(tmp_path):
    config = TrainConfig(**{**SIZES, "n_episodes": 24, "n_way": 8, "lr": 1e-2, "validate_every": 12})
    learner = LifelongLearner(size=20, margin=0.3, learn_temperature=True)
    losses = MetaTrainer("conv4", learner, config).fit(TRAIN, VAL, out=tmp_path, progress=False).to_frame()["loss"]
    assert losses[-5:].mean() < 0.9 * losses[:5].mean()
    loaded, (support, labels, queries) = load_learner(tmp_path / "best.safetensors"), episode()
    assert (loaded.size, loaded.margin, loaded.training) == (20, 0.3, False)
    assert torch.equal(loaded(support, labels, queries, 4), learner(support, labels, queries, 4))


@pytest.mark.parametrize("bad", [0, 2.5, "9"])
def test_a_bad_size_is_named(bad):
    with pytest.raises(ValueError, match=f"size is {bad!r}; expected a whole number of at least 1"):
        LifelongLearner(bad)


def crowd(n, n_way, d, seed=0):
    """Return support that looks alike within a class, some of it twice, some of weight 0, some of another class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_way, n)
    x = rng.normal(size=(n_way, d))[labels] + 0.5 * rng.normal(size=(n, d))
    x[1::7], x[5] = x[0], 0
    weight = rng.integers(0, 3, n) * 0.7
    return torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(weight)


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
@pytest.mark.parametrize("settled", [0, 5, 90, 300])
def test_one_memory_alone_is_made_as_many_together_are(size, settled):
    support, labels, weight = crowd(300, 9, 12)
    learner = LifelongLearner(size)
    statistics = learner.learn(support, labels, 9, weight)
    statistics.support["settled"][:settled] = 1.0
    statistics.support["settled"][200::3] = 1.0  # as where two memories are merged
    for alone, together in zip(
        learner._remember_alone(statistics), learner._remember_together(statistics), strict=True
    ):
        np.testing.assert_allclose(alone.numpy(), together.numpy(), rtol=1e-9, atol=1e-12)


def test_many_rows_are_learned_in_a_fraction_of_the_time():
    learner = LifelongLearner()
    statistics = learner.learn(*crowd(2000, 60, 64)[:2], 60)
    seconds = []
    for remember_all in (learner._remember_alone, learner._remember_together):
        begun = time.process_time()
        remember_all(statistics)
        seconds.append(time.process_time() - begun)
    assert seconds[0] < seconds[1] / 3
