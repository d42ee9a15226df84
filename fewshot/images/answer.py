"""The full answer to a query: the likeliest classes, the nearest keys and the nearest support items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.data.opening import describe, is_name
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import Embedded
from fewshot.errors import ImageDecodeError, brief
from fewshot.images.learned import Learned
from fewshot.images.places import PlaceMatch, match_places
from fewshot.images.sets import Promise
from fewshot.images.support import Support
from fewshot.learners.local import LocalLearner
from fewshot.search.similarity import KeySnapshot, search_in_chunks, to_tensor
from fewshot.utils import notebook
from fewshot.utils.isolation import isolated
from fewshot.utils.text import counted, printable

#: The most answers that a notebook shows.
SHOWN = 8


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A support item near a query.

    Attributes
    ----------
    id : str
        Its path, or the name it was given.
    label : object
        Its class.
    similarity : float
        Similarity to the query in the learner's metric; higher is closer.
    thumbnail : bytes
        A small PNG or JPEG.
    row : int
        Its place in the support: several items may have one name.
    """

    id: str
    label: Any
    similarity: float
    thumbnail: bytes = field(repr=False)
    row: int = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: ``id``, ``label`` and ``similarity``."""
        return {"id": self.id, "label": self.label, "similarity": self.similarity}


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a query, with its reasons.

    Attributes
    ----------
    id : str
        Its path, or the name it was given.
    label : object
        The class; the unknown label if the query is rejected, None if it could not be read.
    probability : float
        Probability of the likeliest class, which an unknown query has too; 0 if the query could not be read.
    ranking : list of (label, probability)
        The likeliest classes, best first.
    prototypes : list of (label, similarity)
        The nearest keys, such as prototypes; empty for learners without keys.
    margin : float
        Similarity of the best class minus that of the second best; infinite if there is only one class.
    rejected : bool
        Whether even the nearest class is too far.
    neighbours : list of Neighbour
        The nearest support items, if support is kept.
    thumbnail : bytes
        A small picture of what the network saw.
    error : ImageDecodeError or None
        Why the query could not be read.
    label_set : list or None
        The classes that may be right, if a coverage was asked for; empty if no class fits.
    doubtful : bool
        Whether the class should be looked at; see `is_doubtful`.
    matches : list of PlaceMatch
        Where the query matches support images of the likeliest class, the best match first, if the learner compares
        maps and support is kept.
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
    label_set: list[Any] | None = None
    doubtful: bool = False
    matches: list[PlaceMatch] = field(default_factory=list)

    @property
    def likeliest(self) -> Any:
        """The class that `probability` is of: the answer, unless that is unknown; None if it could not be read."""
        return self.ranking[0][0] if self.ranking else None

    @property
    def match(self) -> PlaceMatch | None:
        """The best of `matches`; None if there is none."""
        return self.matches[0] if self.matches else None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, without pictures.

        ``label`` is None if the item is unknown or could not be read; ``probability`` is that of ``likeliest``;
        ``margin`` is None if there is only one class.

        Examples
        --------
        >>> Answer("x.png", "ant", 0.9, [("ant", 0.9)], [], 0.4, False, [], b"").to_dict()["top"]
        [{'label': 'ant', 'probability': 0.9}]
        """
        return {
            "id": self.id,
            "label": None if self.rejected else self.label,
            "unknown": self.rejected,
            "doubtful": self.doubtful,
            "likeliest": self.likeliest,
            "probability": self.probability,
            "top": [{"label": label, "probability": share} for label, share in self.ranking],
            "set": self.label_set,
            "prototypes": [{"label": label, "similarity": float(found)} for label, found in self.prototypes],
            "margin": self.margin if np.isfinite(self.margin) else None,
            "neighbours": [neighbour.to_dict() for neighbour in self.neighbours],
            "error": None if self.error is None else self.error.reason,
        }

    def __repr__(self) -> str:
        return f"Answer({_line(self)})"

    def _repr_html_(self) -> str:
        return notebook.fragment(type(self).__name__, "", answer_html(self))


class Answers(list[Answer]):
    """The answers to several queries: a list, which shows pictures in a notebook."""

    def __repr__(self) -> str:
        rest = [f"... and {len(self) - SHOWN} more"] * (len(self) > SHOWN)
        return "\n  ".join([f"Answers: {self._counts}", *map(_line, self[:SHOWN]), *rest])

    def _repr_html_(self) -> str:
        rest = f"and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        return notebook.fragment("Answers", self._counts, *map(answer_html, self[:SHOWN]), rest)

    @property
    def _counts(self) -> str:
        unknown, unread = sum(one.rejected for one in self), sum(one.error is not None for one in self)
        said = [counted(len(self), "image"), f"{unknown} unknown" * bool(unknown), f"{unread} unread" * bool(unread)]
        return ", ".join(filter(None, said))


def _line(answer: Answer) -> str:
    """Return an answer as a line of text: its name, the label, and the likeliest classes."""
    said = f"{printable(brief(answer.id, 80))}: "
    if answer.error is not None:
        return f"{said}not read, {printable(brief(answer.error.reason, 80))}"
    best = ", ".join(f"{printable(brief(label, 40))}: {share:.2f}" for label, share in answer.ranking[:3])
    return f"{said}{printable(brief(answer.label, 40))} ({best})"


def answer_html(answer: Answer, truth: Any = None) -> str:
    """Return the part of a notebook's output that shows an answer; with the true class if it is wrong."""
    name = answer.id if is_name(answer.id) else ""
    if answer.error is not None:
        return notebook.answered(None, "not read", name, notebook.text(answer.error.reason))
    verdict = f"{answer.label}" + (f", it is {truth}" if truth is not None and truth != answer.label else "")
    held = [] if answer.label_set is None else [("one of: " + ", ".join(map(str, answer.label_set))) or "no class fits"]
    near = [(one.thumbnail, f"{one.label} {one.similarity:.2f}") for one in answer.neighbours[:6]]
    sets = map(notebook.text, held)
    bars, shown, where = notebook.bars(answer.ranking[:5]), notebook.captioned(near) if near else "", ""
    if answer.match is not None:
        both = (answer.match.picture, "this image"), (answer.match.support_picture, str(answer.match.label))
        where = f"where it matches {notebook.text(answer.match.label)}{notebook.captioned(both)}"
    return notebook.answered(answer.thumbnail, verdict, name, *sets, bars, shown, where)


def answer_all(
    now: Learned, items: Sequence[Any], top: int, n_neighbours: int, promise: Promise | None = None
) -> Answers:
    """Return the answers to `items`, with their reasons."""
    embedded, names = now.embed(items, thumbnails=True), list(map(describe, items))
    return Answers(answer_embedded(now, embedded, names, top, n_neighbours, promise))


def answer_embedded(
    now: Learned,
    embedded: Embedded,
    items: Sequence[str],
    top: int,
    n_neighbours: int,
    promise: Promise | None = None,
    nearby: KeySnapshot | None = None,
    reasons: bool = True,
    n_matches: int = 1,
) -> list[Answer]:
    """Return the answers to items that are embedded already, with thumbnails, under these names.

    `nearby` is what `index_support` returns, for many calls. Without `reasons`, which take time, there are no
    prototypes and each margin is infinite. `n_matches` says on how many support images to find where a query matches.
    """
    classifier = now.classifier
    errors = {error.index: error for error in embedded.errors}
    x = embedded.embeddings[[i for i in range(len(items)) if i not in errors]]
    labels, proba = classifier.predict_with_proba(x)
    columns = (
        labels.tolist(),
        proba,
        _margins(classifier, x) if reasons else [np.inf] * len(x),
        _nearest_keys(classifier, x, top if reasons else 0),
        nearest_support(classifier, now.support, x, n_neighbours, nearby=nearby),
        [None] * len(x) if promise is None else promise.sets(now, x),
    )
    rows, classes, answers = zip(*columns, strict=True), classifier.classes_.tolist(), []
    known = set(classes)
    for i, item in enumerate(items):
        if i in errors:
            answers.append(
                Answer(item, None, 0.0, [], [], 0.0, False, [], b"", errors[i], None if promise is None else [])
            )
            continue
        label, share, margin, keys, near, held = next(rows)
        order = np.argsort(-share, kind="stable")[: max(top, 2)].tolist()
        ranking = [(classes[place], float(share[place])) for place in order]
        thumbnail, rejected = embedded.thumbnails[i], label not in known
        probability = ranking[0][1]
        found = Answer(item, label, probability, ranking[:top], keys, margin, rejected, near, thumbnail)
        matches = _matches(now, embedded, i, [label for label, _ in ranking], n_matches)
        doubtful = not rejected and is_doubtful([share for _, share in ranking], held)
        answers.append(replace(found, label_set=held, doubtful=doubtful, matches=matches))
    return answers


def is_doubtful(shares: Sequence[float], label_set: Sequence[Any] | None = None) -> bool:
    """Return whether an answer that is not unknown should be looked at.

    Parameters
    ----------
    shares : sequence of float
        Probabilities of the likeliest two classes or more, the highest first.
    label_set : sequence, optional
        The classes that may be right, if a coverage was asked for.

    Returns
    -------
    bool
        Whether the second class is at least half as likely as the first, or the set does not hold one class.

    Examples
    --------
    >>> is_doubtful([0.6, 0.3]), is_doubtful([0.7, 0.2]), is_doubtful([0.7, 0.2], ["ant", "bee"])
    (True, False, True)
    """
    several = label_set is not None and len(label_set) != 1
    return several or (len(shares) > 1 and shares[1] >= shares[0] / 2)


def comparing_places(now: Learned) -> tuple[LocalLearner, Support, tuple[int, int, int]] | None:
    """Return what tells where items match: the learner, the support, and the shape of maps; None if it cannot be told.

    It can if the learner compares maps and support is kept.
    """
    learner = now.classifier.learner_
    shape = now.embedder.map_shape if isinstance(now.embedder, Embedder) else None
    if shape is None or now.support is None or not isinstance(learner, LocalLearner):
        return None
    return learner, now.support, shape


def _matches(now: Learned, embedded: Embedded, i: int, likeliest: list[Any], n: int) -> list[PlaceMatch]:
    """Return where an item matches its likeliest class, on `n` support images."""
    if n < 1 or (parts := comparing_places(now)) is None:
        return []
    return match_places(*parts, embedded.embeddings[i], likeliest, embedded.thumbnails[i], n)


def _margins(classifier: FewShotClassifier, x: NDArray[np.float32]) -> list[float]:
    """Return how much closer the best class of each embedding is than the second best."""
    model = classifier.served(x)

    def margin(logits: Tensor) -> NDArray[np.floating]:
        if logits.shape[-1] < 2:
            return np.full(len(logits), np.inf)
        best = logits.topk(2, -1).values
        return ((best[:, 0] - best[:, 1]) * model.learner.temperature_of(model.memory)).float().numpy()

    return model.map_logits(x, margin).tolist()


def _nearest_keys(classifier: FewShotClassifier, x: NDArray[np.float32], k: int) -> list[list[tuple[Any, float]]]:
    """Return labels and similarities of the nearest keys of each embedding."""
    model = classifier.served(x)
    if model.snapshot is None or k < 1 or not len(x):
        return [[] for _ in x]
    labels, similarities = classifier.nearest(x, min(k, len(model.memory.labels)))
    return [list(zip(*row, strict=True)) for row in zip(labels.tolist(), similarities.tolist(), strict=True)]


@isolated(gradients=False)
def nearest_support(
    classifier: FewShotClassifier,
    support: Support | None,
    embeddings: NDArray[np.float32],
    k: int,
    own: NDArray[np.int64] | None = None,
    nearby: KeySnapshot | None = None,
) -> list[list[Neighbour]]:
    """Return the `k` nearest support items of each embedding (n, d), without its `own` (n,); none if not kept."""
    if support is None or k < 1 or not len(embeddings):
        return [[] for _ in embeddings]
    snapshot = nearby or index_support(classifier, support)
    queries = classifier.learner_.items(to_tensor(embeddings).double())
    rows, similarities = search_in_chunks(snapshot, queries, min(k + (own is not None), len(support)))
    labels = support.labels.tolist()
    return [
        [
            Neighbour(support.ids[row], labels[row], float(np.float32(s)), support.thumbnails[row], row)
            for row, s in zip(near.tolist(), closeness.tolist(), strict=True)
            if own is None or row != own[i]
        ][:k]
        for i, (near, closeness) in enumerate(zip(rows, similarities, strict=True))
    ]


@isolated(gradients=False)
def index_support(classifier: FewShotClassifier, support: Support) -> KeySnapshot:
    """Return the support items as keys, for `nearest_support`."""
    learner = classifier.learner_
    keys = learner.items(to_tensor(support.embeddings).double())
    return KeySnapshot(keys, learner.item_metric, "exact", steady=True)
