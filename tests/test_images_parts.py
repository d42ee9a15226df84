"""Parts of something large: what they hold is the present state, however it changed, and they stay few."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load

from fewshot.images import parts
from fewshot.images.parts import Parts, Segment


class Disk:
    """What would be on a disk: numbers, of which a change says which have come and gone."""

    def __init__(self):
        self.files, self.parts, self.written = {}, Parts(), 0

    def save(self, state, inline):
        def since(before):
            gone, come = (np.array(sorted(x), np.int64) for x in (before - state, state - before))
            return {"gone": gone, "come": come} if len(gone) + len(come) else {}

        def write(path):
            path.write_bytes(np.array(sorted(state), np.int64).tobytes())

        before = parts.INLINE
        parts.INLINE = inline
        try:
            base = Segment(frozenset(state), 8 * len(state))
            self.parts, files = self.parts.with_state(base, since, write, "base", "change {}".format)
        finally:
            parts.INLINE = before
        self.written = sum(part is not None for part in files.values())
        kept = {name: self.files[name] for name, part in files.items() if part is None}
        self.files = kept | {name: self._bytes(part[1]) for name, part in files.items() if part is not None}

    @staticmethod
    def _bytes(write):
        class Path:
            def write_bytes(self, raw):
                self.raw = raw

        write(path := Path())
        return path.raw

    def load(self):
        state = set(np.frombuffer(self.files["base"], np.int64).tolist())
        changes = [self.files[f"change {i}"] for i in range(1, len(self.files))]
        changes += [one.inline for one in self.parts.all if one.inline is not None]
        for change in map(load, changes):
            state = (state - set(change["gone"].tolist())) | set(change["come"].tolist())
        return state


@given(st.lists(st.tuples(st.sets(st.integers(0, 999), max_size=30), st.sampled_from([0, 250, 10_000])), max_size=30))
def test_the_parts_hold_the_state_and_at_most_one_is_written(changes):
    disk, state = Disk(), set(range(900))
    disk.save(state, 250)
    for change, inline in changes:
        state ^= change
        disk.save(state, inline)
        assert disk.load() == state
        assert disk.written <= 1
        is_file = [one.inline is None for one in disk.parts.all]
        assert is_file == sorted(is_file, reverse=True)  # the manifest's come last
    assert pickle.loads(pickle.dumps(disk.parts)).all == ()  # a copy writes all


def test_changes_of_one_size_are_few():
    disk, state = Disk(), set(range(100_000))
    disk.save(state, 2**15)
    for i in range(300):
        state.add(100_000 + i)
        disk.save(state, 2**15)
        assert len(disk.parts.all) < 12
    assert disk.load() == state
