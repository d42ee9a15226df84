import numpy as np
import pandas as pd
import pytest

from fewshot import LabeledImages
from fewshot.images.inputs import labelled, names_of


def test_images_and_labels_come_together_or_side_by_side():
    items, labels = labelled(LabeledImages(["a.png", "b.png"], [1, 2]), None)
    assert (list(items), labels.tolist()) == (["a.png", "b.png"], [1, 2])
    items, labels = labelled(["a.png"], (label for label in "x"))
    assert (items, labels.tolist()) == (["a.png"], ["x"])
    with pytest.raises(TypeError, match="mix the types integer and string"):
        labelled(["a.png"], ["x"], known=np.array([1]))


def test_names_are_those_given_or_what_images_are_called():
    assert names_of(["x/a.png", b"12"], None, ()) == ["x/a.png", "<2 bytes>"]
    assert names_of([b"1", b"2"], ("one", "two"), {"three"}) == ["one", "two"]
    assert names_of([b"1", b"2"], pd.Series(["one", "two"], index=[3, 4]), ()) == ["one", "two"]
    for ids, message in (
        (["one"], "there are 1 ids for 2 images"),
        (["one", "one"], "the id 'one' is in use"),
        (["one", "three"], "the id 'three' is in use; remove that image first"),
    ):
        with pytest.raises(ValueError, match=message):
            names_of([b"1", b"2"], ids, {"three"})
    with pytest.raises(TypeError, match="id 1 is 7; expected text"):
        names_of([b"1", b"2"], ["one", 7], ())
