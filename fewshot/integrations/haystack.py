"""A retriever for Haystack: query images, or texts, are classified and answered from a store."""

from __future__ import annotations

from typing import Any

from fewshot.errors import MissingExtraError
from fewshot.images.model import FewShotModel
from fewshot.retrieval.retrieve import classify_and_retrieve
from fewshot.retrieval.stores.base import Store

try:
    from haystack import Document, component
except ImportError:
    raise MissingExtraError("Haystack is missing; run: pip install 'fewshot[haystack]'") from None


@component
class FewShotRetriever:
    """Find records of a store for queries, by default only those of the class that each is taken for.

    Parameters
    ----------
    model : FewShotModel
        Whose embedder made the vectors of the store.
    store : Store
        What is searched.
    k : int, default=10
        Documents a query.
    by_label : bool, default=True
        Whether only records of the query's class are found; of an unknown one, all.

    Examples
    --------
    >>> from fewshot import FaissStore, FewShotImageClassifier, OwnEmbedder, annotate
    >>> embedder = OwnEmbedder(lambda texts: [[t.count("a"), t.count("i")] for t in texts], "letters")
    >>> model = FewShotImageClassifier(embedder).fit(["banana", "kiwi"], ["a", "i"])
    >>> store = FaissStore("cosine", embedder.fingerprint, d=2)
    >>> store.add(found.record() for found in annotate(model, ["papaya", "pippin"]))
    2
    >>> found = FewShotRetriever(model, store).run(["currant"])
    >>> found["labels"], [document.content for document in found["documents"]]
    (['a'], ['papaya'])
    """

    def __init__(self, model: FewShotModel, store: Store, k: int = 10, by_label: bool = True) -> None:
        self.model, self.store, self.k, self.by_label = model, store, k, by_label

    @component.output_types(documents=list[Document], labels=list[Any])
    def run(self, queries: list[Any], where: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the documents of all queries, one query after another, and the class of each query.

        Parameters
        ----------
        queries : list
            Paths, images or texts.
        where : dict, optional
            Only records with these values; see `Store.search`.
        """
        labels, found, _ = classify_and_retrieve(self.model, self.store, queries, self.k, where, self.by_label)
        documents = [
            Document(id=f"{i}/{match.id}", content=match.id, score=match.similarity, meta=match.facts())
            for i, own in enumerate(found)
            for match in own
        ]
        return {"documents": documents, "labels": labels}
