"""The standard tests that LangChain gives retrievers, which need plugins that the other tests do without."""

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests

from fewshot import FaissStore, FewShotImageClassifier, annotate
from fewshot.integrations.langchain import FewShotRetriever
from tests.photographs import LABELS, quick_embedder, write_photos


@pytest.fixture(scope="class", autouse=True)
def prepared(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    support = write_photos(folder / "support", 2, seed=1)
    model = FewShotImageClassifier(quick_embedder(), progress=False)
    model.fit(support, [label for label in LABELS for _ in range(2)])
    store = FaissStore("cosine", model.embedder_.fingerprint)
    store.add(found.record() for found in annotate(model, write_photos(folder / "archive", 6, seed=2)))
    request.cls.retriever_constructor_params = {"model": model, "store": store, "by_label": False}
    request.cls.retriever_query_example = support[0]


class TestRetriever(RetrieversIntegrationTests):
    retriever_constructor = FewShotRetriever
    retriever_query_example = ""
