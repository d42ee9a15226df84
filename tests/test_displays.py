"""Displays draw what the estimators answer, with pictures where there are any."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from fewshot import (
    ConfusionDisplay,
    EmbeddingDisplay,
    FewShotClassifier,
    FewShotImageClassifier,
    FewShotModel,
    NeighboursDisplay,
    OwnEmbedder,
    PrototypicalClassifier,
    ReliabilityDisplay,
    ShotsCurveDisplay,
    UnknownDisplay,
    VariedEpisodeSampler,
    digits,
    evaluate,
)
from fewshot.classifiers.calibration import expected_calibration_error, reliability_bins
from tests.photographs import quick_embedder

DATA = digits()[:400]
SUPPORT, QUERIES = DATA.split(5)
X, QX = (part.images.reshape(len(part), -1) / 255 for part in (SUPPORT, QUERIES))
KNOWN = SUPPORT.with_classes(range(7))


@pytest.fixture(scope="module")
def model():
    return FewShotImageClassifier(quick_embedder()).fit(KNOWN)


@pytest.fixture
def ax():
    return Figure(layout="constrained").add_subplot()


def pictures(ax):
    ax.figure.canvas.draw()  # raises if anything cannot be drawn
    return sum(isinstance(child, AnnotationBbox) for child in ax.get_children())


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_confusion_counts_the_answers_and_pictures_the_classes(model, ax):
    result = model.test(QUERIES.with_classes(range(7)))
    shown = ConfusionDisplay.from_estimator(model, QUERIES.with_classes(range(7)), ax=ax)
    pd.testing.assert_frame_equal(shown.confusion, result.confusion)
    assert pictures(ax) == 2 * 7
    share = 100 * result.per_class["accuracy"].to_numpy()
    np.testing.assert_allclose(np.diag(ax.images[0].get_array()), share)
    with pytest.raises(ValueError, match="normalize is 'pred'; expected True, for shares of the true class"):
        ConfusionDisplay(result.confusion).plot(Figure().add_subplot(), normalize="pred")
    counted = ConfusionDisplay(result.confusion).plot(Figure().add_subplot(), normalize=False)
    np.testing.assert_array_equal(counted.ax_.images[0].get_array(), result.confusion)


def test_confusion_of_any_classifier_and_of_results():
    for classifier in (PrototypicalClassifier(), LogisticRegression()):
        classifier.fit(X, SUPPORT.labels)
        shown = ConfusionDisplay.from_estimator(classifier, QX, QUERIES.labels, ax=Figure().add_subplot())
        assert shown.confusion.to_numpy().trace() == (classifier.predict(QX) == QUERIES.labels).sum()
    result = evaluate("prototypical", QX, QUERIES.labels, n_episodes=5)
    assert names(ConfusionDisplay(result.confusion).plot(Figure().add_subplot()).ax_) == list(map(str, range(10)))
    with pytest.raises(ValueError, match="y is missing"):
        ConfusionDisplay.from_estimator(classifier, QX)


def test_confusion_of_many_classes_shows_the_most_mistaken(ax):
    truth = np.repeat(np.arange(60), 3)
    answers = np.where(truth >= 55, 0, truth)
    shown = ConfusionDisplay.from_predictions(truth, answers, ax=ax, most=6)
    assert names(shown.ax_) == ["0", "55", "56", "57", "58", "59"]
    assert "the 6 of 60 classes with most mistakes" in ax.get_title()
    np.testing.assert_array_equal(ax.images[0].get_array()[:, 0], 100)  # also of classes that are not shown


def test_confusion_of_labels_and_unknown_marks_of_two_types(ax):
    shown = ConfusionDisplay.from_predictions([1, 2, 10], np.array([1, "unknown", 2], object), ax=ax)
    assert shown.confusion.index.tolist() == [1, 2, 10, "unknown"]
    odd = ConfusionDisplay.from_predictions(
        ["$x_1$", "<b>", "日本"], ["$x_1$", "<b>", "<b>"], ax=Figure().add_subplot()
    )
    odd.figure_.canvas.draw()
    with pytest.raises(ValueError, match="y_true has 1 labels and y_pred 2"):
        ConfusionDisplay.from_predictions([1], [1, 2])
    with pytest.raises(ValueError, match=r"shape \(1, 2\); expected the same classes"):
        ConfusionDisplay(pd.DataFrame([[1, 2]]))


def test_damaged_pictures_are_left_out(ax):
    ConfusionDisplay.from_predictions([1, 2], [1, 2], thumbnails={1: b"damaged", 2: b""}, ax=ax)
    assert pictures(ax) == 0


def test_reliability_is_that_of_the_answers(model, ax):
    queries = QUERIES.with_classes(range(7))
    shown = ReliabilityDisplay.from_estimator(model, queries, ax=ax)
    assert shown.errors_["answers"] == pytest.approx(model.test(queries).calibration_error)
    classifier = PrototypicalClassifier().fit(X, SUPPORT.labels)
    other = ReliabilityDisplay.from_estimator(classifier, QX, QUERIES.labels, name="mine", ax=Figure().add_subplot())
    sure = classifier.predict_proba(QX).max(1)
    bins = reliability_bins(sure, classifier.predict(QX) == QUERIES.labels)
    assert other.errors_ == {"mine": expected_calibration_error(bins)}
    line = other.ax_.get_lines()[1]
    np.testing.assert_allclose(line.get_ydata(), [100 * share for share in bins["accuracy"] if share is not None])


def test_reliability_leaves_unknown_answers_out_and_shows_calibration(model, ax):
    rejecting = FewShotImageClassifier(quick_embedder(), reject="20%").fit(KNOWN)
    shown = ReliabilityDisplay.from_estimator(rejecting, QUERIES.with_classes(range(7)), ax=ax)
    assert shown.errors_["answers"] == pytest.approx(rejecting.test(QUERIES.with_classes(range(7))).calibration_error)
    calibrated = rejecting.calibrate(QUERIES.with_classes([7, 8, 9])[:60], n_episodes=5).calibration_
    both = ReliabilityDisplay.from_calibration(calibrated, ax=Figure().add_subplot())
    assert both.errors_ == {"before": calibrated.ece_before, "after": calibrated.ece_after}


@pytest.mark.parametrize(
    ("probability", "match"),
    [([0.5, 2.0], "outside 0..1"), ([[0.1, 0.9]] * 2, "expected that of each answer"), ([0.5], "for 2 answers")],
)
def test_what_is_no_probability_is_told_in_a_sentence(probability, match):
    with pytest.raises(ValueError, match=match):
        ReliabilityDisplay.from_predictions(["a", "b"], ["a", "b"], probability)


def test_the_trade_off_of_unknown_items(model, ax):
    held_out = UnknownDisplay.from_estimator(model, QUERIES, ax=ax)
    known = np.isin(QUERIES.labels, np.arange(7))
    assert (len(held_out.scores.known), len(held_out.scores.unknown)) == (known.sum(), (~known).sum())
    threshold = model.rejection("20%").threshold
    model.set_params(reject="20%")
    refused = ~np.isin(model.predict(QUERIES.images), np.arange(7))
    model.set_params(reject=None)
    np.testing.assert_array_equal(held_out.scores.known < threshold, refused[known])
    np.testing.assert_array_equal(held_out.scores.unknown < threshold, refused[~known])
    (point,) = [line for line in held_out.ax_.get_lines() if line.get_label() == 'reject="5%"']
    model.set_params(reject="5%")
    refused = ~np.isin(model.predict(QUERIES.images), np.arange(7))
    model.set_params(reject=None)
    assert point.get_xdata()[0] == pytest.approx(100 * refused[known].mean())
    by_class = [(~refused[QUERIES.labels == label]).mean() for label in (7, 8, 9)]
    assert point.get_ydata()[0] == pytest.approx(100 * np.mean(by_class))
    own = UnknownDisplay.from_estimator(model, ax=Figure().add_subplot())
    costs = model.rejection("5%")
    (point,) = [line for line in own.ax_.get_lines() if line.get_label() == 'reject="5%"']
    assert point.get_xdata()[0] == pytest.approx(100 * costs.false_reject_rate)
    assert point.get_ydata()[0] == pytest.approx(100 * costs.false_accept_rate)


@pytest.mark.parametrize("display", [ReliabilityDisplay, UnknownDisplay])
def test_several_displays_on_the_same_axes_are_told_apart(display):
    given = {
        ReliabilityDisplay: [(["a", "b"], ["a", "a"], [0.9, 0.6]), (["a", "b"], ["a", "b"], [0.8, 0.7])],
        UnknownDisplay: [([3.0, 2.0, 5.0], [1.0, 2.5]), ([3.0, 4.0], [1.0, 3.5])],
    }[display]
    ax = Figure().add_subplot()
    for name, one in zip(("first", "second"), given, strict=True):
        display.from_predictions(*one, name=name, ax=ax)
    curves = {
        line.get_label()[:5]: line.get_color() for line in ax.get_lines() if line.get_label()[:5] in ("first", "secon")
    }
    assert (len(curves), len({*curves.values()})) == (2, 2)
    labels = [line.get_label() for line in ax.get_lines()]
    assert sum(label in ("ideal", "by chance") for label in labels) == 1


def test_the_trade_off_of_a_classifier_of_embeddings_and_of_scores(ax):
    classifier = PrototypicalClassifier().fit(X[SUPPORT.labels < 7], KNOWN.labels)
    shown = UnknownDisplay.from_estimator(classifier, QX, QUERIES.labels, ax=ax)
    assert 0.5 < shown.auroc_ < 1
    perfect = UnknownDisplay.from_predictions([3, 4], [1, 2], ax=Figure().add_subplot())
    assert perfect.auroc_ == 1
    assert list(perfect.thresholds) == ["5% (chosen on these)", "balanced (chosen on these)"]
    with pytest.raises(ValueError, match="no item is of an unknown class"):
        UnknownDisplay.from_estimator(classifier, QX[QUERIES.labels < 7], QUERIES.labels[QUERIES.labels < 7])
    with pytest.raises(ValueError, match="no item is of a known class"):
        UnknownDisplay.from_predictions([], [1])
    with pytest.raises(ValueError, match="call calibrate"):
        UnknownDisplay.from_estimator(classifier)


KX, KY = X[SUPPORT.labels < 7], KNOWN.labels
REST = np.isin(QUERIES.labels, np.arange(7, 10))


def drawn(display, *args, **how):
    shown = display.from_estimator(*args, ax=Figure().add_subplot(), **how)
    shown.figure_.canvas.draw()
    return shown


def same_scores(one, other):
    np.testing.assert_allclose(one.scores.known, other.scores.known, rtol=1e-9)
    np.testing.assert_allclose(one.scores.unknown, other.scores.unknown, rtol=1e-9)
    assert one.thresholds == pytest.approx(other.thresholds)


@pytest.mark.parametrize("classifier", [PrototypicalClassifier(), FewShotClassifier("discriminant")])
def test_a_pipeline_that_ends_in_a_few_shot_classifier_has_its_scores_of_the_unknown(classifier):
    scale = StandardScaler().fit(KX)
    alone = classifier.fit(scale.transform(KX), KY)
    pipeline = make_pipeline(StandardScaler(), make_pipeline(classifier)).fit(KX, KY)
    expected = drawn(UnknownDisplay, alone, scale.transform(QX), QUERIES.labels)
    same_scores(drawn(UnknownDisplay, pipeline, QX, QUERIES.labels), expected)
    search = GridSearchCV(make_pipeline(StandardScaler(), classifier), {"standardscaler__with_std": [True]}, cv=2)
    same_scores(drawn(UnknownDisplay, search.fit(KX, KY), QX, QUERIES.labels), expected)


def test_the_evidence_of_a_pipeline_is_that_of_its_last_step():
    pipeline = make_pipeline(StandardScaler(), FewShotClassifier("discriminant")).fit(KX, KY)
    same_scores(drawn(UnknownDisplay, pipeline), drawn(UnknownDisplay, pipeline[-1]))
    with pytest.raises(ValueError, match="call calibrate"):
        drawn(UnknownDisplay, make_pipeline(StandardScaler(), PrototypicalClassifier()).fit(KX, KY))


@pytest.mark.parametrize("steps", [(), (StandardScaler(),)])
def test_a_classifier_of_scikit_learn_scores_the_unknown_by_its_probabilities(steps):
    classifier = make_pipeline(*steps, LogisticRegression()).fit(KX, KY) if steps else LogisticRegression().fit(KX, KY)
    shown = drawn(UnknownDisplay, classifier, QX, QUERIES.labels)
    sure = classifier.predict_proba(QX).max(1)
    np.testing.assert_array_equal(shown.scores.known, sure[~REST])
    np.testing.assert_array_equal(shown.scores.unknown, sure[REST])
    assert list(shown.thresholds) == ["5% (chosen on these)", "balanced (chosen on these)"]
    with pytest.raises(ValueError, match=r"^LogisticRegression has no evidence of its own; give X and y$"):
        UnknownDisplay.from_estimator(classifier)
    with pytest.raises(ValueError, match="y is missing"):
        UnknownDisplay.from_estimator(classifier, QX)


def test_a_classifier_without_probabilities_has_a_confusion_and_is_refused_by_others():
    pipeline = make_pipeline(StandardScaler(), LinearSVC(random_state=0)).fit(X, SUPPORT.labels)
    shown = drawn(ConfusionDisplay, pipeline, QX, QUERIES.labels)
    assert shown.confusion.to_numpy().trace() == (pipeline.predict(QX) == QUERIES.labels).sum()
    for display in (UnknownDisplay, ReliabilityDisplay):
        with pytest.raises(TypeError, match=r"^LinearSVC has no predict_proba; expected a classifier with prob"):
            display.from_estimator(pipeline, QX, QUERIES.labels)


@pytest.mark.parametrize("last", [FewShotClassifier("discriminant"), LogisticRegression()])
def test_a_pipeline_that_begins_with_an_embedder_takes_images(last):
    pipeline = make_pipeline(quick_embedder(), last).fit(KNOWN.images, KNOWN.labels)
    embedded = pipeline[0].transform(QUERIES)
    same_scores(drawn(UnknownDisplay, pipeline, QUERIES), drawn(UnknownDisplay, pipeline[-1], embedded, QUERIES.labels))
    for display in (ConfusionDisplay, ReliabilityDisplay):
        drawn(display, pipeline, QUERIES)
    drawn(ConfusionDisplay, pipeline, QUERIES.images, QUERIES.labels)
    with pytest.raises(TypeError, match="has no embedder; expected a FewShotImageClassifier"):
        EmbeddingDisplay.from_estimator(pipeline, QUERIES)


def test_a_pipeline_that_ends_in_a_model_of_images_is_drawn_as_the_model(model):
    twice = make_pipeline(FunctionTransformer(np.negative), "passthrough", model)  # of uint8, its own inverse
    twin = QUERIES.with_classes(range(7))
    same_scores(
        drawn(UnknownDisplay, twice, type(QUERIES)(np.negative(QUERIES.images), QUERIES.labels)),
        drawn(UnknownDisplay, model, QUERIES),
    )
    shown = drawn(ConfusionDisplay, twice, type(twin)(np.negative(twin.images), twin.labels))
    pd.testing.assert_frame_equal(shown.confusion, model.test(twin).confusion)
    assert pictures(shown.ax_) == 2 * 7
    expected = drawn(EmbeddingDisplay, model, twin)
    found = drawn(EmbeddingDisplay, twice, type(twin)(np.negative(twin.images), twin.labels))
    np.testing.assert_array_equal(found.points, expected.points)
    near = drawn(NeighboursDisplay, twice, np.negative(twin.images[:2])).answers
    assert [one.label for one in near] == [one.label for one in model.answer(twin.images[:2])]
    pd.testing.assert_frame_equal(drawn(ShotsCurveDisplay, twice).points, drawn(ShotsCurveDisplay, model).points)


def test_the_unknown_of_a_learner_of_local_descriptors_and_of_rows_that_were_not_read():
    local = FewShotImageClassifier("conv4", "dn4", weights="random", img_size=28, progress=False).fit(KNOWN)
    shown = drawn(UnknownDisplay, local, QUERIES)
    assert len(shown.scores.known) == (~REST).sum()
    classifier = PrototypicalClassifier().fit(KX, KY)
    gaps = QX.copy()
    gaps[:3] = np.nan
    shown = drawn(UnknownDisplay, classifier, gaps, QUERIES.labels)
    assert len(shown.scores.known) + len(shown.scores.unknown) == len(QX) - 3
    with pytest.raises(ValueError, match="y is missing"):
        UnknownDisplay.from_estimator(classifier, QX)
    with pytest.raises(ValueError, match="not fitted"):
        UnknownDisplay.from_estimator(PrototypicalClassifier(), QX, QUERIES.labels)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_map_shows_the_support_or_other_items(method, model, ax):
    shown = EmbeddingDisplay.from_estimator(model, method=method, ax=ax)
    assert shown.points.shape == (35, 2)
    assert pictures(ax) == 35
    assert {text.get_text() for text in ax.texts} == set(map(str, range(7)))
    other = EmbeddingDisplay.from_estimator(
        model, QUERIES[:12], method=method, ax=Figure().add_subplot(), pictures=False
    )
    assert other.labels.tolist() == QUERIES.labels[:12].tolist()
    assert pictures(other.ax_) == 0
    answered = EmbeddingDisplay.from_estimator(model, QUERIES.images[:12], method=method, ax=Figure().add_subplot())
    assert answered.labels.tolist() == model.predict(QUERIES.images[:12]).tolist()
    again = EmbeddingDisplay.from_estimator(model, method=method, ax=Figure().add_subplot())
    np.testing.assert_array_equal(again.points, shown.points)


def test_a_map_keeps_distances_leaves_unreadable_items_out_and_says_what_is_wrong(ax):
    flat = np.random.default_rng(0).normal(size=(20, 2)) @ np.random.default_rng(1).normal(size=(2, 9))
    x = np.vstack([flat, np.full((1, 9), np.nan)])
    shown = EmbeddingDisplay.from_embeddings(x, ["a"] * 21, ax=ax)
    gaps = [np.linalg.norm(one[:, None] - one[None], axis=-1) for one in (flat, shown.points)]
    np.testing.assert_allclose(*gaps, atol=1e-9)
    assert "100 % of the variance" in ax.get_title(loc="left")
    line = EmbeddingDisplay.from_embeddings([[1.0], [2.0], [4.0]], [1, 2, 3], ax=Figure().add_subplot())
    assert line.points[:, 0].tolist() == [1, 2, 4]
    with pytest.raises(ValueError, match="there are 2 items; expected at least 3"):
        EmbeddingDisplay.from_embeddings(np.eye(2), [1, 2])
    with pytest.raises(ValueError, match=r"X has shape \(3, 3\) for 2 labels"):
        EmbeddingDisplay.from_embeddings(np.eye(3), [1, 2])
    with pytest.raises(ValueError, match="method"):
        EmbeddingDisplay.from_embeddings(np.eye(3), [1, 2, 3], method="umap")
    forgetful = FewShotImageClassifier(quick_embedder(), keep_support=False).fit(KNOWN)
    with pytest.raises(ValueError, match="support was not kept; give X"):
        EmbeddingDisplay.from_estimator(forgetful)


def test_the_curve_of_a_support_and_of_results(model, ax):
    check = model.check(n_shown=0)
    shown = ShotsCurveDisplay.from_estimator(model, ax=ax)
    measured = shown.points[shown.points["is_measured"]]
    assert measured["accuracy"].tolist() == [point.accuracy for point in check.curve]
    expected = shown.points[~shown.points["is_measured"]]
    assert expected["accuracy"].tolist() == [check.expected(k) for k in (1, 2, 4)]
    results = [
        evaluate(learner, QX, QUERIES.labels, n_shot=k, n_query=5, n_episodes=20)
        for learner in ("matching", "prototypical")
        for k in (1, 5)
    ]
    other = ShotsCurveDisplay.from_results(results, ax=Figure().add_subplot())
    assert len(other.ax_.get_legend().get_texts()) == 2
    assert other.points["accuracy"].tolist() == [result.mean for result in results]
    assert other.ax_.get_xticks().tolist() == [1, 5]
    close = pd.DataFrame({**other.points, "images": [8, 8.5, 20, 9]}).assign(is_measured=[True, False, True, True])
    assert ShotsCurveDisplay(close).plot(Figure().add_subplot()).ax_.get_xticks().tolist() == [8, 20]
    best = ShotsCurveDisplay(close.assign(accuracy=1.0, ci95=0.05)).plot(Figure().add_subplot())
    assert best.ax_.get_ylim() == (90, 101)  # no number above 100 %
    varied = evaluate("prototypical", QX, QUERIES.labels, n_episodes=3, sampler=VariedEpisodeSampler)
    with pytest.raises(ValueError, match="a result has no n_shot"):
        ShotsCurveDisplay.from_results([varied])
    with pytest.raises(ValueError, match="points has 0 rows"):
        ShotsCurveDisplay.from_results([])


def test_a_curve_of_answers_is_their_accuracy(ax):
    answers = {
        k: PrototypicalClassifier().fit(X[::step], SUPPORT.labels[::step]).predict(QX) for k, step in ((1, 5), (5, 1))
    }
    shown = ShotsCurveDisplay.from_predictions(QUERIES.labels, answers, name="pixels", ax=ax)
    right = [(own == QUERIES.labels).mean() for own in answers.values()]
    assert shown.points["accuracy"].tolist() == right
    assert shown.points["ci95"].tolist() == pytest.approx([1.96 * (p * (1 - p) / len(QX)) ** 0.5 for p in right])
    assert (shown.points["images"].tolist(), set(shown.points["name"])) == ([1, 5], {"pixels"})
    mixed = ShotsCurveDisplay.from_predictions([1, 2], {1: [1, "unknown"]}, ax=Figure().add_subplot())
    assert mixed.points["accuracy"].tolist() == [0.5]
    with pytest.raises(ValueError, match=r"y_true has shape \(2,\) and y_pred\[5\] \(1,\); expected n labels in both"):
        ShotsCurveDisplay.from_predictions([1, 2], {1: [1, 2], 5: [1]})
    with pytest.raises(ValueError, match="points has 0 rows"):
        ShotsCurveDisplay.from_predictions([1, 2], {})


def test_neighbours_are_those_of_the_answers(model, ax):
    shown = NeighboursDisplay.from_estimator(model, QUERIES.images[:3], n_neighbours=4, ax=ax)
    assert pictures(ax) == 3 * 5
    answers = model.answer(QUERIES.images[:3], n_neighbours=4)
    for one, other in zip(shown.answers, answers, strict=True):
        assert [near.id for near in one.neighbours] == [near.id for near in other.neighbours]
    mistakes = [answer for _, answer in model.test(QUERIES).mistakes]
    assert pictures(NeighboursDisplay.from_answers(mistakes, ax=Figure().add_subplot(), most=2).ax_) == 2 * 4
    model.set_params(on_error="unknown")
    unread = NeighboursDisplay.from_estimator(model, ["missing.png"], ax=Figure().add_subplot())
    model.set_params(on_error="raise")
    assert "not read" in unread.ax_.texts[0].get_text()
    assert pictures(unread.ax_) == 0
    with pytest.raises(ValueError, match="there are no answers"):
        NeighboursDisplay.from_answers([])


def test_text_has_displays_too_and_other_estimators_are_refused(ax):
    embedder = OwnEmbedder(lambda texts: [[len(text), text.count("a"), 1.0] for text in texts], "length 1")
    model = FewShotModel(embedder).fit(["a", "aa", "bbbb", "bbbbb"], ["short", "short", "long", "long"])
    assert ConfusionDisplay.from_estimator(model, ["aaa", "bbbbbb"], ["short", "long"], ax=ax).confusion.shape == (2, 2)
    EmbeddingDisplay.from_estimator(model, ax=Figure().add_subplot()).figure_.canvas.draw()
    NeighboursDisplay.from_estimator(model, ["aaa"], ax=Figure().add_subplot()).figure_.canvas.draw()
    for display in (EmbeddingDisplay, ShotsCurveDisplay):
        with pytest.raises(TypeError, match="PrototypicalClassifier has no .*; expected a FewShotImageClassifier"):
            display.from_estimator(PrototypicalClassifier())


def test_without_axes_a_figure_of_pyplot_is_made(model):
    before = pyplot.get_fignums()
    shown = NeighboursDisplay.from_estimator(model, QUERIES.images[:1])
    try:
        assert shown.figure_.number not in before
        assert shown.figure_ is pyplot.gcf()
    finally:
        pyplot.close(shown.figure_)
