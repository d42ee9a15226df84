"""A retriever for LangChain: classify a query image or text, and find records of a store."""

from __future__ import annotations

from typing import Any

from fewshot.errors import missing
from fewshot.images.model import FewShotModel
from fewshot.retrieval.remote import RemoteModel
from fewshot.retrieval.retrieve import retrieve
from fewshot.retrieval.stores.base import Store

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict
except ImportError:
    raise missing("LangChain is missing", "langchain") from None


class FewShotRetriever(BaseRetriever):
    """Find records of a store for a query, by default only those of the predicted class.

    Parameters
    ----------
    model : FewShotModel or RemoteModel
        Its embedder must have computed the vectors of the store; ``RemoteModel("http://...")`` is a running service.
    store : Store
        Where to search.
    k : int, default=4
        Documents per query.
    by_label : bool, default=True
        Whether to find only records of the query's class; an unknown query finds all.
    where : dict, optional
        Only records with these values; see `Store.search`.

    Examples
    --------
    >>> from fewshot import FaissStore, FewShotImageClassifier, OwnEmbedder, annotate
    >>> embedder = OwnEmbedder(lambda texts: [[t.count("a"), t.count("i")] for t in texts], "letters")
    >>> model = FewShotImageClassifier(embedder).fit(["banana", "kiwi"], ["a", "i"])
    >>> store = FaissStore("cosine", embedder.fingerprint, d=2)
    >>> store.add(found.record() for found in annotate(model, ["papaya", "pippin"]))
    2
    >>> [found.page_content for found in FewShotRetriever(model=model, store=store).invoke("currant")]
    ['papaya']
    """

    #: By default, LangChain ignores parameters that a class does not know, such as search_kwargs.
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: FewShotModel | RemoteModel
    store: Store
    k: int = 4
    by_label: bool = True
    where: dict[str, Any] | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: dict[str, Any] | None = None,
    ) -> list[Document]:
        """Return documents with the id of a record as content, and label, similarity and payload as metadata.

        ``invoke(query, k=..., where=...)`` takes other values than the retriever's.
        """
        k, where = self.k if k is None else k, self.where if where is None else where
        (found,) = retrieve(self.model, self.store, [query], k, where=where, by_label=self.by_label)
        return [Document(page_content=match.id, id=match.id, metadata=match.facts()) for match in found]
