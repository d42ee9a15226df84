import numpy as np
import pytest

from fewshot.errors import StoreError
from fewshot.retrieval.stores.qdrant import QdrantStore
from fewshot.retrieval.stores.records import Record

client_module = pytest.importorskip(
    "qdrant_client", reason="qdrant-client is missing; run: pip install 'fewshot-learn[qdrant]'"
)


def records(n, start=0):
    x = np.random.default_rng(start).normal(size=(n, 2)).astype(np.float32)
    return [Record(f"{start + i:05d}", row, "ab"[i % 2]) for i, row in enumerate(x)]


class Failing:
    """A client that is cut off after some calls of one kind."""

    def __init__(self, client, name, after, dead=False, error=None):
        self.client, self.name, self.after, self.dead = client, name, after, dead
        self.error = error or ConnectionError("gone")
        self.lost = False

    def __getattr__(self, name):
        found = getattr(self.client, name)
        if not callable(found):
            return found

        def call(*args, **kwargs):
            if name == self.name:
                self.after -= 1
            if (name == self.name and self.after < 0) or (self.lost and self.dead):
                self.lost = True
                raise self.error
            return found(*args, **kwargs)

        return call


class FailingOnce(Failing):
    """The same, whose connection comes back after one failure."""

    def __getattr__(self, name):
        return getattr(self.client, name) if self.lost else super().__getattr__(name)


def test_a_collection_in_a_folder_is_opened_again_and_refuses_other_vectors(tmp_path):
    with QdrantStore(tmp_path / "q", "c", "cosine", "f" * 64, 2) as store:
        store.add(records(3))
        before = [(r.id, r.vector.tolist()) for r in store.snapshot()]
        with pytest.raises(StoreError, match="another Qdrant client"):
            QdrantStore(tmp_path / "q", "c", "cosine", "f" * 64, 2)
    for metric, fingerprint, d, message in [
        ("dot", "f" * 64, 2, "metric='cosine', not 'dot'"),
        ("cosine", "e" * 64, 2, "embedder ffffffffffff, and eeeeeeeeeeee was given"),
        ("cosine", "f" * 64, 3, "d=2, not 3"),
    ]:
        with pytest.raises(StoreError, match=message):
            QdrantStore(str(tmp_path / "q"), "c", metric, fingerprint, d)
    with QdrantStore(tmp_path / "q", "c", "cosine", "f" * 64, 2, create=False) as again:
        assert [(r.id, r.vector.tolist()) for r in again.snapshot()] == before


def test_what_is_no_store_is_refused():
    client = client_module.QdrantClient(":memory:")
    vectors = client_module.models.VectorParams(size=2, distance=client_module.models.Distance.DOT)
    client.create_collection("other", vectors_config=vectors)
    with pytest.raises(StoreError, match="not a store of embeddings"):
        QdrantStore(client, "other", "dot", "f", 2)
    with pytest.raises(StoreError, match="no collection"):
        QdrantStore(client, "missing", "dot", "f", 2, create=False)
    with QdrantStore(client, "c", "dot", "f", 2) as store:
        store.add(records(2))
    assert QdrantStore(client, "c", "dot", "f", 2).remove(["00000"]) == 1  # a given client stays open
    client.close()


@pytest.mark.filterwarnings("ignore")  # the client warns, from a thread, that it could not ask for the version
def test_a_server_that_is_not_there_is_a_store_error():
    with pytest.raises(StoreError, match="make sure that"):
        QdrantStore("http://127.0.0.1:9", "c", "dot", "f", 2)


@pytest.mark.parametrize("error", [ConnectionError("gone"), KeyboardInterrupt()])
def test_what_was_written_before_a_failure_is_deleted(error):
    client = client_module.QdrantClient(":memory:")
    QdrantStore(client, "c", "cosine", "f", 2).add(records(3))
    store = QdrantStore(Failing(client, "upsert", 1, error=error), "c", "cosine", "f", 2)
    with pytest.raises((StoreError, KeyboardInterrupt)):
        store.add(records(1500, start=100))
    assert [r.id for r in QdrantStore(client, "c", "cosine", "f", 2).snapshot()] == [r.id for r in records(3)]


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_what_was_replaced_before_a_failure_comes_back(metric):
    client = client_module.QdrantClient(":memory:")
    own = QdrantStore(client, "c", metric, "f", 2)
    own.add(records(1200))
    before = [(r.id, r.vector.tolist(), r.label) for r in own.snapshot()]
    broken = QdrantStore(FailingOnce(client, "upsert", 1), "c", metric, "f", 2)
    changed = [Record(r.id, -r.vector, "new") for r in records(1200)]
    with pytest.raises(StoreError, match="gone"):
        broken.upsert([*records(300, start=5000), *changed])
    assert [(r.id, r.vector.tolist(), r.label) for r in own.snapshot()] == before
    dead = QdrantStore(Failing(client, "upsert", 1, dead=True), "c", metric, "f", 2)
    with pytest.raises(StoreError, match="up to 1200 of them may remain, from '00000' on; write all again with upsert"):
        dead.upsert(changed)
    assert QdrantStore(client, "c", metric, "f", 2).upsert(changed) == 1200
    assert {r.label for r in own.snapshot()} == {"new"}


def test_bounds_are_refused_where_the_collection_knows_none():
    client = client_module.QdrantClient(":memory:")
    QdrantStore(client, "c", "dot", "f", 2).add(records(2))
    about = {"metric": "dot", "fingerprint": "f", "d": 2}  # as earlier versions wrote it
    client.update_collection("c", metadata={"fewshot_store": about})
    store = QdrantStore(client, "c", "dot", "f", 2)
    assert len(store.search_one([1, 0], where={"label": "a"})) == 1
    with pytest.raises(StoreError, match="'c' was made by a version that knew no bounds; copy its records"):
        store.search_one([1, 0], where={"n": {">": 1}})


def test_where_nothing_can_be_deleted_any_more_the_error_says_what_may_be_left():
    client = client_module.QdrantClient(":memory:")
    store = QdrantStore(Failing(client, "upsert", 1, dead=True), "c", "cosine", "f", 2)
    with pytest.raises(StoreError, match="up to 1500 of them may remain, from '00100' on; remove those"):
        store.add(records(1500, start=100))
    for name in ("count", "scroll", "query_batch_points", "query_points_groups", "retrieve"):
        broken = QdrantStore(Failing(client, name, 0), "c", "cosine", "f", 2)
        with pytest.raises(StoreError, match=r"cannot be reached or refused \(gone\)"):
            _ = [
                lambda s: len(s),
                lambda s: s.snapshot(),
                lambda s: s.search([[1, 0]]),
                lambda s: s.nearest_per_class([[1, 0]]),
                lambda s: s.remove(["a"]),
            ][("count", "scroll", "query_batch_points", "query_points_groups", "retrieve").index(name)](broken)


def test_what_another_has_added_meanwhile_is_not_deleted():
    client = client_module.QdrantClient(":memory:")
    other, own = QdrantStore(client, "c", "dot", "f", 2), QdrantStore(client, "c", "dot", "f", 2)
    own._client = Failing(client, "upsert", 1)
    present = own._present
    own._present = lambda ids: present(ids) or (other.add(records(1, 1500)) and [])  # between the check and the writing
    with pytest.raises(StoreError, match="gone"):
        own.add(records(1600))
    assert [record.id for record in other.snapshot()] == ["01500"]


def test_an_address_without_a_scheme_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="for a server give 'http://localhost:6333'"):
        QdrantStore("localhost:6333", "c", "dot", "f", 2)
    assert not list(tmp_path.iterdir())


def test_nearest_per_class_is_one_call_a_query():
    client = client_module.QdrantClient(":memory:")
    QdrantStore(client, "c", "dot", "f", 2).add(records(50))
    counted = Failing(client, "query_points_groups", 2)
    found = QdrantStore(counted, "c", "dot", "f", 2).nearest_per_class([[1, 0], [0, 1]], 2)
    assert counted.after == 0
    assert [sorted(match.label for match in row) for row in found] == [["a", "b"]] * 2


def test_a_server_is_told_whether_to_compare_all():
    client = client_module.QdrantClient(":memory:")
    QdrantStore(client, "c", "dot", "f", 2)
    remote = Failing(client, "", 0)
    remote.init_options = {"url": "http://there"}
    assert QdrantStore(remote, "c", "dot", "f", 2)._params.exact is True
    assert QdrantStore(remote, "c", "dot", "f", 2, exact=False)._params.exact is False
    assert QdrantStore(client, "c", "dot", "f", 2)._params is None  # in this process all are compared


def test_more_points_than_a_part_come_back():
    store = QdrantStore(":memory:", "c", "sqeuclidean", "f", 2)
    store.add(records(2100))
    assert [r.id for r in store.snapshot()] == [r.id for r in records(2100)]
    assert sorted(store.labels()) == ["a", "b"]
    assert store.remove([r.id for r in records(2100)]) == 2100
