import json

import numpy as np
import pytest

from fewshot.persistence.label_json import labels_from_json, labels_to_json


@pytest.mark.parametrize("labels", [[3, 1], [True, False], ["ü", "b\0"], [2**62, 1]])
def test_labels_keep_their_type(labels):
    array = np.array(labels, dtype=object if isinstance(labels[0], str) else None)
    back = labels_from_json(labels_to_json(array))
    assert back.tolist() == labels
    assert back.dtype == array.dtype


def test_labels_that_json_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"labels are datetime64\[D\], which JSON cannot hold; use text or integers"):
        labels_to_json(np.array(["2020-01-01"], dtype="datetime64[D]"))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["ant", "bü"]),
        np.array(["a much longer label", "ant"])[1:],
        np.array(["", ""]),
        np.array([], dtype=str),
        np.array(["ends\0", "b"], dtype=object),
        np.array([True, False]),
        np.array([1.5, -2.0]),
        np.array([2**63], dtype=np.uint64),
        np.array([-5, 3], dtype=np.int8),
    ],
)
def test_labels_come_back_in_their_type(labels):
    saved = json.loads(json.dumps(labels_to_json(labels)))
    back = labels_from_json(saved)
    assert back.tolist() == labels.tolist()
    assert back.dtype.kind == labels.dtype.kind
    assert back.nbytes <= labels.nbytes


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        {"dtype": "<i8"},
        {"values": [1]},
        {"dtype": "<i8", "values": {"0": 1}},
        {"dtype": ["<i8"], "values": [1]},
        {"dtype": "<U500000000", "values": ["ant"]},
        {"dtype": "<U999999999999", "values": ["ant"]},
        {"dtype": "<U2", "values": ["ant"]},
        {"dtype": "<U3", "values": [1]},
        {"dtype": "<i8", "values": [True]},
        {"dtype": "<i8", "values": [1.0]},
        {"dtype": "<i8", "values": [2**70]},
        {"dtype": "|i1", "values": [300]},
        {"dtype": "<u8", "values": [-1]},
        {"dtype": "|b1", "values": [0]},
        {"dtype": "|O", "values": [[1]]},
        {"dtype": "|O", "values": [{}]},
        {"dtype": "<f8", "values": ["1"]},
        {"dtype": "<M8[s]", "values": []},
        {"dtype": "|V8", "values": []},
        {"dtype": "i8,i8", "values": []},
        {"dtype": "|S3", "values": []},
    ],
)
def test_labels_of_another_type_than_they_say_are_refused(saved):
    with pytest.raises(ValueError, match="labels (are|do not)"):
        labels_from_json(saved)


def test_one_long_label_does_not_widen_all():
    saved = {"dtype": "<U10000", "values": ["x" * 10_000, *map(str, range(1000))]}
    back = labels_from_json(saved)
    assert back.tolist() == saved["values"]
    assert back.nbytes < 1e6
