"""Queries of episodes whose classes do not have the same number of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.text import counted

QueryClasses = Literal["balanced", "dirichlet", "single"]
SPREADS: tuple[QueryClasses, ...] = get_args(QueryClasses)
BALANCED, DIRICHLET, SINGLE = SPREADS
#: Concentration of the Dirichlet distribution, as published: most episodes have a class of less than half its share.
CONCENTRATION = 2.0


def check_query_classes(value: Any, n_way: int) -> QueryClasses | int:
    """Return `value` if it says how queries are spread over `n_way` classes.

    Raises
    ------
    ValueError
        If it is neither a known word nor a whole number from 1 to `n_way`.
    """
    if isinstance(value, str):
        if value in SPREADS:
            return value
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 1 <= value <= n_way:
        return int(value)
    raise ValueError(
        f"query_classes is {value!r:.60}; expected {BALANCED!r}, {DIRICHLET!r}, {SINGLE!r} or a number of classes "
        f"from 1 to n_way={n_way}"
    )


def of_queries(query_classes: str | int) -> str:
    """Return how queries are spread, as the end of a phrase about episodes; empty if they are balanced.

    Examples
    --------
    >>> of_queries("balanced"), of_queries("dirichlet"), of_queries(1), of_queries(2)
    ('', ', Dirichlet queries', ', queries of 1 class', ', queries of 2 classes')
    """
    known = {BALANCED: "", DIRICHLET: ", Dirichlet queries", SINGLE: ", a single query"}
    return known[query_classes] if query_classes in known else f", queries of {counted(int(query_classes), 'class')}"


def most_queries(query_classes: str | int, n_way: int, n_query: int) -> int:
    """Return the most queries that a class may be asked for, if all classes are of one size."""
    if query_classes in (BALANCED, SINGLE):
        return n_query
    return n_way * n_query if query_classes == DIRICHLET else -(-n_way * n_query // int(query_classes))


def smaller_sizes(least: int, n_way: int, n_shot: int, n_query: int, query_classes: str | int) -> list[str]:
    """Return what to lower, so that classes of `least` rows are large enough for an episode.

    Each is enough alone. If none is, the only one names all that can be lowered, or asks for more rows.

    Examples
    --------
    >>> smaller_sizes(5, n_way=5, n_shot=2, n_query=4, query_classes="balanced")
    ['lower n_query to 3', 'lower n_shot to 1']
    >>> smaller_sizes(20, n_way=20, n_shot=1, n_query=3, query_classes="dirichlet")
    ['lower n_way to 6']
    """
    now = {"n_query": n_query, "n_shot": n_shot, "n_way": n_way}
    ways = n_way if query_classes in (BALANCED, SINGLE) else 2 if query_classes == DIRICHLET else int(query_classes)
    fewest = {"n_query": 1, "n_shot": 1, "n_way": min(n_way, max(ways, 2))}

    def needed(sizes: dict[str, int]) -> int:
        return sizes["n_shot"] + most_queries(query_classes, sizes["n_way"], sizes["n_query"])

    alone = []
    for name in now:
        sizes = range(now[name] - 1, fewest[name] - 1, -1)
        fitting = next((n for n in sizes if needed({**now, name: n}) <= least), None)
        alone += [] if fitting is None else [f"lower {name} to {fitting}"]
    if alone:
        return alone
    if needed(fewest) > least:
        return [f"give each class {needed(fewest)} rows or more"]
    return [f"lower {' and '.join(name for name in now if fewest[name] < now[name])}"]


def draw_queries(
    rng: np.random.Generator, left: Sequence[NDArray[np.int64]], n: int, query_classes: str | int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `n` distinct queries, class by class, or a single one.

    Parameters
    ----------
    rng : Generator
        Random numbers.
    left : sequence of ndarray
        For each class, the rows that are not in the support.
    n : int
        Number of queries.
    query_classes : "dirichlet", "single" or int
        Shares of the classes from a symmetric Dirichlet distribution; one query in all; or a number of classes, drawn
        at random, whose rows are equally likely.

    Returns
    -------
    rows, labels : ndarray of shape (n,), or (1,) for a single query
        Row numbers, and their classes.

    References
    ----------
    O. Veilleux, M. Boudiaf, P. Piantanida, I. Ben Ayed (2021). Realistic Evaluation of Transductive Few-Shot Learning.
    NeurIPS. arXiv:2204.11181. S. Martin, M. Boudiaf, E. Chouzenoux, J.-C. Pesquet, I. Ben Ayed (2022). Towards
    Practical Few-Shot Query Sets: Transductive Minimum Description Length Inference. NeurIPS. arXiv:2210.14545.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> draw_queries(rng, [np.arange(9), np.arange(9, 18)], 8, 1)[1]
    array([1, 1, 1, 1, 1, 1, 1, 1])
    """
    if query_classes == DIRICHLET:
        counts = in_whole_numbers(rng.dirichlet(np.full(len(left), CONCENTRATION)), n)
        rows = [rng.choice(own, count, replace=False) for own, count in zip(left, counts, strict=True)]
        return np.concatenate(rows), np.arange(len(left)).repeat(counts)
    n, n_classes = (1, 1) if query_classes == SINGLE else (n, int(query_classes))
    chosen = np.sort(rng.choice(len(left), n_classes, replace=False))
    labels = chosen.repeat([len(left[c]) for c in chosen])
    places = np.sort(rng.choice(len(labels), n, replace=False))
    return np.concatenate([left[c] for c in chosen])[places], labels[places]


def in_whole_numbers(shares: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return `n` shared out in these shares (k,), each at most one off; the largest remainders are rounded up.

    Examples
    --------
    >>> in_whole_numbers(np.array([0.5, 0.3, 0.2]), 11)
    array([6, 3, 2])
    """
    counts = np.floor(shares * n).astype(np.int64)
    order = np.argsort(counts - shares * n, kind="stable")
    counts[order[: n - counts.sum()]] += 1
    return counts
