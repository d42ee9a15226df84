import copy
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fewshot.images.support import Support
from fewshot.utils import keyed
from fewshot.utils.twins import earlier_twins

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


@dataclass
class Copied:
    """Support that is copied at each change."""

    ids: list
    labels: list
    embeddings: list

    def rows(self, rows):
        return Copied(*([column[i] for i in rows] for column in (self.ids, self.labels, self.embeddings)))

    def without(self, rows):
        return self.rows([i for i in range(len(self.ids)) if i not in set(rows)])

    def places(self, label):
        return [i for i, known in enumerate(self.labels) if known == label]


#: A change, and numbers that decide what it concerns.
CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "drop", "class", "name", "rename"]), st.integers(0, 5**6)), max_size=9
)


def change(kind, number, versions):
    """Make one change to a support and to the copied one."""
    support, copied = versions
    rng, labels = np.random.default_rng(number), [f"{'long ' * (i == 3)}label {i}" for i in range(4)]
    if kind == "add" or not len(support):
        n = rng.integers(1, 5)
        names, own = [f"{i}.png" for i in rng.integers(0, 6, n)], [labels[i] for i in rng.integers(0, 4, n)]
        x = (np.eye(5)[rng.integers(0, 5, n)] + 1e-6 * rng.normal(size=(n, 5))).astype(np.float32)
        more = Support(names, np.array(own), x, [JPEG + name.encode() for name in names])
        return support + more, Copied(copied.ids + names, copied.labels + own, copied.embeddings + x.tolist())
    if kind == "drop":
        rows = rng.choice(len(support), rng.integers(0, min(3, len(support)) + 1), replace=False).tolist()
    elif kind == "class":
        rows = support.places(rng.choice(labels))
        assert all(type(row) is int for row in rows)
    elif kind == "name":
        rows = support.named([rng.choice(copied.ids)])
        assert rows == [i for i, name in enumerate(copied.ids) if name == copied.ids[rows[0]]]
    else:
        old, new = rng.choice(copied.labels), f"new {number}"
        renamed = replace(copied, labels=[new if known == old else known for known in copied.labels])
        return support.renamed(str(old), new, np.result_type(support.labels, np.array([new]))), renamed
    return support.without(rows), copied.without(rows)


@given(CHANGES, st.integers(1, 9))
def test_each_version_is_that_of_one_that_is_copied(changes, most_recent):
    versions, before, keyed.MOST_RECENT = [(Support.none(), Copied([], [], []))], keyed.MOST_RECENT, most_recent
    try:
        for kind, number in changes:
            versions.append(change(kind, number, versions[number % len(versions)]))  # also from an earlier version
    finally:
        keyed.MOST_RECENT = before
    queries = (np.eye(5)[[0, 1, 1, 4]] * 1.00001).astype(np.float32)
    for support, copied in versions:
        for one in (support, copy.copy(support), pickle.loads(pickle.dumps(support))):
            assert len(one) == len(copied.ids)
            assert one.ids == tuple(copied.ids)
            assert one.labels.tolist() == copied.labels
            assert one.embeddings.tolist() == copied.embeddings
            assert one.thumbnails == tuple(JPEG + name.encode() for name in copied.ids)
        for label in ["label 0", "new 3", "nothing"]:
            assert support.places(label) == copied.places(label)
        assert [f"{i}.png" in support for i in range(6)] == [f"{i}.png" in copied.ids for i in range(6)]
        if len(support):
            known = np.array(copied.embeddings, np.float32)
            wanted = earlier_twins(np.concatenate([known, queries]), len(known))
            np.testing.assert_array_equal(support.twins(queries), wanted)


def test_an_older_pickle_is_read():
    support = make([("x", "a", b"1"), ("y", "b", b"")])
    old = {name: getattr(support, name) for name in ("ids", "labels", "embeddings", "thumbnails")}
    read = object.__new__(Support)
    read.__setstate__(old)
    same(read, support)


def test_a_change_shares_what_stays():
    n, d = 20_000, 64
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    support = Support([f"{i}.png" for i in range(n)], np.arange(n) // 5, x, [b""] * n)
    assert len(support.places(7)) == 5
    assert "7.png" in support
    assert support.twins(x[:1]).tolist() == [0]
    later = support + Support(["new.png"], np.array([9]), x[8:9], [b""])
    later = later.without(later.places(3)).renamed(4, 100_000, later.labels.dtype)
    shared = [
        sum(a is b for a, b in zip(*both, strict=False))
        for both in zip(*([column.blocks for column in one._columns] for one in (support, later)), strict=True)
    ]
    assert shared == [len(column.blocks) - 1 for column in support._columns]
    assert later._found.keys() == support._found.keys()  # nothing is looked through again
    assert (later.places(9)[-1], "new.png" in later, later.twins(x[8:9]).tolist()) == (n - 5, True, [8])
    assert (later.places(3), later.places(100_000), later.twins(x[15:16]).tolist()) == ([], support.places(3), [-1])
