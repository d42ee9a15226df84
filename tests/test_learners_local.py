"""Learners of local descriptors: what they share, and that memory is bounded whatever the chunks."""

import warnings

import numpy as np
import pytest
import torch

from fewshot import DN4Learner, Embedder, FewShotClassifier, MutualNearestLearner, digits, evaluate, run_benchmark
from fewshot.learners import local
from fewshot.learners.local import of_maps
from fewshot.testing import check_learner

LEARNERS = (DN4Learner, MutualNearestLearner)


def maps(n=24, places=6, width=5, seed=0):
    """Random maps of two classes, whose last place tells the class."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, places, width)), np.arange(n) % 2
    x[:, -1] = 4 * np.eye(width)[y] + 0.3 * rng.normal(size=(n, width))
    return x.astype(np.float32), np.array(["ant", "bee"])[y]


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_contract_holds_for_maps(kind):
    check_learner(lambda: kind(width=2))
    check_learner(lambda: kind(width=4, salience=3.0))


@pytest.mark.parametrize("kind", LEARNERS)
def test_chunks_change_nothing(kind, monkeypatch):
    x, y = maps()
    learner, rows = of_maps(kind(), x.astype(np.float64))
    support, queries = torch.from_numpy(rows[:14]), torch.from_numpy(rows[14:])
    labels = torch.from_numpy((y[:14] == "bee").astype(np.int64))
    whole = learner(support, labels, queries, 2)
    for chunk in (1, 100, 300):  # one image with one, and some with some
        monkeypatch.setattr(local, "CHUNK", chunk)
        torch.testing.assert_close(learner(support, labels, queries, 2), whole)


def test_no_more_similarities_are_held_than_promised(monkeypatch):
    seen = []

    class Watched(DN4Learner):
        def nearest(self, similarity, weight):
            seen.append(similarity.numel())
            return super().nearest(similarity, weight)

    monkeypatch.setattr(local, "CHUNK", 200)
    x, y = maps()
    FewShotClassifier(Watched()).fit(x, y).predict(x)
    assert max(seen) <= 200


def test_salience_finds_the_place_that_differs():
    rng = np.random.default_rng(0)
    x, y = maps(200, places=30)
    x[:, :-1] = rng.normal(size=(200, 1, 5)) * [0, 0, 1, 1, 1] + 0.05 * rng.normal(size=(200, 29, 5))  # even scenes
    plain, keen = (evaluate(DN4Learner(salience=s), x, y, n_way=2, n_episodes=60).mean for s in (0, 8))
    assert keen > 0.95 > plain + 0.1


def test_a_classifier_takes_maps_and_learns_on():
    x, y = maps()
    model = FewShotClassifier("dn4").fit(x[:8], y[:8])
    assert model.model_.learner.width == 5
    assert model.score(x[8:], y[8:]) > 0.7
    grown = FewShotClassifier("dn4").fit(x[:12], y[:12])
    model.partial_fit(x[8:12], y[8:12])
    np.testing.assert_allclose(model.decision_function(x), grown.decision_function(x), rtol=1e-6)
    before = FewShotClassifier("dn4").fit(x[:8], y[:8]).decision_function(x)
    np.testing.assert_allclose(model.remove(x[8:12], y[8:12]).decision_function(x), before, rtol=1e-6)
    assert model.rename_class("ant", "wasp").remove_class("bee").predict(x[:2]).tolist() == ["wasp", "wasp"]


def test_what_is_no_map_of_that_width_is_refused_in_one_sentence():
    x, y = maps()
    with pytest.raises(ValueError, match="width is 3 and the maps have descriptors of 5 numbers"):
        FewShotClassifier(DN4Learner(width=3)).fit(x, y)
    with pytest.raises(ValueError, match="30 numbers, which is no multiple of width=7"):
        FewShotClassifier(DN4Learner(width=7)).fit(x.reshape(len(x), -1), y)
    with pytest.raises(ValueError, match="dim 3"):
        FewShotClassifier("prototypical").fit(x, y)


def test_one_vector_of_each_image_is_not_taken_for_a_map_in_silence():
    x, y = maps()
    rows = x.reshape(len(x), -1)
    for use in (lambda: FewShotClassifier("dn4").fit(rows, y), lambda: evaluate("dn4", rows, y, n_way=2, n_query=3)):
        with pytest.warns(UserWarning, match="takes each of these embeddings for one place; give maps"):
            use()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FewShotClassifier(DN4Learner(width=30)).fit(rows, y).predict(rows)
        FewShotClassifier("dn4").fit(x, y).predict(x)


def test_maps_for_another_learner_are_refused_with_the_learners_that_take_them():
    x, y = maps()
    with pytest.raises(ValueError, match="a learner of local descriptors, such as 'dn4', for maps"):
        evaluate("prototypical", x, y, n_way=2, n_query=3, n_episodes=2)


@pytest.mark.slow
def test_a_grid_gives_maps_to_learners_of_places_and_whole_images_to_the_others(tmp_path):
    grid = {
        "datasets": [{"source": "digits"}],
        "backbones": [{"backbone": "conv4", "weights": "random", "img_size": 32}],
        "learners": [{"learner": "dn4"}, {"learner": "prototypical"}, {"learner": "mutual-nearest", "salience": 8}],
        "n_way": [3], "n_shot": [2], "n_query": 3, "n_episodes": 20,
    }  # fmt: skip
    frame = run_benchmark(grid, tmp_path / "o", executor="serial", progress=False).set_index("learner")
    data = digits()
    for pool, name, learner in (
        (None, "dn4", "dn4"),
        (None, "mutual-nearest (salience=8)", MutualNearestLearner(salience=8)),
        ("auto", "prototypical", "prototypical"),
    ):
        embedder = Embedder("conv4", weights="random", img_size=32, pool=pool, progress=False)
        x = embedder.transform(data.images)
        found = evaluate(learner, x, data.labels, n_way=3, n_shot=2, n_query=3, n_episodes=20)
        assert frame.loc[name, "accuracy"] == pytest.approx(found.mean)
    again = run_benchmark(grid, tmp_path / "o", executor="serial", progress=False)
    assert again.attrs["resumed"] == 3


def test_learners_of_places_are_refused_for_pixels():
    grid = {"datasets": [{"source": "digits"}], "backbones": [{"backbone": "pixels"}], "learners": [{"learner": "dn4"}]}
    with pytest.raises(ValueError, match="'dn4' compares maps of features, which 'pixels' are not; leave one out"):
        run_benchmark(grid, executor="serial", progress=False)
