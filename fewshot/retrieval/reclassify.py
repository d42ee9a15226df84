"""`reclassify`: bring the labels of a store up to date after its classifier has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.images.model import FewShotModel
from fewshot.retrieval.annotate import annotate_vectors
from fewshot.retrieval.annotation import ANSWERS, Annotation
from fewshot.retrieval.remote import RemoteModel
from fewshot.retrieval.stores.base import Store
from fewshot.retrieval.stores.records import Record, token, tokens
from fewshot.utils.labels import unknown_mark

#: Records answered and replaced at a time.
CHUNK = 4096


def reclassify(model: FewShotModel | RemoteModel, store: Store) -> int:
    """Answer the vectors of a store again, and return how many records have changed.

    Classes that were learned, renamed, merged or removed since `annotate` then show in the labels of the store and in
    ``likeliest``, ``probability``, ``unknown`` and ``nearest``, without embedding an image again. A record keeps its
    label if it is not the one that it was annotated with, because `Store.relabel` has corrected it, and a record that
    `annotate` has not made stays as it is.

    Parameters
    ----------
    model : FewShotModel or RemoteModel
        Its embedder must have computed the vectors of the store.
    store : Store
        Its records are replaced a few thousand at a time, each of them whole.

    Raises
    ------
    StoreError
        If another embedder computed the vectors of the store, or the store cannot be reached.
    ServiceError
        If a service cannot be reached, or refuses.

    Examples
    --------
    >>> from fewshot import Embedder, FaissStore, FewShotImageClassifier, annotate, digits, reclassify
    >>> data, embedder = digits(), Embedder("conv4", weights="random", img_size=28)
    >>> model = FewShotImageClassifier(embedder).fit(data.images[:50], data.labels[:50])
    >>> store = FaissStore("cosine", embedder.fingerprint)
    >>> store.add(found.record() for found in annotate(model, data.images[50:80]))
    30
    >>> _ = model.rename_class(7, 70)
    >>> reclassify(model, store) == len([1 for one in store.snapshot() if 70 in (one.label, one.payload["nearest"])])
    True
    """
    fingerprint, mark, answer = _asked_there(model) if isinstance(model, RemoteModel) else _asked(model)
    store.check_embedder(fingerprint)
    records = [record for record in store.snapshot() if _is_ours(record)]
    n_changed = 0
    for start in range(0, len(records), CHUNK):
        part = records[start : start + CHUNK]
        told = answer(np.stack([record.vector for record in part]))
        answers = {record.id: one for record, one in zip(part, told, strict=True)}
        with store._alone():  # others may have corrected, replaced or removed records meanwhile
            new = [(old, _answered(old, answers[old.id], mark)) for old in store._get(list(answers)) if _is_ours(old)]
            n_changed += store.upsert([one for old, one in new if _facts(one) != _facts(old)])
    return n_changed


#: Fingerprint of the embedder, the unknown label, and what answers embeddings (n, d).
_Asked = tuple[str, Any, Callable[[NDArray[np.float32]], Iterable[Annotation]]]


def _asked(model: FewShotModel) -> _Asked:
    now, mark = model.snapshot("unknown"), None
    with suppress(ValueError):  # labels of a type without an unknown one
        mark = unknown_mark(now.classifier.unknown_label, now.classifier.classes_)
    return now.embedder.fingerprint, mark, lambda x: annotate_vectors(now, [""] * len(x), x)


def _asked_there(model: RemoteModel) -> _Asked:
    about = model.about()
    return about["fingerprint"], about["unknown_label"], model.answers_to


def _is_ours(record: Record) -> bool:
    """Whether `annotate` has made a record."""
    return set(ANSWERS) <= record.payload.keys()


def _answered(record: Record, answer: Annotation, mark: Any) -> Record:
    """Return a record with a new answer, unless its vector was replaced since.

    A label that is not the one it was annotated with was corrected, and stays.
    """
    if answer.vector is None or not np.array_equal(record.vector, answer.vector):
        return record
    given = mark if record.payload["unknown"] else record.payload["likeliest"]
    label = answer.label if token("label", record.label) == token("label", given) else record.label
    own = {name: getattr(answer, name) for name in ANSWERS}
    return replace(record, label=label, payload={**record.payload, **own})


def _facts(record: Record) -> list[str]:
    return tokens(record.label, record.payload)
