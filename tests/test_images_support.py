import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fewshot.images.support import Support

JPEG = b"\xff\xd8\xff"
ROWS = st.lists(st.tuples(st.text(), st.sampled_from(["a", "b", "long label"]), st.binary(max_size=9)), min_size=1)


def make(rows):
    names, labels, pictures = zip(*rows, strict=True)
    embeddings = np.arange(3 * len(rows), dtype=np.float32).reshape(-1, 3)
    pictures = tuple(picture and JPEG + picture for picture in pictures)
    return Support(names, np.array(labels), embeddings, pictures)


def same(one, other):
    assert one.ids == other.ids
    assert one.thumbnails == other.thumbnails
    assert one.labels.tolist() == other.labels.tolist()
    np.testing.assert_array_equal(one.embeddings, other.embeddings)


@given(ROWS)
def test_it_is_the_same_after_a_journey_through_a_file(rows):
    support = make(rows)
    classes = np.unique(support.labels)
    same(Support.from_arrays(load(save(support.to_arrays(classes))), classes, 3), support)


@given(ROWS)
def test_without_a_class_the_others_keep_their_order(rows):
    support = make(rows)
    left, gone = support.without(support.places("a")), support.of("a")
    assert left.ids == tuple(name for name, label, _ in rows if label != "a")
    assert len(left) + len(gone) == len(support)
    assert set(gone.labels.tolist()) <= {"a"}


@given(ROWS, ROWS)
def test_a_sum_has_all_of_both_and_labels_are_not_cut(one, other):
    support = make(one) + make(other)
    assert support.ids == tuple(name for name, _, _ in one + other)
    assert support.labels.tolist() == [label for _, label, _ in one + other]


def test_nothing_and_something_is_something():
    support = make([("x", "a", b"")])
    same(Support.none() + support, support)
    assert len(Support.none()) == 0
    assert support.labels.tolist() == ["a"]


def test_rows_may_be_taken_in_any_order():
    support = make([("x", "a", b"1"), ("y", "b", b"2")])
    assert support.rows([1, 0]).ids == ("y", "x")
    with pytest.raises(IndexError):
        support.rows([2])


@given(ROWS)
def test_a_renamed_class_has_its_new_label_whole(rows):
    support = make(rows)
    renamed = support.renamed("a", "a much longer label", np.dtype("<U19"))
    assert renamed.labels.tolist() == ["a much longer label" if label == "a" else label for _, label, _ in rows]
    assert renamed.ids == support.ids
