import numpy as np
import pytest

from fewshot.labels import labels_from_json, labels_to_json


@pytest.mark.parametrize("labels", [[3, 1], [True, False], ["ü", "b\0"], [2**62, 1]])
def test_labels_keep_their_type(labels):
    array = np.array(labels, dtype=object if isinstance(labels[0], str) else None)
    back = labels_from_json(labels_to_json(array))
    assert back.tolist() == labels
    assert back.dtype == array.dtype


def test_labels_that_json_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"labels are datetime64\[D\], which JSON cannot hold; use text or integers"):
        labels_to_json(np.array(["2020-01-01"], dtype="datetime64[D]"))
