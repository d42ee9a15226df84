"""A retriever for Haystack: classify query images or texts, and find records of a store."""

from __future__ import annotations

from typing import Any

from fewshot.errors import missing
from fewshot.images.model import FewShotModel
from fewshot.retrieval.remote import RemoteModel
from fewshot.retrieval.retrieve import classify_and_retrieve
from fewshot.retrieval.stores.base import Store

try:
    from haystack import Document, component
except ImportError:
    raise missing("Haystack is missing", "haystack") from None


@component
class FewShotRetriever:
    """Find records of a store for queries, by default only those of the predicted class.

    Parameters
    ----------
    model : FewShotModel or RemoteModel
        Its embedder must have computed the vectors of the store; ``RemoteModel("http://...")`` is a running service.
    store : Store
        Where to search.
    k : int, default=10
        Documents per query.
    by_label : bool, default=True
        Whether to find only records of the query's class; an unknown query finds all.

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

    def __init__(self, model: FewShotModel | RemoteModel, store: Store, k: int = 10, by_label: bool = True) -> None:
        self.model, self.store, self.k, self.by_label = model, store, k, by_label

    @component.output_types(documents=list[Document], labels=list[Any])
    def run(self, queries: list[Any], where: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the documents of all queries, in the order of the queries, and the class of each query.

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
