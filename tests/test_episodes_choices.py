"""Choosing for many episodes at a time against numpy's generators, which choose for one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.episodes.choices import can_choose, choose, numbers_taken
from fewshot.utils.streams import episode_numbers, episode_rng


@given(
    st.integers(0, 2**80),
    st.integers(0, 2**40),
    st.integers(1, 30),
    st.lists(st.integers(0, 200), min_size=1, max_size=5),
)
def test_it_chooses_what_a_generator_chooses_one_after_another(seed, first, k, more):
    sizes = np.tile(np.array(more) + k, (3, 1))
    taken = numbers_taken(sizes, k)
    numbers = episode_numbers(seed, first, first + 3, int(taken[0].sum()) or 1)
    chosen, sure = choose(numbers, taken.cumsum(1) - taken, sizes, k)
    for i in range(3):
        rng = episode_rng(seed, first + i)
        expected = [rng.choice(size, k, replace=False) for size in sizes[i]]
        assert not sure[i] or np.array_equal(chosen[i], expected)
    assert sure.any() or k + min(more) == 1  # one of one takes no number


@pytest.mark.parametrize(("size", "k"), [(10_000, 9_000), (10_001, 200), (20_000, 400)])
def test_it_chooses_of_many_as_far_as_it_says_it_can(size, k):
    assert can_choose(size, k)
    sizes = np.array([[size]])
    numbers = episode_numbers(1, 2, 3, 2 * k)
    chosen, _ = choose(numbers, np.zeros_like(sizes), sizes, k)
    assert np.array_equal(chosen[0, 0], episode_rng(1, 2).choice(size, k, replace=False))


@pytest.mark.parametrize(("size", "k"), [(3, 4), (10_001, 201)])
def test_it_says_what_it_cannot_choose(size, k):
    assert not can_choose(size, k)


def test_a_number_that_a_generator_may_pass_over_is_not_sure():
    sizes = np.full((2, 1), 5)
    numbers = np.full((2, 3), 123_456_789, np.uint32)
    numbers[1, 1] = 0  # the product's lower half is below the bound
    assert choose(numbers, np.zeros_like(sizes), sizes, 2)[1].tolist() == [True, False]
