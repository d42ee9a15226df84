import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import EpisodeSampler
from fewshot.episodes.balanced_sampler import choose_uniformly, choose_weighted

LABELS = np.repeat(["a", "b", "c", "d"], [4, 6, 9, 5])
NUMBERS = np.random.default_rng(0).integers(2**32, size=(20_000, 8), dtype=np.uint32)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**60),
    index=st.integers(0, 2**40),
    n_way=st.integers(1, 4),
    n_shot=st.integers(1, 2),
    n_query=st.integers(1, 2),
)
def test_an_episode_is_what_it_says(seed, index, n_way, n_shot, n_query):
    episode = EpisodeSampler(LABELS, n_way, n_shot, n_query, seed=seed)[index]
    assert len(set(episode.classes)) == n_way == episode.n_way
    assert not set(episode.support) & set(episode.query)
    assert len(set(episode.support)) == n_way * n_shot
    assert len(set(episode.query)) == n_way * n_query
    np.testing.assert_array_equal(LABELS[episode.support], episode.classes[episode.support_labels])
    np.testing.assert_array_equal(LABELS[episode.query], episode.classes[episode.query_labels])
    assert np.bincount(episode.support_labels).tolist() == [n_shot] * n_way
    assert np.bincount(episode.query_labels).tolist() == [n_query] * n_way


def test_an_episode_depends_on_seed_and_number_alone():
    one, other = EpisodeSampler(LABELS, 3, 1, 2, seed=5), EpisodeSampler(LABELS, 3, 1, 2, seed=5)
    episode = list(itertools.islice(other, 7))[-1]  # drawing others before it changes nothing
    np.testing.assert_array_equal(one[6].query, episode.query)
    np.testing.assert_array_equal(one[6].support, episode.support)
    draws = {tuple(EpisodeSampler(LABELS, 3, 1, 2, seed=s)[i].query) for s in range(5) for i in range(20)}
    assert len(draws) > 90


@pytest.mark.parametrize(
    ("arguments", "classes", "support", "query"),
    [
        ({}, ["d", "a"], [19, 3], [22, 23, 2, 1]),
        ({"small_classes": "use", "n_shot": 3, "n_query": 4}, ["d", "a"], [23, 20, 22, 1, 0, 2], [21, 19, 3]),
        ({"class_weight": {"a": 0, "b": 3}}, ["b", "c"], [4, 12], [8, 9, 15, 13]),
    ],
)
def test_episodes_are_frozen_until_the_version_of_the_sampler_changes(arguments, classes, support, query):
    sampler = EpisodeSampler(LABELS, **{"n_way": 2, "n_query": 2, "seed": 2**70, **arguments})
    episode = sampler[2**40]
    assert sampler.protocol["sampler"] == 2
    assert episode.classes.tolist() == classes
    assert episode.support.tolist() == support
    assert episode.query.tolist() == query


def test_every_class_and_row_is_drawn_equally_often():
    sampler = EpisodeSampler(np.repeat(np.arange(10), 6), 5, 1, 2)
    episodes = [sampler[i] for i in range(2000)]
    classes = np.bincount(np.concatenate([e.classes for e in episodes]), minlength=10)
    support = np.bincount(np.concatenate([e.support for e in episodes]), minlength=60)
    assert classes.min() > 900
    assert classes.max() < 1100
    assert support.min() > 110
    assert support.max() < 230


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n_way": 0}, "n_way is 0; expected a whole number of at least 1"),
        ({"n_way": 5}, "found 4 classes with the 3 rows that n_shot=1 .* fewer than n_way=5; lower n_way$"),
        ({"n_way": 4, "n_query": 5, "small_classes": "drop"}, "fewer than n_way=4; lower n_way or n_query$"),
        ({"n_way": 4, "n_shot": 9, "n_query": 1, "small_classes": "drop"}, "found 0 classes .*; lower n_shot$"),
        (
            {"n_way": 2, "n_query": 5},
            r"2 classes with fewer than the 6 rows .*: a \(4\), d \(5\); lower n_query to 3 or pass",
        ),
        (
            {"n_way": 3, "n_query": 5},
            r": a \(4\), d \(5\); lower n_query to 3$",
        ),  # dropping them leaves two
        ({"n_way": 4, "n_query": 5, "small_classes": "drop"}, "found 2 classes with the 6 rows"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number of at least 0"),
        ({"seed": None}, "seed is None; expected a whole number of at least 0"),
        ({"n_shot": True}, "n_shot is True; expected a whole number of at least 1"),
        (
            {"n_query": 2, "query_classes": "dirichlet"},
            "fewer than the 5 rows that an episode needs with query_classes='dirichlet': a",
        ),
        (
            {"n_way": 2, "query_classes": 1},
            r"the 5 rows .*query_classes=1: .*; lower n_query to 1 or pass",
        ),
        ({"n_way": 2, "n_shot": 6}, r"fewer than the 8 rows .*; lower n_shot to 2$"),
        ({"n_way": 2, "n_shot": 6, "n_query": 5}, r"; lower n_query and n_shot$"),
        ({"n_way": 4, "n_shot": 1, "n_query": 1, "query_classes": "dirichlet"}, r"; lower n_way to 3$"),
        ({"small_classes": "ignore"}, "small_classes is 'ignore'; expected 'raise', 'drop', 'use'"),
        ({"class_weight": {"e": 1}}, "class_weight names 'e', which is not a class"),
        ({"class_weight": {"a": -1}}, "class_weight must be finite"),
        ({"n_way": 4, "class_weight": {"a": 0}}, "above 0 for at least n_way=4 classes"),
    ],
)
def test_rows_66_67_impossible_episodes_are_refused_at_once(arguments, match):
    with pytest.raises(ValueError, match=match):
        EpisodeSampler(LABELS, **{"n_way": 2, "n_shot": 1, "n_query": 2, **arguments})


def test_row_66_small_classes_can_be_dropped():
    sampler = EpisodeSampler(LABELS, 2, 1, 5, small_classes="drop")
    assert sampler.classes.tolist() == ["b", "c"]
    assert {c for i in range(20) for c in sampler[i].classes} == {"b", "c"}


def test_labels_must_be_one_a_row():
    with pytest.raises(ValueError, match="1d array of one label for each row"):
        EpisodeSampler(np.zeros((3, 2)))


def test_small_classes_can_be_used_with_what_they_have():
    labels = np.repeat(["one", "two", "three", "nine"], [1, 2, 3, 9])
    sampler = EpisodeSampler(labels, 4, 2, 5, small_classes="use")
    for i in range(30):
        episode = sampler[i]
        assert not set(episode.support) & set(episode.query)
        shots = dict(zip(episode.classes, np.bincount(episode.support_labels, minlength=4), strict=True))
        queries = dict(zip(episode.classes, np.bincount(episode.query_labels, minlength=4), strict=True))
        assert shots == {"one": 1, "two": 1, "three": 2, "nine": 2}
        assert queries == {"one": 0, "two": 1, "three": 1, "nine": 5}
        np.testing.assert_array_equal(labels[episode.query], episode.classes[episode.query_labels])


def test_classes_are_drawn_by_their_weights():
    sampler = EpisodeSampler(LABELS, 1, 1, 1, class_weight={"a": 0, "b": 3, "c": 2})
    drawn = np.concatenate([sampler[i].classes for i in range(3000)])
    shares = {c: (drawn == c).mean() for c in "abcd"}
    assert shares["a"] == 0
    np.testing.assert_allclose([shares["b"], shares["c"], shares["d"]], [3 / 6, 2 / 6, 1 / 6], atol=0.03)
    assert sampler.protocol["class_weight"] == {"a": 0, "b": 3, "c": 2}


def test_classes_without_a_row_to_ask_for_are_told():
    with pytest.raises(ValueError, match="2 classes have one row, so an episode of n_way=2 may have no query"):
        EpisodeSampler([0, 1, 2, 2], n_way=2, n_query=1, small_classes="use")


def shares(samples):
    return np.unique(samples, axis=0, return_counts=True)[1] / len(samples)


def test_every_ordered_sample_is_equally_likely():
    for size, k in ((4, 2), (3, 3), (5, 1)):
        samples = choose_uniformly(NUMBERS[:, : 2 * k], np.full(len(NUMBERS), size), k)
        n_samples = np.prod(np.arange(size, size - k, -1))
        np.testing.assert_allclose(shares(samples), np.full(n_samples, 1 / n_samples), atol=0.01)


def test_weighted_draws_follow_the_weights_that_are_left():
    samples = choose_weighted(NUMBERS[:, :3], np.array([3.0, 0.0, 1.0]), 2)
    np.testing.assert_allclose(shares(samples), [3 / 4, 1 / 4], atol=0.01)  # (0, 2) and (2, 0)
    first = choose_weighted(NUMBERS[:, :3], np.array([1.0, 2.0, 3.0]), 2)
    expected = {(0, 1): 1 / 6 * 2 / 5, (0, 2): 1 / 6 * 3 / 5, (1, 0): 2 / 6 / 4, (1, 2): 2 / 6 * 3 / 4}
    expected |= {(2, 0): 3 / 6 / 3, (2, 1): 3 / 6 * 2 / 3}
    np.testing.assert_allclose(shares(first), list(expected.values()), atol=0.01)


@given(st.integers(0, 2**60), st.integers(1, 30), st.lists(st.integers(0, 2**20), min_size=1, max_size=5))
def test_draws_are_distinct_and_below_the_size_whatever_is_drawn_together(seed, k, more):
    sizes = np.array(more) + k
    numbers = np.random.default_rng(seed).integers(2**32, size=(len(sizes), 2 * k), dtype=np.uint32)
    chosen = choose_uniformly(numbers, sizes, k)
    assert chosen.shape == (len(sizes), k)
    assert (np.diff(np.sort(chosen)) > 0).all()
    assert (chosen >= 0).all()
    assert (chosen < sizes[:, None]).all()
    for row, own, size in zip(chosen, numbers, sizes, strict=True):
        np.testing.assert_array_equal(choose_uniformly(own[None], np.array([size]), k), [row])


def test_draws_are_frozen():
    numbers = (np.arange(1, 9) * 0x9E3779B9 % 2**32).astype(np.uint32)[None]
    assert choose_uniformly(numbers, np.array([4]), 4).tolist() == [[0, 2, 1, 3]]
    assert choose_uniformly(numbers, np.array([1000]), 4).tolist() == [[616, 853, 235, 472]]
    assert choose_weighted(numbers, np.arange(8.0), 4).tolist() == [[7, 5, 2, 6]]
