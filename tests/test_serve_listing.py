"""Classes in parts: together they are all of them, in order, also while others come and go."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.serve.listing import list_part
from fewshot.serve.ordering import Ordered
from fewshot.serve.problems import Problem
from fewshot.utils.labels import label_of_text
from fewshot.utils.text import natural_key
from tests.serving import files, pictures, running, said, taught

LABELS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=3),
    st.integers(1, 4),
    max_size=12,
)
NUMBERS = st.dictionaries(st.integers(-20, 20), st.integers(1, 4), max_size=12)


def view_of(counts):
    """What a list needs of a view."""
    labels = np.array(sorted(counts)) if counts else np.array([], str)
    return SimpleNamespace(
        ordered=Ordered.of(labels.tolist(), [counts[label] for label in labels.tolist()]),
        label=lambda name, new: label_of_text(name, labels),
    )


def walked(views, order, search, limit=3):
    """Ask for part after part, each of the next version of a classifier."""
    found, after = [], ""
    for view in views:
        part = list_part(view, limit, after, order, search, None)
        found, after = [*found, *part.classes], part.next
        if after is None:
            return found
    raise AssertionError("it does not end")


@given(
    counts=st.one_of(LABELS, NUMBERS),
    order=st.sampled_from(["name", "fewest", "most"]),
    search=st.sampled_from(["", "1", "A"]),
)
def test_parts_are_the_whole_in_order(counts, order, search):
    view = view_of(counts)
    wanted = [(str(one), counts[one]) for one in sorted(counts, key=natural_key)]
    wanted = [(name, n) for name, n in wanted if search.casefold() in name.casefold()]
    wanted.sort(key=lambda one: {"name": 0, "fewest": one[1], "most": -one[1]}[order])  # stable
    assert walked([view] * 10, order, search) == wanted
    assert list_part(view, 3, "", order, search, None).total == len(wanted)


@given(counts=LABELS, gone=st.sets(st.integers(0, 11)), order=st.sampled_from(["name", "fewest", "most"]))
def test_a_class_that_goes_moves_no_other(counts, gone, order):
    names = sorted(counts)
    left = {name: n for place, (name, n) in enumerate(sorted(counts.items())) if place not in gone}
    found = walked([view_of(counts), *[view_of(left)] * 10], order, "")
    kept = [name for name, _ in found if name in left]
    assert sorted(kept) == sorted(left)
    assert len({name for name, _ in found}) == len(found) <= len(names)


@pytest.mark.parametrize("after", ["0", "heron", "x heron", "-1 heron", "9" * 40 + " a", "\u00b2 a"])
def test_what_is_no_place_is_refused(after):
    with pytest.raises(Problem, match="no place in the list"):
        list_part(view_of({"a": 1}), 3, after, "name", "", None)
    with pytest.raises(Problem, match="no place in the list"):
        list_part(view_of({7: 1}), 3, "1 heron", "name", "", None)


def test_a_hundred_thousand_classes_are_told_in_parts():
    view = view_of({f"class {i:06d}": 1 + i % 7 for i in range(100_000)})
    start = time.perf_counter()
    part = list_part(view, 48, "3 class 050000", "most", "9", None)
    assert time.perf_counter() - start < 1
    assert (len(part.classes), part.classes[0]) == (48, ("class 050059", 3))


def test_the_service_tells_classes_in_parts(tmp_path):
    with running(taught(tmp_path / "model")) as client:
        client.post("/v1/classes", data={"name": "Arch"}, files=files(*pictures(2, 1)[:2]))

        def asked(**query):
            return client.get("/v1/classes", params=query).json()

        first = asked(limit=2, order="fewest", thumbnails=1)
        assert (first["total"], [one["name"] for one in first["classes"]]) == (3, ["Arch", "flower"])
        assert [len(one["thumbnails"]) for one in first["classes"]] == [1, 1]
        assert first["version"] == client.get("/v1/model").json()["version"]
        last = asked(limit=2, order="fewest", after=first["next"])
        assert ([one["name"] for one in last["classes"]], last["next"]) == (["temple"], None)
        assert [one["name"] for one in asked(search="aRc")["classes"]] == ["Arch"]
        for name in ("img10", "Zebra", "IMG 2", "img2"):
            client.post("/v1/classes", data={"name": name}, files=files(*pictures(1, 2)[:1]))
        listed = [one["name"] for one in asked()["classes"]]
        assert listed == ["Arch", "flower", "IMG 2", "img2", "img10", "temple", "Zebra"]
        assert asked(name="flower")["classes"][0]["examples"] == 4
        assert asked(name="Flower")["classes"] == []
        for query in ({"limit": 0}, {"limit": 1001}, {"order": "x"}, {"after": "x"}):
            said(client.get("/v1/classes", params=query), 422, "invalid")
    with running(tmp_path / "new") as client:
        assert client.get("/v1/classes", params={"after": "1 x", "search": "x"}).json()["classes"] == []
