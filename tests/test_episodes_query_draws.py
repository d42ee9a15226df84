"""Queries that are spread unevenly over the classes: totals, shares, seeds, and what stays of balanced episodes."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import EpisodeSampler, digits, evaluate
from fewshot.cli import main
from fewshot.episodes.query_draws import in_whole_numbers, most_queries, smaller_sizes

LABELS = np.repeat(list("abcdefgh"), 90)


def counts(query_classes, n=1000, n_way=5, n_query=15, seed=0):
    """Queries of each class in each episode, (n, n_way)."""
    sampler = EpisodeSampler(LABELS, n_way, 1, n_query, seed=seed, query_classes=query_classes)
    return np.array([np.bincount(e.query_labels, minlength=n_way) for e in sampler.between(0, n)])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**60),
    index=st.integers(0, 2**40),
    n_way=st.integers(2, 5),
    n_shot=st.integers(1, 3),
    n_query=st.integers(1, 12),
    query_classes=st.sampled_from(["dirichlet", 1, 2]),
)
def test_classes_and_support_are_those_of_balanced_episodes(seed, index, n_way, n_shot, n_query, query_classes):
    sizes = n_way, n_shot, n_query
    even = EpisodeSampler(LABELS, *sizes, seed=seed)[index]
    sampler = EpisodeSampler(LABELS, *sizes, seed=seed, query_classes=query_classes)
    episode = sampler[index]
    for name in ("classes", "support", "support_labels"):
        np.testing.assert_array_equal(getattr(episode, name), getattr(even, name))
    assert len(set(episode.query.tolist()) - set(episode.support.tolist())) == n_way * n_query
    np.testing.assert_array_equal(LABELS[episode.query], episode.classes[episode.query_labels])
    assert (np.diff(episode.query_labels) >= 0).all()
    if query_classes != "dirichlet":
        assert len(set(episode.query_labels.tolist())) <= query_classes
    np.testing.assert_array_equal(next(sampler.between(index, index + 1)).query, episode.query)


def test_dirichlet_shares_have_the_mean_and_the_variance_of_their_distribution():
    shares = counts("dirichlet", 1500) / 75
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares.mean(0), 1 / 5, atol=0.015)
    np.testing.assert_allclose(shares.var(0), 0.2 * 0.8 / (5 * 2 + 1), rtol=0.15)
    covariance = np.cov(shares.T)[np.triu_indices(5, 1)]
    np.testing.assert_allclose(covariance, -0.2 * 0.2 / 11, rtol=0.5)


def test_a_single_query_is_of_every_class_alike():
    found = counts("single")
    assert (found.sum(1) == 1).all()
    np.testing.assert_allclose(found.mean(0), 1 / 5, atol=0.05)
    assert len({int(EpisodeSampler(LABELS, 5, 1, 1, query_classes="single")[i].query[0]) for i in range(300)}) > 200


@pytest.mark.parametrize("k", [1, 2, 5])
def test_queries_of_k_classes_are_drawn_from_all_their_rows_alike(k):
    found = counts(k)
    assert (found.sum(1) == 75).all()
    assert ((found > 0).sum(1) == k).all()
    np.testing.assert_allclose((found > 0).mean(0), k / 5, atol=0.05)
    # Without replacement from k * 89 rows: the hypergeometric variance of a class that is asked about.
    n, share = 89 * k, 1 / k
    np.testing.assert_allclose(
        found[found > 0].var(), 75 * share * (1 - share) * (n - 75) / max(n - 1, 1), rtol=0.15, atol=1e-9
    )


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.integers(0, 200))
def test_whole_numbers_add_up_and_are_within_one_of_their_shares(weights, n):
    shares = np.array(weights) / sum(weights)
    found = in_whole_numbers(shares, n)
    assert found.sum() == n
    assert (np.abs(found - shares * n) < 1).all()


@pytest.mark.parametrize(("query_classes", "query"), [("dirichlet", [1, 3, 4, 5, 8, 16]), (1, [9, 10, 12, 13, 15, 16])])
def test_episodes_are_frozen(query_classes, query):
    episode = EpisodeSampler(np.repeat(["a", "b"], 9), 2, 1, 3, seed=2**70, query_classes=query_classes)[2**40]
    assert sorted(episode.query.tolist()) == query


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"query_classes": "uneven"},
            "query_classes is 'uneven'; expected 'balanced', 'dirichlet', 'single' or a number",
        ),
        ({"query_classes": 6}, "query_classes is 6; .* from 1 to n_way=5"),
        ({"query_classes": True}, "query_classes is True"),
        ({"query_classes": 2.0}, "query_classes is 2.0"),
        ({"query_classes": "dirichlet", "n_query": 20}, "found 8 classes with fewer than the 101 rows"),
        ({"query_classes": 2, "n_query": 40}, "found 8 classes with fewer than the 101 rows"),
        ({"query_classes": 1, "small_classes": "use"}, "small_classes='use' needs query_classes='balanced'"),
    ],
)
def test_a_mistake_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        EpisodeSampler(LABELS, **arguments)


def test_results_say_how_queries_are_spread_and_are_paired_with_their_like_alone(capsys):
    data = digits()
    pixels = data.images.reshape(len(data), -1) / 255
    even, uneven = (evaluate("prototypical", pixels, data.labels, query_classes=q) for q in ("balanced", "dirichlet"))
    assert "query_classes" not in even.protocol
    assert "5-way 1-shot, Dirichlet queries, 600 episodes" in repr(uneven)
    assert abs(even.mean - uneven.mean) < 0.01  # each query is answered by itself
    with pytest.raises(ValueError, match="query_classes dirichlet and None; a paired difference needs the same"):
        uneven.difference(even)


def test_the_command_line_has_it(tmp_path, capsys):
    from tests.photographs import write_photos

    write_photos(tmp_path / "data", 12)
    words = f"evaluate {tmp_path / 'data'} --backbone conv4 --weights random --size 28 --way 2 --query 4 --shot 1"
    assert main([*words.split(), "--episodes", "3", "--query-classes", "1", "--csv", "-", "--quiet"]) == 0
    assert "query classes" in capsys.readouterr().out
    assert main([*words.split(), "--query-classes", "3", "--quiet"]) == 2
    assert "--query-classes is 3; expected 'balanced', 'dirichlet', 'single' or" in capsys.readouterr().err


@settings(max_examples=60, deadline=None)
@given(
    least=st.integers(1, 30),
    n_way=st.integers(2, 6),
    n_shot=st.integers(1, 5),
    n_query=st.integers(1, 8),
    query_classes=st.sampled_from(["balanced", "single", "dirichlet", 1, 2]),
)
def test_what_a_message_says_to_lower_is_enough_and_can_be_lowered(least, n_way, n_shot, n_query, query_classes):
    sizes = {"n_way": n_way, "n_shot": n_shot, "n_query": n_query}
    labels = np.repeat(np.arange(8), least)
    if n_shot + most_queries(query_classes, n_way, n_query) <= least:
        return
    cures = smaller_sizes(least, **sizes, query_classes=query_classes)
    for cure in cures:
        if found := re.fullmatch(r"lower (\w+) to (\d+)", cure):
            name, n = found[1], int(found[2])
            assert 1 <= n < sizes[name]
            EpisodeSampler(labels, **{**sizes, name: n}, query_classes=query_classes)
            with pytest.raises(ValueError, match="rows that an episode needs"):
                EpisodeSampler(labels, **{**sizes, name: n + 1}, query_classes=query_classes)
        elif cure.startswith("lower"):
            fewest = {"n_way": max(2, query_classes) if isinstance(query_classes, int) else 2}
            lowered = {name: fewest.get(name, 1) for name in cure.removeprefix("lower ").split(" and ")}
            assert all(n < sizes[name] for name, n in lowered.items())
            EpisodeSampler(labels, **{**sizes, **lowered}, query_classes=query_classes)
        else:
            assert int(re.search(r"\d+", cure)[0]) > least
            assert cures == [cure]
