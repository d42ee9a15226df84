"""What class means say before any query: one body for numpy arrays and torch tensors.

Class means have shape (..., n_way, d) and are 0 for absent classes, whose count (..., n_way) is 0; ``xp`` is the module
of the arrays, `numpy` or `torch`.
"""

from __future__ import annotations

from typing import Any

#: The temperature that suits similarities, as a fraction of the spread of the class means: for squared distances, the
#: likeliest were 0.22 to 0.3 on CIFAR-FS validation classes, Omniglot's background and glyphs, from 1 to 20 shots and
#: from 5 to 60 classes. Inner products differ by half as much. ``benchmarks/parameters.py`` measures it on other data.
FRACTIONS = {"sqeuclidean": 1 / 4, "cosine": 1 / 8, "dot": 1 / 8}
#: A smaller spread, relative to the squared length of the means, is rounding.
ROUNDING = 1e-20


def middle(means: Any, count: Any, xp: Any) -> Any:
    """Return the mean of the means of the present classes, (..., d); 0 if there is only one.

    Examples
    --------
    >>> import numpy as np
    >>> middle(np.array([[1.0, 0.0], [3.0, 2.0], [0.0, 0.0]]), np.array([5, 1, 0]), np)
    array([2., 1.])
    """
    n = (count > 0).sum(-1)[..., None]
    return xp.where(n > 1, (means * (count > 0)[..., None]).sum(-2) / xp.where(n > 1, n, 1), 0)


def suitable_temperature(means: Any, count: Any, metric: str, xp: Any) -> Any:
    """Return the temperature, (...), at which similarities to class means give honest probabilities.

    It is a fixed fraction of the spread, the mean squared distance of the class means from their mean, with one class
    fewer than there are in the denominator; under the cosine, the means are scaled to unit length before. So answers
    do not depend on the scale of the embeddings. It is 1 if there is no spread, as with one class.

    Examples
    --------
    >>> import numpy as np
    >>> suitable_temperature(np.array([[0.0], [8.0]]), np.array([5, 1]), "sqeuclidean", np).item()
    8.0
    """
    squares = (means**2).sum(-1)
    if metric == "cosine":
        means = means * xp.where(squares > 0, squares, 1)[..., None] ** -0.5
        squares = (squares > 0) * (count > 0)
    n = (count > 0).sum(-1)
    apart = (means - middle(means, count, xp)[..., None, :]) * (count > 0)[..., None]
    spread = (apart**2).sum((-1, -2)) / xp.where(n > 1, n - 1, 1)
    usable = (n > 1) & (spread > ROUNDING * squares.sum(-1) / xp.where(n > 0, n, 1))
    return FRACTIONS[metric] * xp.where(usable, spread, 1 / FRACTIONS[metric])
