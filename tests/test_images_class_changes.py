"""The classes of a large model follow from its base and changes, read without torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fewshot.images.class_changes import change_to_arrays, changes_in, classes_in, gone_in, is_segmented
from fewshot.persistence.content import labels_from_arrays, labels_to_arrays
from fewshot.persistence.manifest import FORMAT, PLAIN

LABELS = st.one_of(st.lists(st.integers(-99, 99), unique=True), st.lists(st.text(max_size=3), unique=True))


@given(LABELS, LABELS.filter(len))
def test_a_change_says_what_is_gone_and_what_is_new(gone, new):
    if gone and type(gone[0]) is not type(new[0]):
        gone = []
    classes = np.array(sorted(new))
    n = np.arange(len(new))
    arrays = load(save(change_to_arrays(sorted(gone), classes, n, n.astype(float), np.ones((len(new), 2)))))
    assert labels_from_arrays(gone_in(arrays)).tolist() == sorted(gone)
    assert labels_from_arrays(arrays).tolist() == classes.tolist()
    assert arrays["sums"].shape == (len(new), 2)


def test_the_last_change_counts(tmp_path):
    known = {"a": 1, "b": 2, "c": 3}
    base = {"n_support": np.array(list(known.values())), **labels_to_arrays(np.array(list(known)))}
    (tmp_path / "base").write_bytes(save(base))
    changes = [
        change_to_arrays(["b"], np.array(["d"]), np.array([4]), np.array([4.0]), np.ones((1, 2))),
        change_to_arrays(["d"], np.array(["a", "b"]), np.array([7, 8]), np.array([7.0, 8.0]), np.ones((2, 2))),
    ]
    paths = {"memory": tmp_path / "base"}
    for number, change in enumerate(changes, 1):
        paths[f"changes {number}"] = tmp_path / f"{number}"
        paths[f"changes {number}"].write_bytes(save(change))
    manifest = {"format": FORMAT, "changes": []}
    assert is_segmented(manifest)
    assert not is_segmented({**manifest, "format": PLAIN})
    assert [is_inline for _, is_inline in changes_in(manifest, paths)] == [False, False]
    classes, n_support = classes_in(manifest, paths)
    assert (classes.tolist(), n_support.tolist()) == (["a", "b", "c"], [7, 8, 3])
    (tmp_path / "1").write_bytes(save(changes[1]))  # which removes a class that is not there
    with pytest.raises(KeyError):
        classes_in(manifest, paths)
