"""The mean of mutual best matches against plain loops."""

import numpy as np
import pytest
import torch

from fewshot import MutualNearestLearner


def oracle(support, labels, query, n_way, salience):
    """Weighted mean of the cosines of places that choose each other, one at a time."""

    def unit(x):
        return x / np.linalg.norm(x)

    def centred(image):
        rows = [unit(place) for place in image]
        return [unit(row - np.mean(rows, 0)) for row in rows]

    rows = [unit(place) for place in query]
    differs = [1 - row @ unit(np.mean(rows, 0)) for row in rows]
    query, found = centred(query), []
    for c in range(n_way):
        places = [place for image, label in zip(support, labels, strict=True) if label == c for place in centred(image)]
        top = total = 0.0
        for i, q in enumerate(query):
            chosen = max(places, key=lambda place: q @ place)
            if max(range(len(query)), key=lambda j: query[j] @ chosen) == i:
                top += differs[i] ** salience * (q @ chosen)
                total += differs[i] ** salience
        found.append(top / total)
    return found


@pytest.mark.parametrize("salience", [0.0, 4.0])
def test_equals_plain_loops(salience):
    rng = np.random.default_rng(0)
    support, queries = rng.normal(size=(7, 5, 6)), rng.normal(size=(4, 5, 6))
    labels = np.array([0, 1, 2, 1, 0, 1, 1])
    learner = MutualNearestLearner(6, salience, temperature=1.0)
    rows = (torch.from_numpy(x.reshape(len(x), -1)) for x in (support, queries))
    found = learner(next(rows), torch.from_numpy(labels), next(rows), 3)
    np.testing.assert_allclose(found, [oracle(support, labels, q, 3, salience) for q in queries], rtol=1e-9)
