"""What is known of a query: the likeliest classes and the nearest support images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.classifier import FewShotClassifier
from fewshot.data.decode import describe
from fewshot.embedding.embedder import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.snapshot import KeySnapshot, search_in_chunks, to_tensor
from fewshot.support import Support


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A support image near to a query.

    Attributes
    ----------
    id : str
        Its path, or what it was given as.
    label : object
        Its class.
    similarity : float
        To the query, in the learner's metric; higher is closer.
    thumbnail : bytes
        A small picture, PNG or JPEG.
    """

    id: str
    label: Any
    similarity: float
    thumbnail: bytes


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of a query.

    Attributes
    ----------
    id : str
        Its path, or what it was given as.
    label : object
        The answer; None where the image could not be read.
    probability : float
        Of the answer; 0 where the image could not be read.
    ranking : list of (label, probability)
        The likeliest classes, the answer first.
    neighbours : list of Neighbour
        The nearest support images, if support is kept.
    thumbnail : bytes
        A small picture of what the network saw.
    error : ImageDecodeError or None
        Why the image could not be read.
    """

    id: str
    label: Any
    probability: float
    ranking: list[tuple[Any, float]]
    neighbours: list[Neighbour]
    thumbnail: bytes
    error: ImageDecodeError | None = None


def answer_all(
    classifier: FewShotClassifier,
    support: Support | None,
    items: Sequence[Any],
    embedded: Embedded,
    top: int,
    n_neighbours: int,
) -> list[Answer]:
    """Return the answer to each of `items`, whose embeddings are there, with its reasons."""
    errors = {error.index: error for error in embedded.errors}
    read = [i for i in range(len(items)) if i not in errors]
    proba = classifier.predict_proba(embedded.embeddings[read])
    neighbours = nearest_support(classifier, support, embedded.embeddings[read], n_neighbours)
    answers = [Answer(describe(item), None, 0.0, [], [], b"", errors.get(i)) for i, item in enumerate(items)]
    for i, share, near in zip(read, proba, neighbours, strict=True):
        order = np.argsort(-share, kind="stable")[: max(top, 1)]
        ranking = list(zip(classifier.classes_[order].tolist(), share[order].tolist(), strict=True))
        answers[i] = Answer(describe(items[i]), *ranking[0], ranking[:top], near, embedded.thumbnails[i])
    return answers


@torch.inference_mode()
def nearest_support(
    classifier: FewShotClassifier, support: Support | None, embeddings: NDArray[np.float32], k: int
) -> list[list[Neighbour]]:
    """Return the `k` nearest support images of each embedding (n, d); none where support is not kept."""
    if support is None or k < 1 or not len(embeddings):
        return [[] for _ in embeddings]
    learner = classifier.model_.learner
    keys, queries = (learner.transform(to_tensor(x).double()) for x in (support.embeddings, embeddings))
    rows, similarities = search_in_chunks(KeySnapshot(keys, learner.metric, "exact"), queries, min(k, len(support)))
    labels = support.labels.tolist()
    return [
        [
            Neighbour(support.ids[row], labels[row], float(s), support.thumbnails[row])
            for row, s in zip(near.tolist(), closeness.tolist(), strict=True)
        ]
        for near, closeness in zip(rows, similarities, strict=True)
    ]
