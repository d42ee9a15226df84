"""How good a model is on labelled items."""

import numpy as np
import pytest

from fewshot import FewShotImageClassifier, FewShotModel, LabeledImages, OwnEmbedder
from fewshot.errors import ImageDecodeError
from fewshot.images.pages import write_test
from fewshot.images.support_pages import write_check
from fewshot.images.tested import TestResult
from tests.photographs import photos, quick_embedder, write_photos


def items(*rows):
    """Vectors as items, and an embedder that leaves them as they are."""
    return [np.array(row, np.float32) for row in rows]


@pytest.fixture
def model():
    embedder = OwnEmbedder(lambda batch: np.stack(batch), "as they are")
    return FewShotModel(embedder, "cosine-prototypical").fit(items([1, 0, 0], [0, 1, 0], [0, 0, 1]), ["a", "b", "c"])


def test_accuracy_confusion_and_each_class_are_counted(model):
    queries = items([1, 0.1, 0], [1, 0, 0.1], [0.9, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0.9])
    found = model.test(queries, ["a", "a", "a", "b", "b", "c"])
    assert found.right.tolist() == [True, True, False, True, True, False]
    assert (found.n, found.accuracy, found.n_unreadable) == (6, 4 / 6, 0)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.confusion.to_numpy().tolist() == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]
    rows = found.per_class
    assert rows.loc["a"].tolist() == [3, 2, 2 / 3, 2, 1.0, "b"]
    assert rows.loc["b"].tolist() == [2, 2, 1.0, 4, 0.5, None]
    assert np.isnan(rows.loc["c", "precision"])
    assert model.score(queries, found.truth) == found.accuracy


def test_the_interval_is_wilsons(model):
    found = model.test(items(*[[1, 0, 0]] * 9, [0, 1, 0]), ["a"] * 10)
    p, n, z = 0.9, 10, 1.959964
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert found.interval == pytest.approx([(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)])


def test_classes_that_the_model_does_not_know_are_counted_apart(model):
    queries = items([1, 0, 0], [1, 1, 1], [0, 1, 0])
    found = model.test(queries, ["a", "x", "x"])
    assert (found.n, found.accuracy, found.unknown_accepted) == (1, 1.0, 1.0)
    assert list(found.per_class.index) == ["a"]
    assert list(found.confusion.index) == ["a", "b", "c", "x"]
    model.set_params(reject=0.9)
    found = model.test(queries, ["a", "x", "x"])
    assert found.right.tolist() == [True, True, False]
    assert (found.unknown_accepted, model.test(queries[:1], ["a"]).unknown_accepted) == (0.5, None)
    assert str(found).endswith("; 50 % of 2 items of unknown classes ('x') taken for a class")
    assert found.to_dict()["unknown_images"] == found.unknown_images == 2
    assert "unknown classes" not in str(model.test(queries[:1], ["a"]))
    alone = model.test(queries[1:], ["x", "y"])
    assert str(alone) == "50 % of 2 items of unknown classes ('x', 'y') taken for a class"
    assert (alone.n, alone.unknown_accepted, len(alone.per_class)) == (0, 0.5, 0)
    figures = (alone.accuracy, alone.refused, *alone.interval, alone.mean_probability, alone.calibration_error)
    assert np.isnan([*figures, alone.balanced_accuracy]).all()
    model.set_params(reject=None)
    with pytest.raises(
        ValueError, match="the model knows none of the classes 'x', 'y'; expected some of 'a', 'b', 'c'"
    ):
        model.test(queries, ["x", "x", "y"])


def test_what_is_refused_is_no_sure_answer():
    truth, predicted = np.array(["a", "a", "b", "b", "x"]), np.array(["a", "b", "?", "b", "a"])
    found = TestResult(np.array(["a", "b"]), truth, predicted, np.array([0.6, 0.8, 0.99, 1.0, 0.5]), 0)
    assert (found.accuracy, found.refused, found.mean_probability) == (0.5, 0.25, pytest.approx(0.8))
    known = "50.0 % of 4 items right (15 to 85 %), 25 % answered unknown; of the others 66.7 % right"
    assert str(found) == f"{known}; 100 % of 1 item of unknown classes ('x') taken for a class"
    assert found.answered_accuracy == pytest.approx(2 / 3)
    assert "80 % sure on the mean of those that it answered" in repr(found)
    for part in ("66.7 %", "of the others right", "how sure it was of the others"):
        assert part in found._repr_html_()
    assert found.calibration_error == pytest.approx((0.4 + 0.8 + 0) / 3)
    refused = TestResult(found.classes, truth[:2], np.array(["?", "?"]), found.probability[:2], 0)
    assert (refused.accuracy, refused.refused) == (0, 1)
    assert np.isnan([refused.mean_probability, refused.calibration_error, refused.answered_accuracy]).all()
    assert str(refused) == "0.0 % of 2 items right (0 to 66 %), 100 % answered unknown"


def test_sure_mistakes_and_unsure_successes_are_explained():
    images, labels = photos(8)
    model = FewShotImageClassifier(quick_embedder()).fit(images[5:11], labels[5:11])
    wrong = [labels[-1], *labels[1:-1], labels[0]]
    found = model.test(images, wrong, n_shown=3)
    assert [label for label, _ in found.mistakes] == [
        wrong[i] for i in np.argsort(-found.probability, kind="stable") if not found.right[i]
    ][:3]
    shares = [answer.probability for _, answer in found.mistakes]
    assert shares == sorted(shares, reverse=True)
    unsure = [answer.probability for _, answer in found.unsure]
    assert len(unsure) == 3
    np.testing.assert_allclose(unsure, np.sort(found.probability[found.right])[:3], rtol=1e-6)
    assert all(answer.label == label and answer.neighbours for label, answer in found.unsure)
    assert model.test(images, wrong, n_shown=0).mistakes == []
    with pytest.raises(ValueError, match="n_shown is -1"):
        model.test(images, wrong, n_shown=-1)


def test_unreadable_images_are_left_out_or_raise(tmp_path):
    paths = write_photos(tmp_path, 3)
    labels = [path.split("/")[-2] for path in paths]
    model = FewShotImageClassifier(quick_embedder(), on_error="skip").fit(paths[1:5], labels[1:5])
    (tmp_path / labels[0] / "bad.png").write_bytes(b"no image")
    data = LabeledImages.open(tmp_path)
    with pytest.warns(UserWarning, match="1 of 7 images could not be read"):
        found = model.test(data)
    assert (found.n, found.n_unreadable) == (6, 1)
    model.set_params(on_error="raise")
    with pytest.raises(ImageDecodeError, match=r"bad\.png"):
        model.test(data)


def test_the_page_shows_figures_mistakes_and_successes(model, tmp_path):
    images, _ = photos(4)
    model = FewShotImageClassifier(quick_embedder()).fit(images[:4], ["<b>one", "images"] * 2)
    write_test(tmp_path / "new" / "page.html", model.test(images, ["<b>one", "images", "images", "what"] * 2))
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    for part in ("% right", "What is taken for what", "Mistakes", "Right, but only just", "✗ wrong, it is", "✓ right"):
        assert part in page
    assert "of 2 images of unknown classes taken for a class" in page
    assert "<b>one" not in page


@pytest.mark.parametrize("labels", [["a" * 300, "b"], [True, False], [3, 7], ["bee\udcff", "ant"], ["unknown", "b"]])
def test_labels_of_any_kind_are_counted_and_shown(labels, tmp_path):
    x = items([1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.1])
    embedder = OwnEmbedder(lambda batch: np.stack(batch), "as they are")
    y = np.array(labels, object).repeat(2) if isinstance(labels[0], str) else np.repeat(labels, 2)
    model = FewShotModel(embedder, "cosine-prototypical").fit(x, y)
    for model_, rejected in ((model, 0), (model.set_params(reject=0.95), 1)):
        found = model_.test([*x, *items([1, 1, 1])], [*y.tolist(), labels[0]])
        assert found.confusion.to_numpy().sum() == 5
        assert found.per_class["images"].sum() == 5
        assert found.right.tolist()[:4] == [True] * 4
        write_test(tmp_path / f"{rejected}.html", found)
    write_check(tmp_path / "check.html", model.check())
    assert len(model.check().n_taught) == 4


def test_if_no_known_class_can_be_read_a_sentence_says_so(tmp_path):
    paths = write_photos(tmp_path, 2)
    labels = [path.split("/")[-2] for path in paths]
    model = FewShotImageClassifier(quick_embedder(), on_error="skip").fit(paths, labels)
    with pytest.raises(ValueError, match="no item of a class that the model knows could be read"):
        model.test([b"no image", paths[0]], [labels[0], "other"])


def test_items_that_were_learned_are_counted_and_warned_of(model, recwarn):
    queries = items([1, 0.1, 0], [0, 1, 0.1])
    assert model.test(queries, ["a", "b"]).n_learned == 0
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"learned before, 2 of 4 items tested, such as .*leave these out"):
        found = model.test([*items([1, 0, 0]), *queries, *items([0, 0, 1])], ["a", "a", "b", "c"])
    assert found.n_learned == 2
    assert str(found).endswith("; learned before: 2, so expect less of new ones")
    model.set_params(keep_support=False).partial_fit(items([1, 0, 0.2]), ["a"])
    assert model.test(items([1, 0, 0.2]), ["a"]).n_learned == 0  # the support is gone


def test_a_copy_among_tested_items_is_not_taken_for_learned(model):
    assert model.test(items([1, 0.1, 0], [1, 0.1, 0]), ["a", "a"]).n_learned == 0
