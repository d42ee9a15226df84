"""How good a model will be, from its support alone."""

import numpy as np
import pytest

from fewshot import FewShotImageClassifier, FewShotModel, OwnEmbedder
from fewshot.images.checked import CheckResult
from fewshot.images.support_pages import write_check
from fewshot.images.tested import TestResult
from tests.photographs import photos, quick_embedder


def model_of(x, y, **params):
    embedder = OwnEmbedder(lambda batch: np.stack(batch), "as they are")
    return FewShotModel(embedder, **params).fit(list(np.asarray(x, np.float32)), y)


def of(right, n_taught):
    """A result with these answers."""
    right = np.array(right)
    truth = np.zeros(len(right), int)
    answers = TestResult(np.array([0, 1]), truth, np.where(right, 0, 1), np.full(len(right), 0.9), 0)
    return CheckResult(answers, np.array(n_taught), [])


def test_the_estimate_allows_for_the_missing_image_and_for_more():
    found = of([True] * 8 + [False] * 2, [4] * 10)
    assert found.accuracy == pytest.approx(1 - 0.2 * 0.8**0.4)
    assert found.expected(2) == pytest.approx(1 - 0.2 * 0.8**0.4 * 0.5**0.5)
    low, high = found.interval
    assert 0 < low < 0.8 < found.accuracy < high < 1
    assert of([True] * 9, [4] * 9).interval[1] == 1
    narrow = of(([True] * 8 + [False] * 2) * 10, [4] * 100).interval
    assert low < narrow[0] < narrow[1] < high


def test_uneven_classes_are_told_as_if_they_came_equally_often():
    truth, right = np.repeat([0, 1], [18, 2]), np.array([True] * 18 + [False] * 2)
    answers = TestResult(np.array([0, 1]), truth, np.where(right, truth, 1 - truth), np.full(20, 0.9), 0)
    found = CheckResult(answers, np.where(truth, 1, 17), [])
    missed = (1 / 2) ** 0.4
    assert found.accuracy == pytest.approx(1 - 0.1 * missed)
    assert found.balanced_accuracy == pytest.approx(1 - 0.5 * missed)
    assert str(found).endswith(" %), or 62 % if all classes come equally often")
    assert "62 %" in found._repr_html_()
    even = of([True] * 8 + [False] * 2, [4] * 10)
    assert even.balanced_accuracy == pytest.approx(even.accuracy)
    assert str(even).endswith(" %)")


@pytest.mark.parametrize("learner", [None, "cosine-prototypical"])
def test_it_agrees_with_what_new_items_give(learner):
    rng = np.random.default_rng(0)
    middles, inside = 0.6 * rng.random((6, 40)), 0
    for _ in range(20):
        x, y = rng.random((30, 40)) + middles.repeat(5, 0), np.arange(6).repeat(5)
        model = model_of(x, y, **({"learner": learner} if learner else {}))
        queries = rng.random((300, 40)) + middles.repeat(50, 0)
        low, high = model.check().interval
        inside += low <= model.score(list(queries.astype(np.float32)), np.arange(6).repeat(50)) <= high
    assert inside >= 17


def test_pairs_classes_of_one_and_mistakes_are_told():
    images, labels = photos(4)
    labels[3] = "flower"  # a temple
    model = FewShotImageClassifier(quick_embedder())
    model.fit([*images, photos(5)[0][-1]], [*labels, "alone"], ids=[*map(str, range(8)), "last"])
    found = model.check(n_shown=2)
    assert found.alone == ["alone"]
    assert len(found.n_taught) == 8
    pairs = {(row["class"], row["other"]): row["of"] for row in found.confused.to_dict("records")}
    assert pairs["flower", "temple"] == 8
    counts = found.left_out.confusion
    for row in found.confused.to_dict("records"):
        assert row["as_other"] == counts.loc[row["class"], row["other"]]
        assert row["images"] - row["as_other"] == counts.loc[row["other"], row["class"]]
    for label, answer in found.left_out.mistakes:
        assert answer.label != label
        assert answer.id not in [near.id for near in answer.neighbours]
        assert len(answer.neighbours) == 3
    assert model.check(n_shown=0).left_out.mistakes == []


def test_calibration_and_what_a_learner_keeps_do_not_mislead_it():
    rng = np.random.default_rng(0)
    x, y = np.abs(rng.normal(size=(12, 8))) + np.arange(3).repeat(4)[:, None] % 2, np.arange(3).repeat(4)
    model = model_of(x, y, learner="cosine-prototypical")
    before = model.check().left_out.mean_probability
    others = rng.normal(size=(16, 8)).repeat(10, 0) + 0.5 * rng.normal(size=(160, 8))
    model.calibrate(list(others.astype(np.float32)), [f"other {i // 10}" for i in range(160)], n_episodes=40)
    assert model.check().left_out.mean_probability != before
    assert model_of(x, y, learner="lifelong").check().alone == []
    found = model.check()
    assert all(len(answer.neighbours) == 3 for _, answer in found.left_out.mistakes)
    with pytest.raises(ValueError, match="times is 0"):
        found.expected(0)


def test_copies_count_once():
    rng = np.random.default_rng(0)
    x, y = rng.random((24, 30)) + 0.3 * rng.random((4, 30)).repeat(6, 0), np.arange(4).repeat(6)
    once, other = model_of(x, y).check(), np.concatenate([x[:1], x[:1]])
    twice = model_of(np.concatenate([x, x * (1 + 1e-6), other]), np.concatenate([y, y, [1, 0]])).check()
    assert once.accuracy < 0.9  # new items would not all be right
    assert twice.accuracy == pytest.approx(once.accuracy, abs=0.1)
    assert twice.rows.tolist() == [*range(24), 48]  # the copy in another class is an item
    assert [point.images for point in twice.curve][:2] == [1, 2]
    assert len(twice.near_duplicates) >= 24
    found = model_of(np.concatenate([x, x[:1], x[:1] + 5, x[:1] + 5]), [*y, 0, 9, 9]).check()
    assert found.alone == [9]
    with pytest.raises(ValueError, match="every class has one item"):
        model_of(np.eye(2).repeat(2, 0), list("aabb")).check()


def test_what_cannot_be_checked_is_one_sentence():
    x = np.eye(4)
    for model, message in (
        (model_of(x, list("abcd")), "every class has one item, so none can be left out"),
        (model_of(x, list("aaaa")), "there is one class, which is every answer"),
        (model_of(x, list("aabb"), keep_support=False), "support was not kept, so there is nothing to check"),
    ):
        with pytest.raises(ValueError, match=message):
            model.check()


def test_the_page_shows_the_estimate_and_the_mistakes(tmp_path):
    images, labels = photos(4)
    labels[3] = "flower"
    found = FewShotImageClassifier(quick_embedder()).fit([*images, images[0]], [*labels, "<i>one"]).check()
    write_check(tmp_path / "page.html", found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for part in ("% of new images right", "with twice the images", "Not checked", "Taken for each other", "Mistakes"):
        assert part in page
    assert ("if all classes come equally often" in page) == found.is_uneven
    assert "<i>one" not in page
