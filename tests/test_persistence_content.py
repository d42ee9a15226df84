import json

import pytest

from fewshot.errors import ArtifactError, MissingExtraError
from fewshot.persistence.content import errors_of_file, is_number, is_whole, is_word, json_object


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
