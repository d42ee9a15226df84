import io

import numpy as np
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier, MatchingLearner, PrototypicalLearner
from tests.photographs import photos, quick_embedder, write_photos


@pytest.mark.parametrize("learner", [PrototypicalLearner("cosine"), PrototypicalLearner(), MatchingLearner()])
def test_neighbours_are_those_of_a_slow_search(learner):
    (images, labels), (queries, _) = photos(5), photos(2, seed=1)
    model = FewShotImageClassifier(quick_embedder(), learner).fit(images, labels)
    x, s = (model.embedder_.transform(part).astype(float) for part in (queries, images))
    if learner.metric == "cosine":
        unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, s)]
        similarity = unit[0] @ unit[1].T
    else:
        similarity = -((x[:, None] - s[None]) ** 2).sum(-1)
    for answer, row in zip(model.answer(queries, n_neighbours=3), similarity, strict=True):
        order = np.argsort(-row, kind="stable")[:3]
        assert [neighbour.label for neighbour in answer.neighbours] == [labels[i] for i in order]
        np.testing.assert_allclose([n.similarity for n in answer.neighbours], row[order], rtol=1e-4, atol=1e-4)


def test_an_answer_agrees_with_predict_and_says_where_it_came_from(tmp_path):
    support, queries = write_photos(tmp_path / "support", 3), write_photos(tmp_path / "queries", 2, seed=1)
    labels = [path.split("/")[-2] for path in support]
    model = FewShotImageClassifier(quick_embedder()).fit(support, labels)
    answers = model.answer(queries, top=9, n_neighbours=99)
    assert [answer.id for answer in answers] == queries
    assert [answer.label for answer in answers] == model.predict(queries).tolist()
    for answer, proba in zip(answers, model.predict_proba(queries), strict=True):
        assert answer.probability == pytest.approx(proba.max())
        assert dict(answer.ranking) == pytest.approx(dict(zip(model.classes_.tolist(), proba, strict=True)))
        assert {neighbour.id for neighbour in answer.neighbours} == set(support)
        assert Image.open(io.BytesIO(answer.thumbnail)).size == (32, 32)
        assert Image.open(io.BytesIO(answer.neighbours[0].thumbnail)).size == (32, 32)


def test_without_support_there_are_no_neighbours_and_no_queries_have_no_answers():
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder(), keep_support=False).fit(images, labels)
    assert [answer.neighbours for answer in model.answer(images)] == [[]] * 4
    assert model.answer([]) == []


def test_an_unreadable_query_keeps_its_place():
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder(), on_error="unknown").fit(images, labels)
    good, bad, last = model.answer([images[0], b"no image", images[-1]])
    assert (good.label, last.label) == (labels[0], labels[-1])
    assert (bad.label, bad.probability, bad.ranking, bad.error.index) == (None, 0.0, [], 1)
