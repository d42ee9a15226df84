"""Keys come and go in every order, and each search finds what brute force finds at that moment."""

import multiprocessing
import os
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import PrototypeIndex
from fewshot.search.snapshot import FaissSnapshot
from fewshot.utils.locks import lock_of

RNG = np.random.default_rng(0)
METRICS = ("sqeuclidean", "cosine", "dot")


def oracle(queries, keys, metric):
    q, x = queries.astype(float), keys.astype(float)
    if metric == "sqeuclidean":
        return -((q[:, None] - x) ** 2).sum(-1)
    if metric == "cosine":
        q, x = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, x))
    return q @ x.T


@pytest.fixture
def small(monkeypatch):
    """Let everything that takes many keys happen with few."""
    monkeypatch.setattr("fewshot.search.growing.SMALL_DELTA", 12)
    monkeypatch.setattr("fewshot.search.growing.LARGE_DELTA", 12)
    monkeypatch.setattr("fewshot.search.growing.EXACT_LIMIT", 60)
    monkeypatch.setattr("fewshot.search.snapshot.EXACT_LIMIT", 60)


class Model:
    """What an index should hold: keys in the order in which they came."""

    def __init__(self, metric):
        self.metric, self.keys, self.labels = metric, [], []

    def add(self, keys, labels):
        self.keys += list(keys)
        self.labels += list(labels)

    def remove(self, labels):
        left = [i for i, label in enumerate(self.labels) if label not in set(labels)]
        self.keys, self.labels = [self.keys[i] for i in left], [self.labels[i] for i in left]

    def check(self, index, queries, k):
        assert len(index) == len(self.labels)
        k = min(k, len(self.labels))
        kinds = {index.build().kind}
        labels, similarities = index.search(queries, k)
        scores = oracle(queries, np.array(self.keys), self.metric)
        if {"ivf", "hnsw"} & {*kinds, index.build().kind}:  # a merge in the background may have come between
            self._check_approximate(labels, similarities, scores)
            return
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        np.testing.assert_allclose(similarities, np.take_along_axis(scores, best, 1), rtol=1e-5, atol=1e-5)
        found = [[scores[i, j] for j in row] for i, row in enumerate(best)]
        for i, row in enumerate(labels.tolist()):
            for place, label in enumerate(row):  # where neighbours are not equal, the very label
                if sum(abs(other - found[i][place]) < 1e-4 for other in scores[i]) == 1:
                    assert label == self.labels[best[i, place]]

    def _check_approximate(self, labels, similarities, scores):
        """Neighbours may be missed; what is found is there, is scored exactly, and comes in order."""
        assert (np.diff(similarities) <= 0).all()
        names = np.array(self.labels)
        for found, values, true in zip(labels, similarities, scores, strict=True):
            for label in set(found.tolist()):
                mine, own = values[found == label], true[names == label]
                assert len(mine) <= len(own)
                assert all(np.isclose(own, value, rtol=1e-5, atol=1e-5).any() for value in mine)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "update", "remove", "merge", "search"]), st.integers(0, 2**31)),
    max_size=25,
)


@pytest.mark.parametrize("kind", ["auto", "exact", "ivf", "hnsw"])
@pytest.mark.parametrize("metric", METRICS)
@given(operations=OPERATIONS, dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=12, deadline=None)
def test_it_is_a_list_of_keys_whatever_happens(kind, metric, operations, dtype):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("growing.SMALL_DELTA", "growing.LARGE_DELTA"):
            patch.setattr(f"fewshot.search.{name}", 12)
        for name in ("growing.EXACT_LIMIT", "snapshot.EXACT_LIMIT"):
            patch.setattr(f"fewshot.search.{name}", 60)
        index, model = PrototypeIndex(metric, kind), Model(metric)
        for operation, seed in [("add", 0), *operations, ("search", 1)]:
            rng = np.random.default_rng(seed)
            n = int(rng.choice([1, 2, 7, 30]))
            keys, labels = (rng.normal(size=(n, 5)) * 3 + 10).astype(dtype), rng.integers(0, 40, n)
            present = sorted(set(model.labels))
            if operation == "add":
                index.add(keys, labels), model.add(keys, labels.tolist())
            elif operation == "update":
                index.update(keys, labels)
                model.remove(labels.tolist()), model.add(keys, labels.tolist())
            elif operation == "remove" and present:
                gone = rng.choice(present, min(n, len(present)), replace=False)
                index.remove(gone), model.remove(gone.tolist())
            elif operation == "merge":
                index.compact()
            elif model.labels:
                model.check(index, (rng.normal(size=(4, 5)) * 3 + 10).astype(dtype), int(rng.integers(1, 9)))
        if index._merger is not None:
            index._merger.join()
        if model.labels:
            model.check(index, keys, 3)


def test_equal_keys_come_in_the_order_in_which_they_were_added(small):
    key = RNG.normal(size=(1, 7)).astype(np.float32)
    index = PrototypeIndex().add(np.concatenate([RNG.normal(size=(20, 7)), key]), range(21))
    for label in range(100, 108):
        index.add(key, [label])
    for queries in (key, key.astype(float), key + 0.01):
        assert index.search(queries, 9)[0].tolist() == [[20, *range(100, 108)]]
    index.compact()
    assert index.search(key, 9)[0].tolist() == [[20, *range(100, 108)]]


def test_text_labels_of_any_length_stay_whole(small):
    index = PrototypeIndex().add(np.eye(3), ["a", "b", "c"])
    index.add([[2.0, 2, 2]], ["a much longer label"]).update([[3.0, 3, 3]], ["b"])
    labels, _ = index.search([[2.0, 2, 2], [3, 3, 3], [1, 0, 0]])
    assert labels[:, 0].tolist() == ["a much longer label", "b", "a"]
    assert index.remove(["a", "a much longer label"]).search([[2.0, 2, 2]], 2)[0].tolist() == [["b", "c"]]


def test_what_cannot_be_removed_is_told_and_nothing_goes():
    index = PrototypeIndex().add(np.eye(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="no key has the label 'q'; nothing was removed"):
        index.remove(["a", "q"])
    with pytest.raises(TypeError, match="labels mix the types"):
        index.remove([1])
    assert len(index) == 3
    with pytest.raises(ValueError, match="no key has the label 'a'"):
        index.remove(["a"]).remove(["a"])
    with pytest.raises(ValueError, match="the index is empty"):
        index.remove(["b", "c"]).search(np.eye(3))
    assert index.add(np.eye(3)[:1], ["a"]).search(np.eye(3)[:1])[0].tolist() == [["a"]]
    with pytest.raises(ValueError, match="no key has the label 1"):
        PrototypeIndex().remove([1])


def test_the_recall_must_be_a_share():
    with pytest.raises(ValueError, match="recall is 0; expected above 0, at most 1"):
        PrototypeIndex(recall=0)


@pytest.mark.parametrize("grows", [False, True])
def test_what_comes_and_goes_while_a_merge_runs_is_kept(grows, small, monkeypatch):
    """The merge is held up while keys of the base, of the old delta and new ones are added and removed."""
    index = PrototypeIndex().add(RNG.normal(size=(80, 4)), range(80))
    model = Model("sqeuclidean")
    model.add(index._state.base.snapshot.keys.numpy(), range(80))
    begun, go, report = threading.Event(), threading.Event(), FaissSnapshot.build

    def slowly(self):
        begun.set()
        assert go.wait(30)
        return report(self)

    def both(operation, *arguments):
        getattr(index, operation)(*arguments)
        if operation == "update":
            model.remove(arguments[1])
        getattr(model, "add" if operation == "update" else operation)(*arguments)

    index.search(np.zeros((1, 4)))
    ready = index._state.base.snapshot  # the base in place need not wait
    if grows:
        grown = FaissSnapshot.grown
        monkeypatch.setattr(
            FaissSnapshot, "grown", lambda self, more: begun.set() or (go.wait(30) and grown(self, more))
        )
    else:
        monkeypatch.setattr(FaissSnapshot, "grown", lambda self, more: None)
        monkeypatch.setattr(FaissSnapshot, "build", lambda self: report(self) if self is ready else slowly(self))
    keys = RNG.normal(size=(40, 4))
    both("add", keys[:13], list(range(100, 113)))  # one more than the delta may have
    assert begun.wait(30)
    both("add", keys[13:16], [200, 201, 202])
    both("remove", [3, 101, 201])
    both("update", keys[16:18], [4, 102])
    model.check(index, RNG.normal(size=(9, 4)), 5)
    before = index._state
    go.set()
    index._merger.join()
    assert index._state.base is not before.base
    assert len(index._state.labels) == 4  # 200, 202, 4 and 102 came later
    model.check(index, RNG.normal(size=(9, 4)), 5)
    assert before.n_alive == len(index)  # whoever still reads the old state reads the same


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_row_78_readers_see_one_moment_while_a_writer_adds_updates_and_removes(seconds, small):
    """Keys of one label move together between two places; no search may see a label twice or not at all."""
    base = RNG.normal(size=(100, 6))
    index = PrototypeIndex(index="ivf").add(base, range(100))  # a graph may miss a key that lies alone
    index.search(base[:1])
    failures, stop, answered = [], threading.Event(), [0]
    here, there = np.full((1, 6), 50.0), np.full((1, 6), -50.0)
    index.add(here, [1000])

    def read():
        while not stop.is_set():
            labels, similarities = index.search(np.concatenate([here, there]), 3)
            answered[0] += 1
            # At one of the two places, and once there. Far from it the label may come in as a third neighbour, too:
            # beyond `EXACT_LIMIT` an index proposes, which may have looked into lists of fewer keys.
            near = (similarities[:, 0] > -1e-6) & (labels[:, 0] == 1000)
            twice = (labels == 1000).sum(1).max() > 1
            if near.sum() != 1 or twice or not np.isfinite(similarities).all():
                failures.append((labels, similarities))

    def write():
        rng, i = np.random.default_rng(0), 2000
        while not stop.is_set():
            for place in (there, here):
                index.update(place, [1000])
                index.add(rng.normal(size=(3, 6)), range(i, i + 3))
                index.remove(range(i, i + 2))
                i += 3

    threads = [threading.Thread(target=work) for work in (read, read, read, read, write)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join(60)
    index._merger.join()
    assert not failures
    assert answered[0] > 20


def _add_and_search(queue, index):
    index.add(np.full((1, 4), 9.0), [999])
    queue.put(index.search(np.full((1, 4), 9.0))[0].tolist())


def test_a_child_forked_while_another_thread_writes_can_write():
    index = PrototypeIndex().add(RNG.normal(size=(50, 4)))
    index.search(np.zeros((1, 4)))
    lock = lock_of(index)
    held, go = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_add_and_search, args=(queue, index))
    process.start()
    try:
        assert queue.get(timeout=60) == [[999]]
    finally:
        go.set()
        holder.join()
        process.kill()
        process.join()
    assert os.getpid() != process.pid


def test_the_buffer_of_a_delta_is_shared_and_never_changed_below(small):
    index, states = PrototypeIndex("dot", "exact").add(RNG.normal(size=(30, 3))), []
    for i in range(10):
        states.append(index.add(np.full((1, 3), float(i)), [100 + i])._state)
    for i, state in enumerate(states):
        assert state.raw[:, 0].tolist() == list(range(i + 1))
        assert state.labels.tolist() == list(range(100, 101 + i))


# ---- what a second reading found ----------------------------------------------------------------------------------


def test_arrays_of_the_caller_are_not_kept_when_everything_is_replaced():
    X, y = RNG.normal(size=(2000, 2)), np.arange(2000)
    index = PrototypeIndex().add([[0.0, 0.0]], [0]).update(X, y)
    query, (labels, similarities) = X[:1].copy(), index.search(X[:1])
    X[:], y[:] = 7.0, -5
    assert index.search(query)[0].tolist() == labels.tolist() == [[0]]
    np.testing.assert_array_equal(index.search(query)[1], similarities)


@pytest.mark.parametrize("where", ["of", "with_keys"])
def test_a_change_that_fails_halfway_changes_nothing(where, monkeypatch):
    from fewshot.search.state import State

    index = PrototypeIndex().add(RNG.normal(size=(50, 4))).add(RNG.normal(size=(5, 4)) + 9)
    queries = RNG.normal(size=(20, 4)) * 5
    before = [part.tolist() for part in index.search(queries, 55)]
    make = getattr(State, where)

    def interrupted(*args):
        make(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(State, where, staticmethod(interrupted) if where == "of" else interrupted)
    for change in (
        lambda: index.add(RNG.normal(size=(3, 4))),
        lambda: index.add(RNG.normal(size=(4000, 4))),
        index.compact,
    ):
        with suppress(KeyboardInterrupt):
            change()
        if len(index) == 55:
            assert [part.tolist() for part in index.search(queries, 55)] == before
    monkeypatch.undo()
    n = len(index)
    index.add([[55.0] * 4], [10**6])
    assert len(index) == n + 1
    assert index.search([[55.0] * 4])[0].tolist() == [[10**6]]
    keys, labels = index._state.alive()
    apart = -((queries[:, None] - keys.double().numpy()) ** 2).sum(-1)
    np.testing.assert_array_equal(index.search(queries)[0][:, 0], labels[apart.argmax(1)])


def test_a_label_with_a_nul_at_its_end_is_another_one():
    index = PrototypeIndex().add(np.eye(3), ["a", "b", "c"]).add([[2.0, 2, 2]], ["d"])
    for label in ("b\0", "d\0"):
        with pytest.raises(ValueError, match="no key has the label"):
            index.remove([label])
        assert len(index.update([[5.0, 5, 5]], [label])) == 5
        index.remove([label])
    assert sorted(index.search(np.ones((1, 3)), 4)[0][0].tolist()) == ["a", "b", "c", "d"]


def test_integers_keep_their_digits_beside_floats():
    index = PrototypeIndex().add(np.eye(2), [1.0, 2.0]).add(3 * np.eye(2), [2**60 + 1, 2**60 + 2])
    assert set(index.search(np.ones((1, 2)), 4)[0][0].tolist()) == {1, 2, 2**60 + 1, 2**60 + 2}
    assert len(index.remove([2.0]).remove([2**60 + 1])) == 2


def test_keys_that_come_later_may_lie_where_float32_ends():
    index = PrototypeIndex().add(np.zeros((1, 512), np.float32), [0])
    index.add(np.full((1, 512), 9.5e17), [1]).add(np.full((1, 512), 9e17), [2])
    labels, similarities = index.search(np.ones((1, 512), np.float32), 3)
    assert labels.tolist() == [[0, 2, 1]]
    assert np.isfinite(similarities).all()


def test_it_can_be_changed_within_inference_mode_and_outside():
    import torch

    with torch.inference_mode():
        index = PrototypeIndex().add(np.eye(3)).add([[2.0, 0, 0]])
    index.add([[0.0, 3, 0]]).remove([0]).search(np.eye(3))
    with torch.inference_mode():
        index.add([[0.0, 0, 4]]).compact()
    assert index.add([[9.0, 9, 9]]).search([[9.0, 9, 9]])[0].tolist() == [[6]]


def test_when_all_is_gone_labels_of_another_type_may_come():
    index = PrototypeIndex().add(np.eye(2)).remove([0, 1])
    assert index.add(np.eye(2), ["a", "b"]).search([[0.0, 1]])[0].tolist() == [["b"]]


@pytest.mark.parametrize("metric", METRICS)
def test_mixed_precision_around_it_does_not_blur_it(metric):
    import torch

    index, queries = PrototypeIndex(metric).add(RNG.normal(size=(300, 64)).astype(np.float32)), np.eye(64, dtype="f")
    expected = [part.tolist() for part in index.search(queries, 3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [part.tolist() for part in index.search(queries, 3)] == expected
