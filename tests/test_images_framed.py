"""Answers as a data frame: those of `predict`, beside the rows that were given."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from fewshot import FewShotImageClassifier, FewShotModel, LabeledImages, OwnEmbedder, digits
from fewshot.errors import ImageDecodeError
from tests.photographs import quick_embedder, write_photos

SUPPORT, QUERIES = digits()[:300].split(5)


@pytest.fixture(scope="module")
def model():
    return FewShotImageClassifier(quick_embedder()).fit(SUPPORT)


def test_a_row_for_each_item_says_what_predict_says(model):
    frame = model.predict_frame(QUERIES, top=3, coverage=0.8)
    assert frame["label"].tolist() == model.predict(QUERIES.images).tolist()
    proba = model.predict_proba(QUERIES.images)
    np.testing.assert_allclose(frame["probability"], proba.max(1), rtol=1e-6)
    np.testing.assert_allclose(
        frame[["probability_1", "probability_2", "probability_3"]], -np.sort(-proba)[:, :3], rtol=1e-6
    )
    assert frame["class_1"].tolist() == frame["label"].tolist()
    assert frame["set"].tolist() == model.predict_set(QUERIES.images, 0.8)
    assert frame["true"].tolist() == QUERIES.labels.tolist()
    assert not frame["unknown"].any()
    assert frame["error"].isna().all()
    assert (frame["label"] == frame["true"]).mean() == pytest.approx(model.score(QUERIES))
    assert list(model.predict_frame(QUERIES.images[:2])) == [
        "item",
        "label",
        "likeliest",
        "probability",
        "unknown",
        "error",
    ]
    assert frame["likeliest"].tolist() == frame["label"].tolist()
    assert model.predict_frame(QUERIES[:0]).shape == (0, 7)


def test_the_index_of_a_table_stays_and_a_column_of_images_is_found(tmp_path):
    paths = [str(path) for path in write_photos(tmp_path, 2)]
    data = LabeledImages.open(tmp_path)
    model = FewShotImageClassifier(quick_embedder()).fit(data)
    table = pd.DataFrame({"day": [3, 1, 2, 5], "path": paths}, index=list("wxyz"))
    joined = table.join(model.predict_frame(table))
    assert joined["label"].tolist() == model.predict(paths).tolist()
    assert joined["item"].tolist() == paths
    assert joined["label"].dtype == object
    answers = model.predict_frame(paths)
    again = FewShotImageClassifier(quick_embedder()).fit(answers)  # its columns are read without naming any
    assert again.predict(paths).tolist() == answers["label"].tolist()
    pd.testing.assert_frame_equal(model.predict_frame(table["path"]), model.predict_frame(table))
    assert model.predict_frame(pl.from_pandas(table))["label"].tolist() == joined["label"].tolist()
    labelled = table.assign(kind=1, label=data.labels)
    assert model.predict_frame(labelled)["true"].tolist() == data.labels.tolist()
    assert "true" not in joined
    with pytest.raises(ValueError, match=r"looks like the images; name it"):
        model.predict_frame(pd.DataFrame({"a": paths, "b": paths}))


def test_unknown_and_unreadable_items_are_marked(model):
    with pytest.raises(ImageDecodeError, match=r"missing\.png"):
        model.predict_frame(["missing.png"])
    known = FewShotImageClassifier(quick_embedder(), on_error="unknown", reject="20%").fit(SUPPORT)
    images = ["missing.png", *QUERIES.images[:80]]
    frame = known.predict_frame(images)
    assert frame["label"].tolist() == known.predict(images).tolist()
    assert frame["error"][0] == "no such file or directory"
    assert frame["error"][1:].isna().all()
    assert frame["probability"][0] == 0
    np.testing.assert_array_equal(frame["unknown"][1:], frame["label"][1:] == -1)
    assert 0 < frame["unknown"].sum() < 80
    assert not frame["unknown"][0]
    proba = known.predict_proba(images[1:])
    assert frame["likeliest"].tolist() == [None, *known.classes_[proba.argmax(1)].tolist()]
    np.testing.assert_allclose(frame["probability"][1:], proba.max(1), rtol=1e-6)  # of the likeliest class


def test_items_of_other_kinds_have_frames_too():
    model = FewShotModel(OwnEmbedder(lambda texts: [[len(text), text.count("a"), 1.0] for text in texts], "length 1"))
    frame = model.fit(["a", "bbbb"], ["short", "long"]).predict_frame(["aa", "ccccc"])
    assert frame["label"].tolist() == ["short", "long"]
    assert frame["item"].tolist() == ["aa", "ccccc"]
    with pytest.raises(ValueError, match="top is 0"):
        model.predict_frame(["a"], top=0)
