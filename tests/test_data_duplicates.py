import hashlib

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from fewshot.data.duplicates import SPLITS, describe_duplicates, find_duplicates, hash_contents

ROWS = st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from("xyz"), st.sampled_from("123456")), max_size=25)


def table_of(rows):
    frame = pd.DataFrame(rows, columns=["split", "label", "hash"])
    frame["path"] = [f"{i:03d}" for i in range(len(rows))]
    return frame


@given(ROWS)
def test_row_68_no_content_is_in_two_splits_and_none_is_lost(rows):
    table = table_of(rows)
    keep, _ = find_duplicates(table, table["hash"].tolist())
    kept = table[keep]
    assert kept.groupby("hash")["split"].nunique().le(1).all()
    for content, group in table.groupby("hash"):
        dearest = max(group["split"], key=SPLITS.index)
        expected = group[group["split"] == dearest]["path"].tolist()
        assert kept[kept["hash"] == content]["path"].tolist() == expected


@given(ROWS)
def test_the_listing_holds_every_image_that_has_a_copy(rows):
    table = table_of(rows)
    keep, listing = find_duplicates(table, table["hash"].tolist())
    counts = table["hash"].map(table["hash"].value_counts())
    assert sorted(listing["path"]) == table[counts > 1]["path"].tolist()
    assert set(listing[listing["action"] == "dropped"]["path"]) == set(table[~keep]["path"])
    assert list(listing.columns) == ["content", "path", "label", "split", "action"]
    assert listing["content"].is_monotonic_increasing


def test_the_index_of_the_table_does_not_matter():
    table = table_of([("train", "x", "1"), ("test", "x", "1"), ("val", "y", "2")]).set_index(pd.Index([5, 5, 0]))
    keep, listing = find_duplicates(table, ["1", "1", "2"])
    assert keep.tolist() == [False, True, True]
    assert listing["action"].tolist() == ["dropped", "kept"]


def test_a_sentence_counts_what_was_found():
    table = table_of([("train", "x", "1"), ("val", "y", "1"), ("test", "x", "1"), ("val", "z", "2"), ("val", "z", "2")])
    _, listing = find_duplicates(table, table["hash"].tolist())
    assert describe_duplicates(listing) == (
        "2 images occur more than once (1 of them in two classes); 1 across splits, of which 2 copies are dropped"
    )
    assert describe_duplicates(listing[:0]) == "no image occurs twice"


def test_contents_are_hashed_one_by_one():
    assert hash_contents(iter([b"a", b"", b"a"])) == [hashlib.sha256(c).hexdigest() for c in (b"a", b"", b"a")]
