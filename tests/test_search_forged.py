"""Folders of indexes that anyone can have written: refused in one sentence, or they answer with finite numbers."""

import json
import os
import struct

import numpy as np
import pytest
import torch

from fewshot import PrototypeIndex
from fewshot.errors import ArtifactError
from fewshot.search.approximate import LINKS, Approximate, Choice, faiss_module
from fewshot.search.faiss_file import check_faiss_file
from tests.forging import (
    confined,
    copied,
    forgeries,
    manifest_of,
    put,
    put_tensors,
    seal,
    tensors_of,
)

RNG = np.random.default_rng(0)
KEYS = RNG.normal(size=(300, 4)).astype(np.float32)
QUERIES = RNG.normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save an index of each kind, with a base, a delta, and dead keys in both."""
    made = {}
    for kind in ("exact", "ivf", "hnsw"):
        index = PrototypeIndex(index=kind).add(KEYS, [f"k{i}" for i in range(300)])
        index.build()
        index.add(KEYS[:5] + 1, list("abcde")).remove(["k3", "b"])
        made[kind] = tmp_path_factory.mktemp("saved") / kind
        index.save(made[kind])
    return made


def refused_or_right(folder, tmp_path):
    """Return the error; None where the folder was loaded, and answers."""
    with confined(tmp_path) as reached:
        try:
            index = PrototypeIndex.load(folder)
            labels, similarities = index.search(QUERIES, 3)
            assert np.isfinite(similarities).all()
            assert (np.diff(similarities) <= 0).all()
            assert labels.shape == (5, 3)
            index.add(KEYS[:1], labels[:1, 0]).remove(labels[:1, 0])
            error = None
        except ArtifactError as caught:
            error = str(caught)
            assert error.isprintable()
    assert reached == []
    return error


@pytest.mark.parametrize(
    ("kind", "step"), [("exact", 5), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("exact", "ivf"))]
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_one_thing_is_wrong_it_is_refused_or_answers(kind, step, saved, tmp_path):
    made = forgeries(saved[kind], tmp_path / "forged", ("keys", "changes"))
    errors = [refused_or_right(folder, tmp_path) for i, folder in enumerate(made) if i % step == 0]
    assert len(errors) > 500 / step
    assert sum(error is not None for error in errors) > 0.4 * len(errors)


@pytest.mark.parametrize(
    ("part", "name", "change", "match"),
    [
        ("keys", "keys", lambda x: x * torch.nan, "keys must be finite"),
        ("keys", "keys", lambda x: x + torch.inf, "keys must be finite"),
        ("keys", "keys", lambda x: x.double() * 1e300, "keys must be finite"),
        ("keys", "keys", lambda x: x[1:], "299 keys, 300 labels"),
        ("keys", "keys", lambda x: x[:, :3], "have different lengths"),
        ("keys", "keys", lambda x: x.to(torch.int64), "expected float32 or float64"),
        ("changes", "raw", lambda x: x * torch.nan, "keys must be finite"),
        ("changes", "raw", lambda x: x[:-1], "4 keys, 5 labels"),
        ("changes", "dead_base", lambda x: x[:-1], "torch.bool marks"),
        ("changes", "dead_delta", lambda x: x.long(), "torch.int64 marks"),
    ],
)
def test_keys_that_none_has(part, name, change, match, saved, tmp_path):
    folder = copied(saved["exact"], tmp_path / "forged")
    tensors = tensors_of(folder, part)
    put_tensors(folder, part, {**tensors, name: change(tensors[name]).contiguous()})
    assert match in (refused_or_right(folder, tmp_path) or "")


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"next": -1}, "its next is -1"),
        ({"next": 2**70}, "its next is"),
        ({"recall": float("nan")}, "its recall is nan"),
        ({"metric": "euclid"}, "its metric is 'euclid'"),
        ({"index": ["exact"]}, "its index is"),
        ({"base": {"dtype": "<U500000000", "values": []}}, "declared type, <U500000000"),
        ({"base": {"dtype": "<U1", "values": []}}, "300 keys, 0 labels"),
        ({"delta": {"dtype": "<i8", "values": [1, 2, 3, 4, 5]}}, "its labels mix"),
    ],
)
def test_a_manifest_that_none_has(facts, match, saved, tmp_path):
    folder = copied(saved["exact"], tmp_path / "forged")
    seal(folder, {**manifest_of(folder), **facts})
    assert match in (refused_or_right(folder, tmp_path) or "")


# ---- what FAISS would trust ----------------------------------------------------------------------------------------


def cache_of(folder):
    return folder / manifest_of(folder)["caches"]["lists.faiss"]["name"]


def put_cache(folder, content):
    manifest = manifest_of(folder)
    manifest["files"]["lists.faiss"] = manifest["caches"].pop("lists.faiss")
    seal(folder, manifest)
    put(folder, "lists.faiss", content)
    manifest = manifest_of(folder)
    manifest["caches"]["lists.faiss"] = manifest["files"].pop("lists.faiss")
    seal(folder, manifest)


def adopted(monkeypatch):
    """Note what FAISS is given to read when a folder is opened."""
    given, opening, faiss = [], [], faiss_module()
    read, open_ = faiss.read_index, Approximate.open.__func__  # the former also reads from bytes

    def opened(cls, *args):
        opening.append(args)
        try:
            return open_(cls, *args)
        finally:
            opening.pop()

    monkeypatch.setattr(faiss, "read_index", lambda *args: (opening and given.append(args)) or read(*args))
    monkeypatch.setattr(Approximate, "open", classmethod(opened))
    return given


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_what_faiss_wrote_is_given_to_it(kind, saved, tmp_path, monkeypatch):
    given = adopted(monkeypatch)
    assert refused_or_right(copied(saved[kind], tmp_path / "copy"), tmp_path) is None
    assert len(given) == 1


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_no_file_reaches_faiss_that_it_did_not_write_so(kind, saved, tmp_path, monkeypatch):
    """Each number of the structure is replaced in turn; what passes has other vectors alone, and answers."""
    given = adopted(monkeypatch)
    choice, whole = manifest_of(saved[kind])["cache"]["choice"], cache_of(saved[kind]).read_bytes()
    wrong = [struct.pack("<q", n) for n in (-1, 0, 2**62, 299, 300)] + [b"\xff" * 4, b"ilod", b"IxPT"]
    passed, tried = [], [*range(160), *range(160, len(whole) - 8, len(whole) // 150)]
    for place in tried:
        for value in wrong:
            content = whole[:place] + value + whole[place + len(value) :]
            try:
                check_faiss_file(content, kind, False, 300, 4, choice["n_lists"])
                passed.append(content)
            except ValueError:
                continue
    assert len(passed) < 0.7 * len(wrong) * len(tried)
    for content in [*passed[:: max(1, len(passed) // 10)], b"", whole[:-1], b"ilod" + whole]:
        put_cache(folder := copied(saved[kind], tmp_path / "forged"), content)
        assert refused_or_right(folder, tmp_path) is None  # built again where it is refused
    assert len(given) <= 11


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_file_that_is_cut_off_or_longer_is_refused(kind, saved):
    choice = manifest_of(saved[kind])["cache"]["choice"]
    whole = cache_of(saved[kind]).read_bytes()
    sizes = (kind, False, 300, 4, choice["n_lists"])
    check_faiss_file(whole, *sizes)
    for content in (b"", whole[:10], whole[:-1], whole + b"\0", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match="early|length|laid out|buffer"):
            check_faiss_file(content, *sizes)
    for other in ((kind, True, 300, 4), (kind, False, 301, 4), (kind, False, 300, 5)):
        with pytest.raises(ValueError, match=r"."):
            check_faiss_file(whole, *other, choice["n_lists"])


def test_a_graph_whose_links_leave_their_level_is_refused():
    """FAISS would read beyond the links of a row that has none on that level."""
    faiss = faiss_module()
    index = faiss.IndexHNSWSQ(4, faiss.ScalarQuantizer.QT_8bit, LINKS)
    index.train(rows := RNG.normal(size=(3000, 4)).astype(np.float32))
    index.add(rows)
    whole = faiss.serialize_index(index).tobytes()
    check_faiss_file(whole, "hnsw", False, 3000, 4, 0)
    levels = faiss.vector_to_array(index.hnsw.levels)
    offsets = faiss.vector_to_array(index.hnsw.offsets)
    high, low = int(np.flatnonzero(levels > 1)[0]), int(np.flatnonzero(levels == 1)[0])
    neighbors = faiss.vector_to_array(index.hnsw.neighbors)
    neighbors[int(offsets[high]) + 2 * LINKS] = low
    faiss.copy_array_to_vector(neighbors, index.hnsw.neighbors)
    with pytest.raises(ValueError, match="levels that they are not on"):
        check_faiss_file(faiss.serialize_index(index).tobytes(), "hnsw", False, 3000, 4, 0)


def test_small_files_can_be_cut_off_while_the_index_answers(saved, tmp_path):
    for kind, source in saved.items():
        folder = copied(source, tmp_path / kind)
        index = PrototypeIndex.load(folder)
        for path in folder.iterdir():
            os.truncate(path, 0)
        assert np.isfinite(index.search(QUERIES, 3)[1]).all()
        index.add(KEYS[:2], ["x", "y"]).save(tmp_path / f"{kind} again")
        assert json.dumps(PrototypeIndex.load(tmp_path / f"{kind} again").search(QUERIES, 3)[0].tolist())


def test_approximate_is_opened_from_bytes_that_were_checked(tmp_path, saved):
    def refuse(data):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Approximate.open(cache_of(saved["ivf"]), Choice("ivf"), refuse, True)
