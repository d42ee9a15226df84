"""What is known of a query: the likeliest classes and the nearest support images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.few_shot import FewShotClassifier
from fewshot.data.opening import describe
from fewshot.embedding.batches import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.images.support import Support
from fewshot.search.snapshot import KeySnapshot, search_in_chunks, to_tensor
from fewshot.utils.isolation import isolated


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
    thumbnail: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of a query.

    Attributes
    ----------
    id : str
        Its path, or what it was given as.
    label : object
        The answer, which is the unknown label where it was rejected; None where the image could not be read.
    probability : float
        Of the likeliest class; 0 where the image could not be read.
    ranking : list of (label, probability)
        The likeliest classes, that of the answer first.
    prototypes : list of (label, similarity)
        The nearest keys, such as prototypes; none for learners without.
    margin : float
        By how much its class is closer than the next, in the unit of the similarity; infinite where there is no other.
    rejected : bool
        Whether even the nearest class is too far.
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
    prototypes: list[tuple[Any, float]]
    margin: float
    rejected: bool
    neighbours: list[Neighbour]
    thumbnail: bytes = field(repr=False)
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
    answers = [
        Answer(describe(item), None, 0.0, [], [], 0.0, False, [], b"", errors.get(i)) for i, item in enumerate(items)
    ]
    x = embedded.embeddings[read]
    columns = (
        read,
        classifier.predict(x).tolist(),
        classifier.predict_proba(x),
        _margins(classifier, x),
        _nearest_keys(classifier, x, top),
        nearest_support(classifier, support, x, n_neighbours),
    )
    known, classes = set(classifier.classes_.tolist()), classifier.classes_.tolist()
    for i, label, share, margin, keys, near in zip(*columns, strict=True):
        order = np.argsort(-share, kind="stable")[: max(top, 1)]
        ranking = list(zip([classes[place] for place in order], share[order].tolist(), strict=True))
        answers[i] = Answer(
            describe(items[i]),
            label,
            ranking[0][1],
            ranking[:top],
            keys,
            margin,
            label not in known,
            near,
            embedded.thumbnails[i],
        )
    return answers


def _margins(classifier: FewShotClassifier, x: NDArray[np.float32]) -> list[float]:
    """Return by how much the best class of each embedding is closer than the next."""
    model = classifier.served(x)

    def margin(logits: Tensor) -> NDArray[np.floating]:
        if logits.shape[-1] < 2:
            return np.full(len(logits), np.inf)
        best = logits.topk(2, -1).values
        return ((best[:, 0] - best[:, 1]) * model.learner.temperature).float().numpy()

    return model.map_logits(x, margin).tolist()


def _nearest_keys(classifier: FewShotClassifier, x: NDArray[np.float32], k: int) -> list[list[tuple[Any, float]]]:
    """Return label and similarity of the nearest keys of each embedding."""
    model = classifier.served(x)
    if model.snapshot is None or k < 1 or not len(x):
        return [[] for _ in x]
    labels, similarities = classifier.nearest(x, min(k, len(model.memory.labels)))
    return [list(zip(*row, strict=True)) for row in zip(labels.tolist(), similarities.tolist(), strict=True)]


@isolated(gradients=False)
def nearest_support(
    classifier: FewShotClassifier, support: Support | None, embeddings: NDArray[np.float32], k: int
) -> list[list[Neighbour]]:
    """Return the `k` nearest support images of each embedding (n, d); none where support is not kept."""
    if support is None or k < 1 or not len(embeddings):
        return [[] for _ in embeddings]
    learner = classifier.learner_
    keys, queries = (learner.transform(to_tensor(x).double()) for x in (support.embeddings, embeddings))
    snapshot = KeySnapshot(keys, learner.metric, "exact", steady=True)
    rows, similarities = search_in_chunks(snapshot, queries, min(k, len(support)))
    labels = support.labels.tolist()
    return [
        [
            Neighbour(support.ids[row], labels[row], float(np.float32(s)), support.thumbnails[row])
            for row, s in zip(near.tolist(), closeness.tolist(), strict=True)
        ]
        for near, closeness in zip(rows, similarities, strict=True)
    ]
