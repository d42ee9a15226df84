"""The map from labels to numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.utils import places
from fewshot.utils.labels import as_labels
from fewshot.utils.places import Places

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "Cc")), max_size=5)


@pytest.mark.parametrize("most", [2, 1000])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_it_is_a_dictionary_whose_versions_stay(most, data):
    labels = data.draw(st.sampled_from([st.integers(-9, 60), TEXT]))
    known = {label: i for i, label in enumerate(sorted(data.draw(st.sets(labels, min_size=1, max_size=20))))}
    was, places.MOST_CHANGES = places.MOST_CHANGES, most
    try:
        versions = [(Places(as_labels(list(known)), np.arange(len(known))), known)]
        for changes in data.draw(st.lists(st.dictionaries(labels, st.integers(-1, 99), max_size=4), max_size=6)):
            now, known = versions[data.draw(st.integers(0, len(versions) - 1))]
            known = {label: i for label, i in {**known, **changes}.items() if i >= 0}
            versions.append((now.changed(changes), known))
    finally:
        places.MOST_CHANGES = was
    others = data.draw(st.lists(labels, max_size=9))
    for now, known in versions:
        assert len(now) == len(known)
        assert [now.of(label) for label in [*known, *others]] == [known.get(label, -1) for label in [*known, *others]]
        found, numbers = now.ordered()
        assert dict(zip(found.tolist(), numbers.tolist(), strict=True)) == known
        assert found.tolist() == sorted(known)


def test_a_label_of_another_type_is_unknown():
    assert Places(np.array([1, 2]), np.arange(2)).of("1") == -1
    assert Places(np.array(["1", "2"]), np.arange(2)).of(1) == -1
