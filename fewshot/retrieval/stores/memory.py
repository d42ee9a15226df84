"""A classifier whose memory is a store: a learner reads the nearest records of a query."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import as_learner
from fewshot.retrieval.stores.base import Store
from fewshot.retrieval.stores.records import Match, check_queries
from fewshot.search.similarity import argmax
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels


class StoredMemory:
    """Classify with a Matching, k-nearest or prototypical learner whose keys are the records of a store.

    The learner reads the `k` nearest records of a query; a class without any of them has probability 0. Changes to the
    store, including new classes, take effect at the next call.

    Records are keys of weight 1. Their vectors are results of ``learner.transform``, which for most learners are the
    embeddings themselves. For Matching and k-nearest the keys are the support; for a prototypical learner they are
    class means, one or several per class.

    Parameters
    ----------
    store : Store
        Its records must all have labels, of one type.
    learner : str or Learner
        Reads the records; must have the metric of the store. A registered name is built with its defaults.
    k : int, default=256
        Records per query, at least the ``n_neighbors`` of a k-nearest learner.

    Raises
    ------
    ValueError
        If the keys of the learner are not rows of the support or their means, or it was trained, depends on other
        queries or on the order of the support, has another metric, or counts more than `k` neighbours.

    Examples
    --------
    >>> from fewshot import FaissStore, MatchingLearner, Record
    >>> store = FaissStore("cosine", "3f2a", d=2)
    >>> store.add([Record("a.jpg", np.float32([1, 0]), "cat"), Record("b.jpg", np.float32([0, 1]), "dog")])
    2
    >>> StoredMemory(store, MatchingLearner()).predict([[1.0, 0.2]])
    array(['cat'], dtype='<U3')
    """

    def __init__(self, store: Store, learner: str | Learner, k: int = 256) -> None:
        learner = as_learner(learner)
        name = type(learner).__name__
        if not learner.indexable or learner.learned or learner.transductive or learner.ordered:
            raise ValueError(
                f"{name} does not answer from the nearest keys alone; give a Matching, k-nearest or prototypical one"
            )
        if learner.metric != store.metric:
            raise ValueError(
                f"{name} compares by {learner.metric!r}, the store by {store.metric!r}; give the same metric"
            )
        check_queries(np.empty((0, store.d or 0)), store.d, k)
        if k < (counted := getattr(learner, "n_neighbors", 1)):
            raise ValueError(f"k is {k}, and {name} counts {counted} neighbours; give k={counted} or more")
        self.store, self.learner, self.k = store, copy.deepcopy(learner).cpu().double().eval(), int(k)
        self._refuse_other_keys()

    @isolated(gradients=False)
    def _refuse_other_keys(self) -> None:
        """Raise unless the keys of two classes of one row each are these rows."""
        rows = torch.from_numpy(np.linspace([1, 3], [2, 1], self.store.d or 2, axis=1))
        statistics = self.learner.learn(rows, torch.arange(2, device="cpu"), 2)
        memory = self.learner.memorize(statistics)
        if self.learner.get_params().get("balanced") or memory.extras.keys() & {"center", "temperature"}:
            raise ValueError(
                f"{type(self.learner).__name__} reads its keys by what all support says, which a store cannot; give a "
                "temperature, centered=False and balanced=False"
            )
        if (
            memory.keys.shape != rows.shape
            or memory.extras
            or memory.log_weight.any()
            or not torch.allclose(memory.keys, self.learner.transform(rows))
        ):
            raise ValueError(
                f"the keys of {type(self.learner).__name__} are not the support or class means, which is all that a "
                "store holds; give a Matching, k-nearest or prototypical learner"
            )

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted labels of the store, read at each access.

        Raises
        ------
        ValueError, TypeError
            If the store is empty, a record has no label, or labels mix types.
        """
        labels = self.store.labels()
        if not labels:
            raise ValueError("the store is empty; add records before asking for answers")
        return np.unique(as_labels(labels, name="labels"))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities (n, n_classes) of the classes for untransformed embeddings `X` (n, d).

        Raises
        ------
        ValueError
            If embeddings have the wrong length or are not finite, or the store is empty.
        StoreError
            If the store cannot be reached.
        """
        return self._logits(X)[1].softmax(-1).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class (n,) of each of `X` (n, d); the first one if tied.

        Raises
        ------
        ValueError, StoreError
            As for `predict_proba`.
        """
        classes, logits = self._logits(X)
        return classes[argmax(logits)]

    @isolated(gradients=False)
    def _logits(self, X: ArrayLike) -> tuple[NDArray[Any], torch.Tensor]:
        queries = check_queries(X, self.store.d, self.k)
        transformed = self.learner.transform(torch.from_numpy(queries).double()).float().numpy()
        while True:
            found = self.store.search(transformed, self.k)
            # Read after the search, so that every class found is known, unless its last record was removed in between;
            # then search again.
            classes = self.classes_
            codes = {label: code for code, label in enumerate(classes.tolist())}
            if all(match.label in codes for row in found for match in row):
                return classes, self._read(found, codes)

    def _read(self, found: list[list[Match]], codes: dict[Any, int]) -> torch.Tensor:
        """Return the logits (q, n_classes) of queries, given the records found for each."""
        width = max((len(row) for row in found), default=0)
        similarity = torch.full((len(found), width), -torch.inf, dtype=torch.float64, device="cpu")
        labels = torch.zeros_like(similarity, dtype=torch.long)
        candidates = torch.full_like(labels, -1)
        for i, row in enumerate(found):
            n = len(row)
            similarity[i, :n] = similarity.new_tensor([match.similarity for match in row])
            labels[i, :n] = labels.new_tensor([codes[match.label] for match in row])
            candidates[i, :n] = torch.arange(i * width, i * width + n, device=labels.device)
        # Each match is one key. Its vector is no longer needed.
        keys = similarity.new_zeros((labels.numel(), 0))
        memory = Memory(keys, labels.flatten(), keys.new_zeros(len(keys)), len(codes))
        return self.learner.read(similarity, memory, candidates)
