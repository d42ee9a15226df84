"""Temperature and threshold from held-out classes; what a classifier does with them."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from fewshot import FewShotClassifier, MatchingClassifier, PrototypicalClassifier, PrototypicalLearner
from fewshot.classifiers.calibration import (
    Calibration,
    ScoredQueries,
    choose_temperature,
    expected_calibration_error,
    helpful_temperature,
    reliability_bins,
    score_episodes,
)
from fewshot.classifiers.rejection import UnknownScores, area_under_roc
from fewshot.learners.base import Learner
from fewshot.search.similarity import pairwise_similarity

RNG = np.random.default_rng(0)
SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40).map(np.array)


def clusters(n_classes, n, spread=1.0, seed=0, d=8):
    """Return embeddings of classes around random centres, and labels."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n_classes, d)).repeat(n, 0) + spread * rng.normal(size=(n_classes * n, d)),
        np.arange(n_classes).repeat(n),
    )


def scored(logits, true, classes=None):
    classes = np.asarray(true) if classes is None else classes
    log_proba = torch.as_tensor(logits).log_softmax(-1).numpy()
    columns = np.asarray(true), np.asarray(classes), np.zeros(len(true)), np.arange(len(true)) % 30
    return ScoredQueries(log_proba, *columns, {"seed": 0})


def answers(n, factor, seed=0, n_way=5):
    """Return logits that are `factor` times too large, and classes drawn from what they should be."""
    logits = torch.from_numpy(2 * np.random.default_rng(seed).normal(size=(n, n_way)))
    true = torch.multinomial(logits.softmax(-1), 1, generator=torch.Generator().manual_seed(seed)).flatten().numpy()
    return factor * logits, true


# ---- the choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_on_the_logits(factor):
    logits, true = answers(20000, factor)
    found = scored(logits, true, RNG.integers(0, 2000, len(true)))  # so many classes that the prior does not count
    assert choose_temperature(found) == pytest.approx(factor, rel=0.03)
    best = found.negative_log_likelihood(choose_temperature(found))
    assert all(best <= found.negative_log_likelihood(factor * t) + 1e-4 for t in (0.9, 0.97, 1.03, 1.1))


def test_few_classes_move_the_temperature_little():
    logits, true = answers(2000, 5.0)
    few, many = (choose_temperature(scored(logits, true, true % n)) for n in (1, 5))
    assert 1 < few < many < 5
    sure = scored(np.eye(2)[[0, 1] * 50] * 30, [0, 1] * 50)  # always right: as sharp as one likes
    assert 1 / 50 < choose_temperature(sure) <= 1


def test_a_temperature_is_kept_only_if_it_helps_classes_that_it_was_not_chosen_on():
    classes = RNG.integers(0, 30, 3000)
    assert helpful_temperature(scored(*answers(3000, 4.0), classes)) == pytest.approx(4, rel=0.3)
    assert helpful_temperature(scored(*answers(3000, 1.0), classes)) == 1
    assert helpful_temperature(scored(*answers(3000, 4.0), classes % 15)) == 1  # too few classes to tell
    # One episode of five wants it, so a classifier, with its one support, would mostly be better off without.
    (some, true), (most, others) = answers(600, 8.0), answers(2400, 0.8, seed=1)
    torn = scored(torch.cat([some, most]), np.concatenate([true, others]), classes)
    assert choose_temperature(torn) > 1.2
    assert helpful_temperature(replace(torn, episodes=np.arange(3000) // 600)) == 1


@given(st.lists(SCORES, min_size=1, max_size=5), st.floats(0, 0.99))
def test_the_threshold_accepts_no_more_than_asked_and_as_many_as_that_allows(classes, rate):
    found = UnknownScores.of(classes, np.zeros(0))

    def accepted(threshold):
        return np.mean([(scores >= threshold).mean() for scores in classes])

    threshold = found.threshold(rate)
    assert accepted(threshold) <= rate + 1e-9
    lower = found.unknown[found.unknown < threshold]
    if len(lower):
        assert accepted(lower.max()) > rate - 1e-9


@given(st.lists(SCORES, min_size=1, max_size=5), SCORES)
def test_a_balanced_threshold_loses_no_more_of_one_than_it_must(classes, known):
    found = UnknownScores.of(classes, known)
    threshold = found.threshold("balanced")

    def rates(threshold):
        return np.mean([(scores >= threshold).mean() for scores in classes]), (known < threshold).mean()

    assert abs(np.subtract(*rates(threshold))) <= min(abs(np.subtract(*rates(t))) for t in found.unknown) + 1e-9


def test_bad_rates_are_named():
    with pytest.raises(ValueError, match="false_accept_rate is 1.0; expected at least 0, below 1"):
        fitted().calibrate(*HELD_OUT, false_accept_rate=1.0)


def test_reliability_is_counted_bin_by_bin():
    confidence, right = RNG.uniform(0, 1, 500), RNG.uniform(size=500) < 0.6
    confidence[:3] = 0.0, 1.0, 1 / 15
    bins, error = reliability_bins(confidence, right), 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15) | (confidence == 0) & (i == 0)
        assert bins["n"][i] == inside.sum()
        if inside.any():
            assert bins["confidence"][i] == pytest.approx(confidence[inside].mean())
            assert bins["accuracy"][i] == pytest.approx(right[inside].mean())
            error += inside.sum() / 500 * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(bins) == pytest.approx(error)


@given(SCORES, SCORES)
@settings(deadline=None)  # scikit-learn is imported at the first
def test_auroc_is_the_share_of_pairs_in_order(known, unknown):
    pairs = (known[:, None] > unknown) + 0.5 * (known[:, None] == unknown)
    assert area_under_roc(known, unknown) == pytest.approx(pairs.mean())


def of_classes(rng, n_classes, n):
    """Return scores of unknown queries that their class decides, class by class."""
    return [rng.normal() + rng.normal(size=n) for _ in range(n_classes)]


def test_the_expected_interval_is_that_of_a_plain_bootstrap_of_classes_and_of_images_in_them():
    rng = np.random.default_rng(1)
    classes = [np.round(scores, 1) for scores in of_classes(rng, 9, 5)]  # with equals
    classes[0] = classes[0][:2]
    rates = []

    def drawn():
        return [rng.choice(classes[i], len(classes[i])) for i in rng.choice(9, 9)]

    for _ in range(1000):
        threshold = UnknownScores.of(drawn(), np.zeros(0)).threshold(0.1)
        rates.append(np.mean([(scores >= threshold).mean() for scores in drawn()]))
    found = UnknownScores.of(classes, np.zeros(0)).expected_false_accepts(0.1)
    np.testing.assert_allclose(found, np.quantile(rates, [0.025, 0.975]), atol=0.06)


def test_the_expected_interval_holds_for_other_classes_as_often_as_it_says():
    """Thresholds chosen on 20 classes, measured on 20 others: 95 % of the rates should lie in the interval."""
    rng, inside = np.random.default_rng(2), []
    for _ in range(40):
        chosen, others = (UnknownScores.of(of_classes(rng, 20, 10), np.zeros(0)) for _ in range(2))
        low, high = chosen.expected_false_accepts(0.05)
        inside.append(low <= (others.unknown >= chosen.threshold(0.05)).mean() <= high)
    assert np.mean(inside) >= 0.85


# ---- the episodes --------------------------------------------------------------------------------------------------


class Distance(Learner):
    """A learner whose score is its own."""

    indexable = False

    collect, memorize = PrototypicalLearner.collect, PrototypicalLearner.memorize

    def score(self, memory, queries):
        return -torch.cdist(queries, memory.keys) / self.temperature


@pytest.mark.parametrize("learner", [PrototypicalLearner("cosine", 0.1), Distance(temperature=2.0)])
@pytest.mark.parametrize("beside", [False, True])
def test_queries_are_scored_as_a_classifier_scores_them(learner, beside):
    X, y = clusters(4, 12)
    own = FewShotClassifier(learner).fit(*clusters(3, 5, seed=9))
    more = {"n_way": 6, "beside": own.model_.statistics} if beside else {"n_way": 3}
    found = score_episodes(learner.double(), X, y, n_shot=2, n_query=4, n_episodes=5, seed=7, **more)
    from fewshot import EpisodeSampler

    n_way = 4 if beside else 3
    sampler, place = EpisodeSampler(y, n_way, 2, 4, seed=7), 0
    for i in range(5):
        episode = sampler[i]
        model = FewShotClassifier(learner).fit(X[episode.support], episode.support_labels)
        asked = X[episode.query]
        rows = slice(place, place := place + len(asked))
        if not beside:
            np.testing.assert_allclose(found.log_proba[rows], model.predict_log_proba(asked), rtol=1e-9)
            np.testing.assert_allclose(found.scores[rows], model.model_.classify(asked)[1], rtol=1e-9)
        else:  # two of the own classes are possible answers too
            own_logits = own.predict_log_proba(asked)
            assert found.log_proba.shape[1] == 6
            ratios = own_logits[:, :, None] - own_logits[:, None]
            mine = found.log_proba[rows, 4] - found.log_proba[rows, 5]
            assert any(np.allclose(mine, ratios[:, a, b]) for a in range(3) for b in range(3))
        assert found.true[rows].tolist() == episode.query_labels.tolist()
        assert found.classes[rows].tolist() == episode.classes[episode.query_labels].tolist()
    assert found.protocol == {"n_way": n_way, "n_shot": 2, "n_query": 4, "n_episodes": 5, "seed": 7}


def test_the_score_is_the_similarity_to_the_nearest_key():
    X, y = clusters(4, 6)
    for model in (PrototypicalClassifier(), MatchingClassifier(), PrototypicalClassifier(index="faiss")):
        model.fit(X, y)
        keys = model.model_.memory.keys
        expected = pairwise_similarity(torch.from_numpy(X), keys, model.model_.learner.metric).amax(-1)
        np.testing.assert_allclose(model.model_.classify(X)[1], expected, rtol=1e-9)


def test_small_classes_give_what_they_have():
    X, y = clusters(5, 3)
    found = score_episodes(PrototypicalLearner().double(), X, y, n_way=100, n_shot=5, n_episodes=3)
    assert found.protocol["n_way"] == 5
    assert found.log_proba.shape == (15, 5)
    with pytest.raises(ValueError, match="only one class has two rows or more; .* one unknown kind as reject_examples"):
        score_episodes(PrototypicalLearner().double(), X[:4], y[:4], n_way=2, n_shot=1)
    with pytest.raises(ValueError, match="no class has two rows or more; calibration needs at least two"):
        score_episodes(PrototypicalLearner().double(), X[:1], y[:1], n_way=2, n_shot=1)


# ---- the classifier ------------------------------------------------------------------------------------------------

HELD_OUT = clusters(20, 15, seed=3)


def fitted(**params):
    X, y = clusters(6, 5, seed=1)
    return PrototypicalClassifier(**params).fit(X, y)


def test_calibration_helps_on_yet_other_classes():
    model = fitted().calibrate(*clusters(100, 15, seed=3))
    found = model.calibration_
    assert found.nll_after <= found.nll_before
    others = score_episodes(model.model_.learner, *clusters(100, 15, seed=9), n_way=6, n_shot=5)
    before, after = (
        expected_calibration_error(reliability_bins(*others.confidence(t))) for t in (1.0, found.temperature)
    )
    assert after < 0.7 * before


def test_probabilities_are_tempered_and_answers_are_not():
    model, raw = fitted().calibrate(*HELD_OUT), fitted()
    X, _ = clusters(6, 9, seed=2)
    np.testing.assert_array_equal(model.predict(X), raw.predict(X))
    np.testing.assert_array_equal(model.decision_function(X), raw.decision_function(X))
    powers = raw.predict_proba(X) ** (1 / model.calibration_.temperature)
    np.testing.assert_allclose(model.predict_proba(X), powers / powers.sum(1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("reject", ["auto", -3.0, np.float32(-3), 0])
def test_queries_far_from_every_class_are_unknown(reject):
    model = fitted(reject=reject).calibrate(*HELD_OUT)
    X, _ = clusters(6, 9, seed=2)
    threshold = model.calibration_.threshold if reject == "auto" else reject
    _, similarity = model.nearest(X)
    answers = model.predict(X)
    assert ((answers == -1) == (similarity[:, 0] < threshold)).all()
    assert 0 < (answers == -1).sum() <= len(X)
    known = answers != -1
    np.testing.assert_array_equal(answers[known], fitted().predict(X)[known])
    assert model.predict_proba(X).sum(1) == pytest.approx(1)
    assert model.predict(X[:0]).shape == (0,)


def test_far_queries_and_invalid_ones_are_unknown_alike():
    model = fitted(reject=-50.0, on_error="unknown", unknown_label=99)
    X, _ = clusters(6, 1, seed=1, spread=0.1)
    X[2], X[4, 0] = 1e6, np.nan
    assert (model.predict(X) == 99).tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("reject", "message"),
    [
        (
            "always",
            "reject is 'always'; expected None, 'auto', 'balanced', a rate of false accepts below 100 %",
        ),
        ("500%", "reject is '500%'"),
        ("100%", "reject is '100%'"),
        (True, "reject is True"),
        (np.nan, "reject is nan"),
    ],
)
def test_what_is_no_threshold_is_told_when_fitting(reject, message):
    with pytest.raises(ValueError, match=message):
        fitted(reject=reject)
    with pytest.raises(ValueError, match=message):
        fitted().set_params(reject=reject).predict(np.zeros((1, 8)))


def test_a_threshold_that_nothing_tells_is_asked_for_when_predicting():
    with pytest.raises(ValueError, match=r"reject='auto' needs a threshold; call calibrate\(X, y\) with held-out"):
        fitted(reject="auto").predict(np.zeros((1, 8)))


def test_calibrating_on_the_classes_of_the_classifier_alone_asks_for_others():
    X, y = np.random.default_rng(0).normal(size=(24, 8)), np.arange(24) % 4
    model = PrototypicalClassifier().fit(X, y)
    with pytest.raises(
        ValueError, match="0, 1, 2, 3 are classes of the classifier too.*; give classes that it does not"
    ):
        model.calibrate(X, y)
    assert not hasattr(model, "calibration_")


def test_an_unknown_label_that_is_a_class_is_told_when_fitting():
    with pytest.raises(ValueError, match="unknown_label=3 is a class"):
        fitted(reject="auto", unknown_label=3)


def test_a_calibration_stays_while_support_changes_and_goes_with_the_next_fit():
    X, y = clusters(6, 5, seed=1)
    model = fitted().calibrate(*HELD_OUT)
    found = model.calibration_
    model.partial_fit(X[:3], [7, 7, 7]).remove(X[:1], [7]).rename_class(7, 8).remove_class(8)
    assert model.calibration_ is found
    assert pickle.loads(pickle.dumps(model)).calibration_.temperature == found.temperature
    assert not hasattr(clone(model), "calibration_")
    assert not hasattr(model.fit(X, y), "calibration_")


def test_what_cannot_be_calibrated_with_is_told_and_nothing_changes():
    model = fitted()
    X, y = HELD_OUT
    for arguments, message in (
        ((X, y[:-1]), "X has 300 rows and y 299 labels"),
        ((X[:, :3], y), "X has 3 features, but"),
        ((X[:5], y[:5]), "at least two such classes"),
        ((np.full_like(X, np.nan), y), "NaN at row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            model.calibrate(*arguments)
    with pytest.raises(ValueError, match="n_episodes is 0; expected a whole number of at least 1"):
        model.calibrate(X, y, n_episodes=0)
    with pytest.raises(ValueError, match="n_shot is 0; expected a whole number of at least 1"):
        model.calibrate(X, y, n_shot=0)
    assert not hasattr(model, "calibration_")


def test_it_is_the_same_after_a_journey_through_json():
    found = fitted().calibrate(*HELD_OUT).calibration_
    again = Calibration(**json.loads(json.dumps(found.to_dict())))
    assert again.to_dict() == found.to_dict()
    assert "5 % false accepts" in repr(found)
    assert found.curve["false_accept"][0] == pytest.approx(1)
    assert found.curve["false_reject"][0] == 0
