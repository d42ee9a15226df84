"""Intervals of shares, such as accuracies."""

from __future__ import annotations

from statistics import NormalDist

#: Answers of one support depend on each other: n of them tell as much as n / DEPENDENCE independent ones.
DEPENDENCE = 1.5


def share_interval(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share that was seen in n independent items (Wilson 1927).

    Examples
    --------
    >>> [round(end, 3) for end in share_interval(0.9, 50)]
    [0.786, 0.957]
    """
    z = NormalDist().inv_cdf(0.975)
    middle, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
    return round(low, 9), round(high, 9)  # so that rounding does not leave out 0 and 1
