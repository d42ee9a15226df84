import json

import numpy as np
import pytest

from fewshot.errors import ArtifactError, MissingExtraError
from fewshot.persistence.content import (
    errors_of_file,
    is_number,
    is_whole,
    is_word,
    json_object,
    labels_from_json,
    labels_to_json,
)


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"x"', b"null", b"{", b"\xff", b'{"a": ' + b"[" * 200_000])
def test_what_is_no_object_is_a_value_error(raw):
    with pytest.raises(ValueError, match=r".") as caught:
        json_object(raw)
    assert not isinstance(caught.value, RecursionError)


def test_an_object_is_read():
    assert json_object(json.dumps({"a": [1, "ü"]})) == {"a": [1, "ü"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "1", None, [1]])
def test_what_is_no_number(value):
    assert not is_number(value)
    assert not is_whole(value)


def test_numbers_lie_in_their_range():
    assert is_number(0.5, 0, 1)
    assert not is_number(1.5, 0, 1)
    assert is_whole(2, 2)
    assert not is_whole(2.0)
    assert not is_whole(1, 2)


@pytest.mark.parametrize("value", ["", "a b", "/tmp", "a/b", "a\\b", "http://x", "a.b", "x\0", 1, None, "a" * 65])
def test_what_is_no_word(value):
    assert not is_word(value)


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("\n\x1b[31m"), RecursionError(), MemoryError(), ValueError()]
)
def test_any_error_becomes_one_printable_sentence_that_names_the_file(error):
    with (
        pytest.raises(ArtifactError, match="^there cannot be used: .*; save it again$") as caught,
        errors_of_file("there", "save it again"),
    ):
        raise error
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("error", [OSError("x"), MissingExtraError("x"), ArtifactError("x")])
def test_what_says_enough_itself_is_passed_on(error):
    with pytest.raises(type(error), match="^x$"), errors_of_file("there", "save it again"):
        raise error


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
