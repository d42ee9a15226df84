"""A retriever for Haystack: classify query images or texts, and find records of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from fewshot.errors import missing
from fewshot.images.model import FewShotModel
from fewshot.retrieval.remote import RemoteModel
from fewshot.retrieval.retrieve import classify_and_retrieve
from fewshot.retrieval.stores.base import Store
from fewshot.retrieval.stores.faiss import FaissStore

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret
except ImportError:
    raise missing("Haystack is missing", "haystack") from None


@component
class FewShotRetriever:
    """Find records of a store for queries, by default only those of the predicted class.

    Parameters
    ----------
    model : FewShotModel, RemoteModel or str
        Its embedder must have computed the vectors of the store. A text is the folder of a saved model, or the address
        of a running service, ``"http://..."``.
    store : Store or str
        Where to search; a text is the folder of a saved `FaissStore`.
    k : int, default=10
        Documents per query.
    by_label : bool, default=True
        Whether to find only records of the query's class; an unknown query finds all.
    token : Secret, optional
        That of the service whose address is given.

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

    def __init__(
        self,
        model: FewShotModel | RemoteModel | str | Path,
        store: Store | str | Path,
        k: int = 10,
        by_label: bool = True,
        token: Secret | None = None,
    ) -> None:
        self._model: Any = str(model) if isinstance(model, Path) else model
        self._store: Any = str(store) if isinstance(store, Path) else store
        self.model: FewShotModel | RemoteModel = _opened(self._model, token)
        self.store: Store = FaissStore.load(self._store) if isinstance(self._store, str) else self._store
        self.k, self.by_label, self.token = k, by_label, token

    def to_dict(self) -> dict[str, Any]:
        """Return the component as JSON values, as pipelines are saved.

        Raises
        ------
        ValueError
            If the model is an object in this process, or another process cannot reach the store.
        """
        model, store = self._model, self._store
        if not isinstance(model, str):
            kind = type(model).__name__
            raise ValueError(f"model is a {kind}; give the folder where it is saved, or the address of a service")
        if isinstance(store, Store):
            store = {"type": f"{type(store).__module__}.{type(store).__name__}", "init_parameters": store.parameters}
        token = None if self.token is None else self.token.to_dict()
        rest = {"k": self.k, "by_label": self.by_label, "token": token}
        found: dict[str, Any] = default_to_dict(self, model=model, store=store, **rest)
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Convert back from `to_dict`: open the model and the store.

        Haystack opens nothing that it was not told to trust:
        ``Pipeline.loads(text, allowed_modules=["fewshot.*"])``.
        """
        found: Self = default_from_dict(cls, data)
        return found

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


def _opened(model: Any, token: Secret | None) -> Any:
    if not isinstance(model, str):
        return model
    if model.startswith(("http://", "https://")):
        return RemoteModel(model, None if token is None else token.resolve_value())
    return FewShotModel.load(model)
