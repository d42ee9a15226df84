"""Retrievers of other frameworks, each in a small pipeline: classify the query, filter by its label, retrieve."""

import importlib
import sys

import pytest

from fewshot import FaissStore, FewShotImageClassifier, annotate
from fewshot.errors import MissingExtraError, StoreError
from fewshot.images.learned import Learned
from tests.photographs import LABELS, quick_embedder, write_photos


@pytest.fixture
def pipeline(tmp_path):
    """A classifier, a store of annotated photographs, and paths of queries with their labels."""
    support = write_photos(tmp_path / "support", 4, seed=1)
    model = FewShotImageClassifier(quick_embedder(), progress=False)
    model.fit(support, [label for label in LABELS for _ in range(4)])
    store = FaissStore("cosine", model.embedder_.fingerprint, 256)
    store.add(found.record() for found in annotate(model, write_photos(tmp_path / "archive", 6, seed=2)))
    queries = write_photos(tmp_path / "queries", 1, seed=3)
    return model, store, queries


def test_langchain(pipeline):
    pytest.importorskip("langchain_core")
    from langchain_core.runnables import RunnableLambda

    from fewshot.integrations.langchain import FewShotRetriever

    model, store, queries = pipeline
    chain = FewShotRetriever(model=model, store=store, k=3) | RunnableLambda(
        lambda documents: [(d.page_content, d.metadata["label"], d.metadata["unknown"]) for d in documents]
    )
    for path, label in zip(queries, model.predict(queries), strict=True):
        found = chain.invoke(path)
        assert len(found) == 3
        assert {(own, unknown) for _, own, unknown in found} == {(label, False)}
    everything = FewShotRetriever(model=model, store=store, k=12, by_label=False)
    assert {d.metadata["label"] for d in everything.invoke(queries[0])} == set(LABELS)
    only = FewShotRetriever(model=model, store=store, by_label=False, where={"label": "flower"})
    assert {d.metadata["label"] for d in only.invoke(queries[0])} == {"flower"}


def test_haystack(pipeline, monkeypatch):
    pytest.importorskip("haystack")
    from haystack import Pipeline
    from haystack.components.joiners import DocumentJoiner

    from fewshot.integrations.haystack import FewShotRetriever

    model, store, queries = pipeline
    flow = Pipeline()
    flow.add_component("retriever", FewShotRetriever(model, store, k=3))
    flow.add_component("joiner", DocumentJoiner())
    flow.connect("retriever.documents", "joiner.documents")
    embedded, embed = [], Learned.embed
    monkeypatch.setattr(Learned, "embed", lambda m, x, *o: embedded.append(x) or embed(m, x, *o))
    found = flow.run({"retriever": {"queries": queries}}, include_outputs_from={"retriever"})
    assert embedded == [queries]  # once
    labels = model.predict(queries).tolist()
    assert found["retriever"]["labels"] == labels
    documents = found["retriever"]["documents"]
    assert [d.meta["label"] for d in documents] == [label for label in labels for _ in range(3)]
    assert len(found["joiner"]["documents"]) == 6
    assert documents[0].score == pytest.approx(documents[0].meta["similarity"])


@pytest.mark.parametrize("name", ["langchain", "haystack"])
def test_without_the_extra_the_sentence_has_its_pip_line(name, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] in ("langchain_core", "haystack")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, {"langchain": "langchain_core", "haystack": "haystack"}[name], None)
    monkeypatch.delitem(sys.modules, f"fewshot.integrations.{name}", raising=False)
    with pytest.raises(MissingExtraError, match=rf'run: pip install "fewshot-learn\[{name}\]"'):
        importlib.import_module(f"fewshot.integrations.{name}")


def test_another_embedders_store_is_refused(pipeline):
    pytest.importorskip("langchain_core")
    from fewshot.integrations.langchain import FewShotRetriever

    model, _, queries = pipeline
    with pytest.raises(StoreError, match="embed with the same network"):
        FewShotRetriever(model=model, store=FaissStore("cosine", "f00d", 256)).invoke(queries[0])
