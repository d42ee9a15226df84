import numpy as np
import pytest

from fewshot.utils.parameters import check_count, check_number


def test_numbers_are_taken_for_what_they_are():
    assert check_number("rate", np.float32(0.5)) == 0.5
    assert check_count("size", np.int64(3)) == 3
    assert check_number("rate", 0) == 0.0


@pytest.mark.parametrize("value", ["1", None, float("nan"), float("inf"), -0.1, [1.0]])
def test_what_is_no_number_is_named(value):
    with pytest.raises(ValueError, match="rate is .*; expected a number of at least 0"):
        check_number("rate", value)


@pytest.mark.parametrize("value", ["1", None, 1.0, True, 0])
def test_what_is_no_count_is_named(value):
    with pytest.raises(ValueError, match="size is .*; expected a whole number of at least 1"):
        check_count("size", value)


def test_what_must_be_above_is_not_equal():
    with pytest.raises(ValueError, match="rate is 0; expected a number above 0"):
        check_number("rate", 0, above=True)
