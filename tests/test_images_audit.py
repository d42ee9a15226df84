import numpy as np
import pytest

from fewshot import FewShotImageClassifier, MatchingLearner, PrototypicalLearner
from fewshot.images.audit import audit_support, suspects
from fewshot.images.support import Support
from tests.photographs import photos, quick_embedder


def make(x, labels):
    return Support(tuple(f"{i}.png" for i in range(len(x))), np.asarray(labels), x.astype(np.float32), (b"",) * len(x))


def similarity(a, b, metric):
    if metric == "cosine":
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return -((a - b) ** 2).sum() if metric == "sqeuclidean" else a @ b


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
def test_each_image_is_held_against_the_others(metric):
    rng = np.random.default_rng(0)
    labels = np.array(list("aaaabbbbbc"))
    support = make(rng.normal(size=(10, 4)), labels)
    x = support.embeddings.astype(float)
    frame = audit_support(PrototypicalLearner(metric), support)
    assert frame["id"].tolist() == list(support.ids)
    for i in range(10):
        others = [k for k in range(10) if labels[k] == labels[i] and k != i]
        own = similarity(x[i], x[others].mean(0), metric) if others else np.nan
        apart = {c: similarity(x[i], x[labels == c].mean(0), metric) for c in "abc" if c != labels[i]}
        assert frame["similarity"][i] == pytest.approx(own, nan_ok=True)
        assert frame["other"][i] == max(apart, key=apart.get)
        assert frame["other_similarity"][i] == pytest.approx(max(apart.values()))
        assert frame["nearer_to_other"][i] == (bool(others) and max(apart.values()) > own)
    assert not frame["duplicate_of"].any()


def test_what_is_planted_is_found():
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(4, 16))
    labels = np.arange(4).repeat(8)
    x = centres[labels] + rng.normal(size=(32, 16))
    x[3] += 4  # an outlier of class 0
    x[12] = centres[2]  # of class 1, with the looks of class 2
    x[20], x[25] = x[5], x[24] * (1 + 1e-6)  # the same image in two classes; one image twice, rounded otherwise
    frame = audit_support(PrototypicalLearner(), make(x, labels))
    assert np.flatnonzero(frame["nearer_to_other"]).tolist() == [12, 20]
    assert frame["outlier"][3]
    assert frame["outlier"].drop([3, 12, 20]).sum() <= 1
    assert frame["duplicate_of"][frame["duplicate_of"] != ""].to_dict() == {20: "5.png", 25: "24.png"}
    found = dict(suspects(frame))
    assert set(found) == set(np.flatnonzero(frame["suspect"]))
    assert "more like 2, such as " in found[12]
    assert frame["neighbour"][12] == f"{frame['neighbour_row'][12]}.png"
    assert labels[frame["neighbour_row"][12]] == frame["taken_for"][12] == 2
    assert found[25] == "the same as 24.png"


def test_few_images_and_one_class_are_no_suspects():
    one = audit_support(PrototypicalLearner("cosine"), make(np.eye(3)[:1], ["a"]))
    assert one["other"].tolist() == [None]
    assert not one["suspect"].any()
    two = audit_support(PrototypicalLearner("cosine"), make(np.eye(3)[:2], ["a", "b"]))
    assert not two["suspect"].any()


def test_a_classifier_of_images_finds_a_mislabelled_one_and_a_duplicate():
    images, labels = photos(6)
    model = FewShotImageClassifier(quick_embedder(), MatchingLearner()).fit(
        [*images, images[0]], [*labels, labels[0]], ids=[f"{i}" for i in range(13)]
    )
    frame = model.audit()
    assert frame["duplicate_of"].tolist() == [""] * 12 + ["0"]
    with pytest.raises(ValueError, match="support was not kept, so there is nothing to audit"):
        FewShotImageClassifier(quick_embedder(), keep_support=False).fit(images, labels).audit()


def test_embeddings_of_zeros_are_no_duplicates():
    rows = np.array([[0, 0], [1, 0], [0, 0], [1, 0], [0, 1]])
    frame = audit_support(PrototypicalLearner(), make(rows, list("aabbb")))
    assert frame["duplicate_of"].tolist() == ["", "", "", "1.png", ""]
