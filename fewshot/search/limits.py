"""How many keys are searched exactly by default, because no approximate search takes half the time."""

from __future__ import annotations


def exact_limit(metric: str, d: int) -> int:
    """Return the most keys of `d` numbers that are searched exactly by default.

    Examples
    --------
    >>> exact_limit("cosine", 768) == LIMITS["cosine"][512]
    True
    """
    table = LIMITS[metric]
    return table[max((known for known in table if known <= d), default=min(table))]


#: These for each metric and number of dimensions, from which they hold up to the next. benchmarks/index_limits.py
#: writes them.
LIMITS = {
    "sqeuclidean": {64: 160000, 256: 80000, 512: 40000},
    "cosine": {64: 80000, 256: 40000, 512: 20000},
    "dot": {64: 160000, 256: 40000, 512: 20000},
}
