import time

import numpy as np
import pytest

from fewshot.utils.twins import SAME_IMAGE, distinct_rows, earlier_twins, warn_of_twins

RNG = np.random.default_rng(5)


def slowly(x, start=0):
    """Compare all pairs."""
    apart = np.linalg.norm(x[:, None] - x[None], axis=-1)
    same = np.tril(apart <= SAME_IMAGE * np.linalg.norm(x, axis=1)[:, None], -1)
    return np.where(same.any(1) & x.any(1), same.argmax(1), -1)[start:]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("start", [0, 1, 40, 59, 60])
@pytest.mark.parametrize("centre", [0.0, 100.0])
def test_twins_are_those_of_all_pairs(dtype, start, centre):
    x = (RNG.normal(size=(60, 7)) + centre).astype(dtype)
    x[20:30] = x[5:15] * (1 + 1e-6 * RNG.normal(size=(10, 1)))  # rounding
    x[50:55] = x[[20, 20, 51, 3, 3]]  # copies
    x[58:] = 0
    wanted, twins = slowly(x, start), earlier_twins(x, start)
    np.testing.assert_array_equal(twins >= 0, wanted >= 0)
    for i in np.flatnonzero(twins >= 0).tolist():
        copies = np.flatnonzero((x[start : start + i] == x[start + i]).all(1))  # of a copy, the first that is new
        assert twins[i] == (start + copies[0] if len(copies) else wanted[i])


def test_copies_are_told_within_a_label():
    x = RNG.normal(size=(6, 5))
    labels = np.array([0, 1, 0, 1, 1, 0])
    rows = [0, 0, 0, 3, 0, 3]  # 2 copies 0, 4 copies 1; 1 and 5 are copies of another label's
    assert distinct_rows(x[rows], labels).tolist() == [0, 1, 3, 5]
    assert distinct_rows(x, labels).tolist() == list(range(6))
    x[:4] = 0  # nothing is known in them, so they are not the same
    assert distinct_rows(x, labels).tolist() == list(range(6))


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (3, 0)])
def test_nothing_has_no_twin(shape):
    assert (earlier_twins(np.zeros(shape)) == -1).all()


def test_many_images_and_many_copies_of_one_are_no_matrix_of_pairs():
    x = RNG.normal(size=(30_000, 16)).astype(np.float32)
    x[10_000:20_000] = x[0]
    start = time.process_time()
    twins = earlier_twins(x)
    assert time.process_time() - start < 10
    assert np.flatnonzero(twins >= 0).tolist() == list(range(10_000, 20_000))
    assert (twins[10_000:20_000] == 0).all()


def test_a_warning_names_some_and_counts_all():
    names = [f"{i}.png" for i in range(10)]
    with pytest.warns(
        UserWarning,
        match=r"^learned already or twice, 7 of 8 images: 2.png is the same as 0.png; .*, and 2 more; .*mistake$",
    ):
        warn_of_twins(np.array([0] * 7 + [-1]), 2, names, np.zeros(10))
    warn_of_twins(np.array([-1, -1]), 8, names, np.zeros(10))
    labels = np.array(["coin"] * 8 + ["brick", "coin"])
    found = (
        r"images: 8.png \(class brick\) is the same as 0.png \(class coin\); .*; 1 of them in two classes, so remove"
    )
    with pytest.warns(UserWarning, match=found):
        warn_of_twins(np.array([0] * 7 + [-1]), 2, names, labels)
