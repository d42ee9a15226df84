import numpy as np
import pytest
import torch

from fewshot import EpisodeSampler, FewShotClassifier, MatchingLearner, create_backbone, digits, evaluate
from fewshot.episodes.evaluate import mean_and_ci95

RNG = np.random.default_rng(0)
NAMES = np.array([f"class {i}" for i in range(12)])
Y = np.repeat(NAMES, 10)
X = (RNG.normal(size=(12, 8)).repeat(10, 0) + RNG.normal(0, 0.8, (120, 8))).astype(np.float32)
SIZES = {"n_way": 5, "n_shot": 2, "n_query": 4, "n_episodes": 30, "seed": 4}


@pytest.mark.parametrize("learner", ["prototypical", "matching"])
def test_it_agrees_with_a_classifier_fitted_anew_for_each_episode(learner):
    result = evaluate(learner, X, Y, **SIZES)
    sampler = EpisodeSampler(Y, 5, 2, 4, seed=4)
    accuracies, counts = [], np.zeros((12, 12), int)
    for i in range(30):
        episode = sampler[i]
        answer = FewShotClassifier(learner).fit(X[episode.support], Y[episode.support]).predict(X[episode.query])
        accuracies.append(np.mean(answer == Y[episode.query]))
        for true, got in zip(Y[episode.query], answer, strict=True):
            counts[np.flatnonzero(result.classes == true), np.flatnonzero(result.classes == got)] += 1
    np.testing.assert_allclose(result.accuracies, accuracies)
    np.testing.assert_array_equal(result.counts, counts)


def test_batches_of_episodes_do_not_change_the_answers(monkeypatch):
    whole = evaluate("matching", X, Y, **SIZES)
    monkeypatch.setattr("fewshot.episodes.evaluate.BATCH_ELEMENTS", 1)
    np.testing.assert_array_equal(evaluate("matching", X, Y, **SIZES).accuracies, whole.accuracies)


def test_the_interval_is_1_96_sigma_over_root_n():
    values = np.array([0.2, 0.4, 0.9])
    mean, ci95 = mean_and_ci95(values)
    assert mean == pytest.approx(0.5)
    assert ci95 == pytest.approx(1.96 * np.sqrt(((0.3**2 + 0.1**2 + 0.4**2) / 2) / 3))
    assert np.isnan(mean_and_ci95(values[:1])[1])


def test_the_confusion_has_the_users_labels():
    result = evaluate("prototypical", X, Y, **SIZES)
    confusion = result.confusion
    assert confusion.index.tolist() == confusion.columns.tolist() == sorted(NAMES)
    assert confusion.to_numpy().sum() == 30 * 5 * 4
    assert np.trace(confusion) / confusion.to_numpy().sum() == pytest.approx(result.mean)
    assert result.per_class()["class 3"] == confusion.loc["class 3", "class 3"] / confusion.loc["class 3"].sum()


def test_the_frame_has_a_row_an_episode_and_the_protocol():
    frame = evaluate("prototypical", X, Y, **SIZES).to_frame()
    assert frame["episode"].tolist() == list(range(30))
    assert set(frame.columns) >= {"accuracy", "learner", "n_way", "n_shot", "n_query", "seed", "transductive"}


def test_episodes_of_one_class_say_that_every_answer_is_right():
    with pytest.warns(UserWarning, match="one class each, so every answer is right; give n_way of 2 or more"):
        assert evaluate("prototypical", X, Y, **{**SIZES, "n_way": 1}).mean == 1


def test_a_difference_is_paired():
    one, other = evaluate("prototypical", X, Y, **SIZES), evaluate("matching", X, Y, **SIZES)
    mean, ci95 = one.difference(other)
    assert mean == pytest.approx(one.mean - other.mean)
    assert ci95 < np.hypot(one.ci95, other.ci95)
    with pytest.raises(ValueError, match="seed 4 and 5; a paired difference needs the same episodes"):
        one.difference(evaluate("prototypical", X, Y, **{**SIZES, "seed": 5}))
    with pytest.raises(ValueError, match="different classes"):
        one.difference(evaluate("prototypical", X, np.char.upper(Y), **SIZES))
    mixed = np.arange(len(Y)).reshape(12, 10).T.ravel()  # class by class in turn: the same classes are drawn
    with pytest.raises(ValueError, match="rows in another order; .* the same rows in the same order"):
        one.difference(evaluate("prototypical", X[mixed], Y[mixed], **SIZES))


def test_one_episode_has_no_interval():
    result = evaluate("prototypical", X, Y, **{**SIZES, "n_episodes": 1})
    assert repr(result).endswith(", 5-way 2-shot, one episode, so no interval)")
    assert not {"nan", "+-"} & set(repr(result).split())
    assert "nan" not in result._repr_html_()
    assert result.to_dict()["ci95"] is None


def test_images_are_embedded_by_the_backbone_in_evaluation_mode():
    data, backbone = digits(), create_backbone("conv4", in_chans=1).train()
    result = evaluate("prototypical", data.images, data.labels, backbone=backbone, n_episodes=20)
    assert backbone.training
    assert 0.2 < result.mean < 0.95
    assert "5-way 1-shot, 20 episodes" in repr(result)


def test_the_learner_is_not_changed():
    learner = MatchingLearner(learn_temperature=True).train()
    evaluate(learner, torch.from_numpy(X), Y, **SIZES)
    assert learner.training
    assert learner.temperature.item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("x", "y", "more", "match"),
    [
        (X[:, :, None], Y, {}, "pass backbone= to embed images"),
        (X[:-1], Y, {}, "119 rows and y 120 labels"),
        (np.where(np.arange(120)[:, None] == 7, np.nan, X), Y, {}, "X contains NaN at row 7, column 0; drop or repair"),
        (X, Y, {"n_way": 13}, "fewer than n_way=13"),
        (X, Y, {"n_episodes": 0}, "n_episodes is 0"),
    ],
)
def test_bad_input_is_named(x, y, more, match):
    with pytest.raises(ValueError, match=match):
        evaluate("prototypical", x, y, **{**SIZES, **more})


def test_logits_of_nan_are_no_answers():
    none = {"read": lambda self, similarity, memory: torch.full((*similarity.shape[:-1], 5), np.nan)}
    own = type("Own", (MatchingLearner,), none)
    with pytest.raises(ValueError, match="temperature 0.1 gave logits of NaN"):
        evaluate(own(), X, Y, **{**SIZES, "n_episodes": 1})


def test_a_backbone_that_is_no_network_is_refused():
    with pytest.raises(TypeError, match=r"backbone is 'conv4'; expected a torch network; or pass embeddings"):
        evaluate("prototypical", np.zeros((120, 28, 28), np.uint8), Y, backbone="conv4")
    with pytest.raises(TypeError, match="images are of type float32; .* or call the network yourself"):
        evaluate("prototypical", X, Y, **SIZES, backbone=torch.nn.Identity())


def test_an_unknown_learner_is_named():
    with pytest.raises(ValueError, match="no learner is called 'protoypical'; did you mean 'prototypical'"):
        evaluate("protoypical", X, Y)


@pytest.mark.parametrize("scale", [1e-22, 1e-35])
def test_tiny_embeddings_are_measured_as_larger_ones_are(scale):
    large = evaluate("prototypical", X, Y, **SIZES)
    tiny = evaluate("prototypical", (scale * X).astype(np.float32), Y, **SIZES)
    np.testing.assert_allclose(tiny.mean, large.mean, atol=0.01)


def test_a_notebook_shows_the_hardest_classes():
    x = np.random.default_rng(0).normal(size=(240, 4))
    labels = [f"<b>{i % 12:02d}" for i in range(240)]
    result = evaluate("prototypical", x, labels, n_query=5, n_episodes=20)
    shown = result._repr_html_()
    assert f"{100 * result.mean:.1f} %" in shown
    assert "the hardest 10 of 12 classes" in shown
    easiest = result.per_class().idxmax()
    assert easiest.replace("<b>", "&lt;b&gt;") not in shown
    assert "<b>" not in shown
