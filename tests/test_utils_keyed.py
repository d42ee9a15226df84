import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fewshot.utils import keyed
from fewshot.utils.keyed import KeyedRows

PARTS = st.lists(st.lists(st.integers(-5, 5), max_size=6), min_size=1, max_size=6)


@given(PARTS, st.integers(1, 9), st.integers(1, 9))
def test_each_version_finds_what_it_had(parts, most_recent, most_pairs):
    keep = keyed.MOST_RECENT, keyed.PAIRS
    keyed.MOST_RECENT, keyed.PAIRS = most_recent, most_pairs
    try:
        known, versions = np.array(parts[0], np.int64), []
        table = KeyedRows.of(known)
        for part in parts[1:]:
            versions.append((table, known))
            more = np.array(part, np.int64)
            table, known = table.extended(more, len(known) + np.arange(len(more))), np.concatenate([known, more])
        low, high = np.array([-9, 0, 3, 2]), np.array([9, 0, 5, 1])
        for one, keys in [*versions, (table, known)]:
            wanted = sorted((i, j) for i in range(4) for j, key in enumerate(keys) if low[i] <= key <= high[i])
            found = [pair for both in one.between(low, high) for pair in zip(*(x.tolist() for x in both), strict=True)]
            assert sorted(found) == wanted
            assert sorted(one.at(0, 3).tolist()) == np.flatnonzero((keys >= 0) & (keys <= 3)).tolist()
    finally:
        keyed.MOST_RECENT, keyed.PAIRS = keep
