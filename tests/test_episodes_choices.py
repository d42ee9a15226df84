import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fewshot.episodes.choices import choose, choose_weighted

NUMBERS = np.random.default_rng(0).integers(2**32, size=(20_000, 8), dtype=np.uint32)


def shares(samples):
    return np.unique(samples, axis=0, return_counts=True)[1] / len(samples)


def test_every_ordered_sample_is_equally_likely():
    for size, k in ((4, 2), (3, 3), (5, 1)):
        samples = choose(NUMBERS[:, : 2 * k], np.full(len(NUMBERS), size), k)
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
    chosen = choose(numbers, sizes, k)
    assert chosen.shape == (len(sizes), k)
    assert (np.diff(np.sort(chosen)) > 0).all()
    assert (chosen >= 0).all()
    assert (chosen < sizes[:, None]).all()
    for row, own, size in zip(chosen, numbers, sizes, strict=True):
        np.testing.assert_array_equal(choose(own[None], np.array([size]), k), [row])


def test_draws_are_frozen():
    numbers = (np.arange(1, 9) * 0x9E3779B9 % 2**32).astype(np.uint32)[None]
    assert choose(numbers, np.array([4]), 4).tolist() == [[0, 2, 1, 3]]
    assert choose(numbers, np.array([1000]), 4).tolist() == [[616, 853, 235, 472]]
    assert choose_weighted(numbers, np.arange(8.0), 4).tolist() == [[7, 5, 2, 6]]
