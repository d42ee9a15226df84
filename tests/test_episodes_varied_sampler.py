import math

import numpy as np
import pytest

from fewshot import MatchingLearner, PrototypicalLearner, VariedEpisodeSampler, evaluate

LABELS = np.repeat(np.arange(60), np.random.default_rng(0).integers(4, 200, 60))
SIZES = np.bincount(LABELS)


def test_way_shots_and_queries_are_those_of_the_paper():
    sampler = VariedEpisodeSampler(LABELS, seed=2)
    ways, supports, uneven = [], [], 0
    for i in range(300):
        episode = sampler[i]
        sizes = SIZES[episode.classes]
        shots, queries = np.bincount(episode.support_labels), np.bincount(episode.query_labels)
        assert (queries == min(10, sizes.min() // 2)).all()
        assert len(episode.support) <= 500
        assert (shots >= 1).all()
        assert (shots + queries <= sizes).all()
        ways.append(episode.n_way)
        supports.append(len(episode.support))
        uneven += len(set(shots)) > 1
    assert (min(ways), max(ways)) == (5, 50)
    assert 25 < np.mean(ways) < 30  # uniform in 5..50
    assert max(supports) > 450
    assert uneven > 280


def test_larger_classes_give_more_shots_within_a_factor_of_their_size():
    labels = np.repeat(np.arange(6), [10, 10, 10, 100, 100, 100])
    small, large = [], []
    for episode in (VariedEpisodeSampler(labels, seed=1, min_way=6)[i] for i in range(200)):
        shots = dict(zip(episode.classes, np.bincount(episode.support_labels), strict=True))
        small.append(np.mean([shots[c] for c in range(3)]))
        large.append(np.mean([shots[c] for c in range(3, 6)]))
    assert np.mean(large) > 5 * np.mean(small)


@pytest.mark.parametrize("learner", [PrototypicalLearner(), MatchingLearner()])
def test_uneven_episodes_are_answered_together_as_one_by_one(learner):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(LABELS), 5)) + 0.7 * rng.normal(size=(60, 5))[LABELS]
    result = evaluate(learner, x.astype(np.float32), LABELS, sampler=VariedEpisodeSampler, n_episodes=25, seed=3)
    import torch

    z, accuracies = torch.from_numpy(x.astype(np.float32)), []
    for i in range(25):
        e = VariedEpisodeSampler(LABELS, seed=3)[i]
        support, labels, query = z[e.support], torch.from_numpy(e.support_labels), z[e.query]
        answer = learner(support, labels, query, e.n_way).argmax(-1).numpy()
        accuracies.append((answer == e.query_labels).mean())
    np.testing.assert_allclose(result.accuracies, accuracies)
    assert result.protocol["sampler"] == "varied"
    assert "varied, 25 episodes" in repr(result)
    assert result.counts.sum() == sum(len(VariedEpisodeSampler(LABELS, seed=3)[i].query) for i in range(25))
    assert not math.isnan(result.ci95)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"min_way": 0}, "min_way is 0; expected a whole number of at least 1"),
        ({"min_way": 61, "max_way": 70}, "found 60 classes of two rows or more, fewer than min_way=61"),
        ({"max_way": 4}, "min_way is 5, max_way 4 and max_support 500; expected them in this order"),
        ({"max_support": 20}, "expected them in this order"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "0"}, "seed is '0'; expected a whole number of at least 0"),
    ],
)
def test_impossible_episodes_are_refused_at_once(arguments, match):
    with pytest.raises(ValueError, match=match):
        VariedEpisodeSampler(LABELS, **arguments)
