"""Labels of images that were learned before."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import FewShotModel, OwnEmbedder
from fewshot.embedding.network import Embedded
from fewshot.images.support import Support
from fewshot.integrations.correcting import changes, learned_files

PICTURES = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    embedder = OwnEmbedder(lambda items: [PICTURES[int(name.rpartition("#")[2])] for name in items], "pictures")
    return FewShotModel(embedder).fit([f"{i}#{i}" for i in range(5)], list("aabbb"))


@settings(max_examples=60, deadline=None)
@given(
    old=st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc")), min_size=1, max_size=8),
    new=st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc")), min_size=1, max_size=8),
)
def test_afterwards_each_image_has_its_new_labels_alone(model, old, new):
    (was, labels), (pictures, wanted) = zip(*old, strict=True), zip(*new, strict=True)
    names, nothing = tuple(f"old#{i}" for i in was), (b"",) * len(old)
    support = Support(names, np.array(labels), PICTURES[list(was)], nothing)
    prepared = model.prepare([f"new#{i}" for i in pictures], wanted)
    rounded = prepared.embedded.embeddings * np.float32(1 + 1e-6)
    more, wrong = changes(support, replace(prepared, embedded=Embedded(rounded, [], [b""] * len(new))))
    kept = list(old)
    if wrong is not None:
        for row in support.find(wrong.embedded.embeddings, wrong.labels, wrong.names):
            kept.remove((was[row], labels[row]))
    learned = [] if more is None else [(int(n[4:]), label) for n, label in zip(more.names, more.labels, strict=True)]
    assert set(kept + learned) == {one for one in old if one[0] not in pictures} | set(new)
    assert not set(old) & set(learned)  # nothing is learned again
    assert [one for one in old if one in set(kept)] == kept


def test_a_file_that_has_changed_is_known_by_its_absolute_path_alone(model):
    names, kept = ("/x/a#0", "x/b#1", "/x/c#2", "/x/c#2", "e"), model.support_
    support = Support(names, kept.labels, kept.embeddings, kept.thumbnails)
    assert learned_files(support) == {"/x/a#0": {"a"}, "/x/c#2": {"b"}}
    for name, n_wrong in (("/x/a#0", 1), ("x/b#1", 0), ("/x/c#2", 2)):
        prepared = model.prepare([name], ["z"])
        other = replace(prepared, embedded=replace(prepared.embedded, embeddings=-prepared.embedded.embeddings))
        more, wrong = changes(support, other)
        assert list(more.names) == [name]
        assert (0 if wrong is None else len(wrong.names)) == n_wrong
    assert changes(None, prepared) == (prepared, None)
