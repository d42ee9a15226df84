"""Blocks of rows, of which a change leaves earlier versions as they were."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.utils import blocks
from fewshot.utils.blocks import Blocks

CHANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 2**32 - 1)), max_size=12)


@given(CHANGES, st.sampled_from([(), (3,)]), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_version_reads_as_a_plain_array(changes, row, n):
    size, blocks.BLOCK_BYTES = blocks.BLOCK_BYTES, 8 * int(np.prod(row, initial=4))  # four rows a block
    try:
        plain = np.random.default_rng(n).normal(size=(n, *row))
        versions = [(Blocks.of(plain.copy()), plain)]
        for is_longer, seed in changes:
            rng = np.random.default_rng(seed)
            now, array = versions[rng.integers(len(versions))]  # versions branch
            if is_longer:
                values = rng.normal(size=(rng.integers(0, 9), *row))
                versions.append((now.extended(values), np.concatenate([array, values])))
            else:
                places = rng.permutation(len(array))[: rng.integers(0, 6)]
                values, array = rng.normal(size=(len(places), *row)), array.copy()
                array[places] = values
                versions.append((now.changed(places, values), array))
    finally:
        blocks.BLOCK_BYTES = size
    for now, array in versions:
        places = np.random.default_rng(0).integers(0, len(array), (2, 7))
        assert len(now) == len(array)
        assert np.array_equal(now.whole(), array)
        assert np.array_equal(now.rows(places), array[places])
        assert np.array_equal(now.rows(places[0, :1]), array[places[0, :1]])
        found = now.where(lambda block: block.reshape(len(block), -1)[:, 0] > 0)
        assert np.array_equal(found, np.flatnonzero(array.reshape(len(array), -1)[:, 0] > 0))


def test_rows_that_have_not_changed_are_not_copied():
    rows = np.zeros((10_000, 100))
    assert Blocks.of(rows).whole() is rows
    longer = Blocks.of(rows).extended(np.ones((1, 100))).changed(np.array([0]), np.ones((1, 100)))
    assert sum(np.shares_memory(block, rows) for block in longer.blocks) >= len(longer.blocks) - 2
    assert rows.sum() == 0


def test_rows_at_the_end_are_written_in_place_once():
    first = Blocks.of(np.arange(3.0)).extended(np.array([3.0]))
    second, branch = first.extended(np.array([4.0])), first.extended(np.array([-4.0]))
    assert np.shares_memory(first.blocks[-1], second.blocks[-1])
    assert [now.whole().tolist() for now in (first, second, branch)] == [
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, -4],
    ]
    wider = second.extended(np.array([5 + 1j]))
    assert wider.whole().tolist() == [0, 1, 2, 3, 4, 5 + 1j]
    assert second.whole().dtype == np.float64


def test_threads_that_extend_one_version_write_to_places_of_their_own():
    old = Blocks.of(np.zeros((4, 2))).extended(np.zeros((1, 2)))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: old.extended(np.full((3, 2), i)), range(200)))
    for i, now in enumerate(found):
        assert (now.whole()[-3:] == i).all()
