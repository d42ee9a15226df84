"""A retriever for LangChain: a query image, or text, is classified and answered from a store."""

from __future__ import annotations

from typing import Any

from fewshot.errors import MissingExtraError
from fewshot.images.model import FewShotModel
from fewshot.retrieval.retrieve import retrieve
from fewshot.retrieval.stores.base import Store

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict
except ImportError:
    raise MissingExtraError("LangChain is missing; run: pip install 'fewshot[langchain]'") from None


class FewShotRetriever(BaseRetriever):
    """Find records of a store for a query, by default only those of the class that it is taken for.

    Parameters
    ----------
    model : FewShotModel
        Whose embedder made the vectors of the store.
    store : Store
        What is searched.
    k : int, default=4
        Documents a query.
    by_label : bool, default=True
        Whether only records of the query's class are found; of an unknown one, all.
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

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: FewShotModel
    store: Store
    k: int = 4
    by_label: bool = True
    where: dict[str, Any] | None = None

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        """Return documents whose content is the id of a record; label, similarity and payload are metadata."""
        (found,) = retrieve(self.model, self.store, [query], self.k, where=self.where, by_label=self.by_label)
        return [Document(page_content=match.id, id=match.id, metadata=match.facts()) for match in found]
