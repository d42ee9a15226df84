"""Retrievers of other frameworks, each in a small pipeline: classify the query, filter by its label, retrieve."""

import importlib
import inspect
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fewshot import FaissStore, FewShotImageClassifier, QdrantStore, RemoteModel, annotate
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
    retriever = FewShotRetriever(model=model, store=store, k=3)
    assert len(retriever.invoke(queries[0], k=5)) == 5
    assert len(retriever.invoke(queries[0], where={"similarity": {">": 2}})) == 0
    everything = FewShotRetriever(model=model, store=store, k=12, by_label=False)
    assert {d.metadata["label"] for d in everything.invoke(queries[0])} == set(LABELS)
    only = FewShotRetriever(model=model, store=store, by_label=False, where={"label": "flower"})
    assert {d.metadata["label"] for d in only.invoke(queries[0])} == {"flower"}
    with pytest.raises(ValueError, match="search_kwargs\n  Extra inputs are not permitted"):
        FewShotRetriever(model=model, store=store, search_kwargs={"k": 3})


@pytest.mark.slow
def test_the_standard_tests_of_langchain_pass():
    pytest.importorskip("langchain_tests")
    file = Path(__file__).with_name("langchain_standard.py")
    options = ["-c", os.devnull, "--rootdir", str(file.parent), "-o", "asyncio_mode=auto", "-q"]
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent.parent)
    assert "5 passed" in done.stdout, done.stdout[-3000:]


def test_a_pipeline_of_haystack_is_written_and_read(pipeline, tmp_path):
    pytest.importorskip("haystack")
    from haystack import Pipeline

    from fewshot.integrations.haystack import FewShotRetriever

    model, store, queries = pipeline
    model.save(tmp_path / "model")
    store.save(tmp_path / "store")
    with QdrantStore(tmp_path / "q", "c", "cosine", model.embedder_.fingerprint) as filled:
        filled.add(store.snapshot())
    found, loads = [], Pipeline.loads
    if "allowed_modules" in inspect.signature(loads).parameters:
        loads = partial(loads, allowed_modules=["fewshot.*"])
    for where in (str(tmp_path / "store"), tmp_path / "store", "qdrant"):
        opened = QdrantStore(tmp_path / "q", "c", "cosine", store.fingerprint) if where == "qdrant" else where
        flow = Pipeline()
        flow.add_component("retriever", FewShotRetriever(tmp_path / "model", opened, k=2, by_label=False))
        text = flow.dumps()
        if where == "qdrant":
            opened.close()
        documents = loads(text).run({"retriever": {"queries": queries}})["retriever"]["documents"]
        found.append([(document.content, document.meta["label"]) for document in documents])
    assert len(found[0]) == 4
    assert found[0] == found[1] == found[2]
    for one, message in [
        (FewShotRetriever(model, store), "model is a FewShotImageClassifier; give the folder"),
        (FewShotRetriever(str(tmp_path / "model"), store), "a FaissStore lives in this process; save it"),
        (FewShotRetriever(tmp_path / "model", QdrantStore(":memory:", "c", "dot", "f")), "lives in this process"),
    ]:
        with pytest.raises(ValueError, match=message):
            one.to_dict()


def test_a_token_is_written_by_the_name_of_its_variable(monkeypatch, tmp_path):
    pytest.importorskip("haystack")
    from haystack.utils import Secret

    from fewshot.integrations.haystack import FewShotRetriever

    monkeypatch.setenv("OUR_TOKEN", "s3cret")
    FaissStore("cosine", "f00d").save(tmp_path)
    retriever = FewShotRetriever("http://127.0.0.1:9", tmp_path, token=Secret.from_env_var("OUR_TOKEN"))
    again = FewShotRetriever.from_dict(json.loads(json.dumps(retriever.to_dict())))
    assert again.model == RemoteModel("http://127.0.0.1:9", "s3cret")
    assert "s3cret" not in json.dumps(again.to_dict())


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
    own = store.get([documents[0].content])[0].payload["probability"]
    assert documents[0].meta["probability"] == own
    label = model.classes_.tolist().index(documents[0].meta["label"])
    assert documents[0].meta["query_probability"] == pytest.approx(model.predict_proba(queries[:1])[0, label])


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
