"""One classifier of images in several threads: each call sees one moment, and nothing that was learned is lost."""

import copy
import io
import pickle
import threading
import time
import unicodedata
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from fewshot import (
    Embedder,
    FewShotImageClassifier,
    LabeledImages,
    OwnEmbedder,
    PrototypicalClassifier,
    Record,
    annotate,
    retrieve,
)
from fewshot.embedding.network import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.images.learned import Prepared, labelled, names_of
from fewshot.retrieval.stores.faiss import FaissStore
from fewshot.search.approximate import faiss_module
from fewshot.utils.labels import label_of_text
from tests.together import together

#: How long threads work beside each other in the slow test.
SECONDS = 6


def letters(texts):
    return np.array([[len(text), ord(text[0]), ord(text[-1]), 1.0] for text in texts], np.float32)


def fitted(**params):
    return FewShotImageClassifier(OwnEmbedder(letters, "letters"), progress=False, **params).fit(
        ["aa", "bb", "cc"], ["a", "b", "c"]
    )


def counts(model):
    return dict(zip(model.classes_.tolist(), model.n_support_.tolist(), strict=True))


def learn_and_forget(model, rounds):
    for i in range(rounds):
        label = f"n{i % 7}"
        model.partial_fit([f"{label}{i}"], [label], ids=[f"{label}-{i}"])
        if i % 5 == 0:
            model.calibrate(["pp", "pq", "qq", "qr"], ["p", "p", "q", "q"], n_episodes=2, n_shot=1)
            for known in [known for known in model.classes_.tolist() if known.startswith("n")]:
                model.remove_class(known)


@pytest.mark.parametrize(("own", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_class_is_the_same_in_any_unicode_form(own, typed, recwarn):
    mine, other = (unicodedata.normalize(form, "Wälder") for form in (own, typed))
    embedder = OwnEmbedder(letters, "letters")
    model = FewShotImageClassifier(embedder, progress=False).fit(["aa", "zz", "zzz"], [mine, "b", "b"])
    assert model.test(["aa", "zz"], [other, "b"]).accuracy == model.score(["aa", "zz"], [other, "b"]) == 1
    assert counts(model.partial_fit(["aaa"], [other])) == {mine: 2, "b": 2}
    more = FewShotImageClassifier(embedder, progress=False).fit(["aaaa", "cc"], [other, "c"])
    assert counts(model.merge(more)) == {mine: 3, "b": 2, "c": 1}
    assert counts(more) == {other: 1, "c": 1}
    assert counts(model.remove(["aaa"], [other])) == {mine: 2, "b": 2, "c": 1}
    assert model.predict_set(["aa"], 0.5, held_out=(["aa", "zz", "cc"], [other, "b", "c"]))
    store = FaissStore(model.learner_.item_metric, model.embedder_.fingerprint)
    store.add([Record("1", model.embedder_.transform(["aa"])[0], other)])
    (found,) = retrieve(model, store, ["aa"], where={"label": mine})[0]
    assert found.probability == pytest.approx(model.predict_proba(["aa"])[0, model.classes_.tolist().index(mine)])
    assert model.remove_class(other).classes_.tolist() == ["b", "c"]
    assert LabeledImages(["1.png", "2.png"], [mine, "b"]).with_classes([other]).labels.tolist() == [mine]
    assert label_of_text(other, np.array([mine, "b"])) == mine
    assert not [one for one in recwarn if "Unicode" in str(one.message)]


def test_what_is_saved_looked_at_and_answered_while_another_thread_learns_is_of_one_moment(tmp_path):
    model, done = fitted(reject=-1e9), threading.Event()

    def learn():
        try:
            learn_and_forget(model, 60)
        finally:
            done.set()

    def save():
        n = 0
        while not done.is_set() or not n:
            model.save(tmp_path / "model")
            n += 1
            saved = FewShotImageClassifier.load(tmp_path / "model", embedder=model.embedder_)
            assert counts(saved) == Counter(saved.support_.labels.tolist())
        return n

    def look():
        while not done.is_set():
            frame = model.audit()
            assert set(frame["label"]) >= {"a", "b", "c"}
            for answer in model.answer(["aa", "n0n0"], top=99, n_neighbours=99):
                assert {near.label for near in answer.neighbours} == {label for label, _ in answer.ranking}
            assert len(model.predict_proba(["bb"])[0]) >= 3

    _, n, _ = together(learn, save, look)
    assert n


@pytest.mark.parametrize("keep_support", [True, False])
def test_threads_that_learn_at_once_lose_nothing(keep_support):
    model, each = fitted(keep_support=keep_support), 25

    def learn(name):
        for i in range(each):
            model.partial_fit([f"{name}{i}"], [name])

    together(*(lambda name=name: learn(name) for name in "wxyz"))
    assert counts(model) == {"a": 1, "b": 1, "c": 1, **dict.fromkeys("wxyz", each)}
    if keep_support:
        assert Counter(model.support_.labels.tolist()) == counts(model)


def test_threads_that_change_it_in_every_way_lose_nothing():
    model, other = fitted(), fitted().partial_fit(["zz"], ["z"])
    model.partial_fit([f"d{i}" for i in range(30)], ["d"] * 30).partial_fit([f"e{i}" for i in range(20)], ["e"] * 20)

    def learn():
        for i in range(20):
            model.partial_fit([f"new{i}"], ["new"])

    def remove():
        for i in range(15):
            model.remove([f"d{i}"], ["d"])
        for i in range(15, 25):
            model.remove_support([f"<text {i}>" if f"d{i}" not in model.support_.ids else f"d{i}"])

    def rename():
        for i in range(20):
            model.rename_class(f"e{i}" if i else "e", f"e{i + 1}")

    def merge():
        for _ in range(10):
            model.merge(other)

    together(learn, remove, rename, merge)
    assert counts(model) == {"a": 11, "b": 11, "c": 11, "d": 5, "e20": 20, "new": 20, "z": 10}
    assert Counter(model.support_.labels.tolist()) == counts(model)


def test_images_that_were_embedded_while_another_thread_called_fit_are_embedded_again():
    model = fitted()

    class Changing:
        calls = 0

        def __call__(self, texts):
            Changing.calls += 1
            if Changing.calls == 2:
                model.set_params(backbone=OwnEmbedder(lambda texts: 2 * letters(texts), "twice")).fit(["a"], ["a"])
            return letters(texts)

    model.set_params(backbone=OwnEmbedder(Changing(), "changing")).fit(["aa"], ["a"])
    model.partial_fit(["bb"], ["b"])
    assert (model.embedder_.name, counts(model)) == ("twice", {"a": 1, "b": 1})
    np.testing.assert_array_equal(model.support_.embeddings, 2 * letters(["a", "bb"]))
    prepared = fitted().prepare(["bb"], ["b"])
    with pytest.raises(ValueError, match="embedded with another network"):
        model.partial_fit(prepared)


def test_answering_sets_nothing_on_what_threads_share(monkeypatch):
    model = fitted(on_error="raise")
    model.explain("aa")  # packages that are imported at first use add filters of their own
    before = [copy.copy(vars(shared)) for shared in (model, model.embedder_, model.classifier_)]
    filters = list(warnings.filters)
    model.set_params(on_error="unknown", reject=0.5)
    monkeypatch.setattr(warnings, "catch_warnings", None)  # filters are the process's: nobody may set and restore them
    list(annotate(model, ["aa", "bb"]))
    model.predict(["aa"]), model.explain("aa"), model.nearest(["aa"])
    store = FaissStore("cosine", model.embedder_.fingerprint, 4)
    store.add(found.record() for found in annotate(model, ["aa", "bb"]))
    retrieve(model, store, ["aa"])
    model.set_params(on_error="raise", reject=None)
    assert [vars(shared) for shared in (model, model.embedder_, model.classifier_)] == before
    assert warnings.filters == filters


def test_a_copy_clone_or_pickle_of_it_learns_on_its_own():
    model = fitted()
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(fitted_by_module()))):
        before = counts(model)
        other.partial_fit(["zz"], ["z"])
        assert counts(model) == before
        assert counts(other) == {**before, "z": 1}
    assert not hasattr(clone(model), "classes_")
    assert "_learned" not in model.get_params()


def fitted_by_module():
    return fitted()


def picture(level, side=40):
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
def test_threads_that_answer_annotate_explain_and_learn_are_as_one():
    """Answers are those of one thread, and filters and numbers of threads stay as they were."""
    embedder = Embedder("conv4", weights="random", img_size=28, progress=False)
    good, bad = [picture(level) for level in (0, 90, 180, 250)], picture(90)[:60]
    # A learner whose classes do not depend on each other, so that answers stay the same while others are learned.
    model = FewShotImageClassifier(embedder, "cosine-prototypical", progress=False).fit(good, ["a", "b", "c", "d"])
    store = FaissStore("cosine", model.embedder_.fingerprint, 64)
    store.add(found.record() for found in annotate(model, good))
    held_out = [picture(level) for level in (20, 30, 60, 70)]
    expected = model.predict(good).tolist()
    nearest = [[match.id for match in row] for row in retrieve(model, store, good, k=1)]

    def again(action):
        def run():
            n = 0
            while time.monotonic() < until:
                action()
                n += 1
            return n

        return run

    def annotating():
        found = list(annotate(model, [*good, bad]))
        assert [one.label for one in found[:4]] == expected
        assert "cannot be decoded" in found[4].error

    def refused():
        with pytest.raises(ImageDecodeError, match="cannot be decoded"):
            model.predict([bad])

    def explained():
        answer = model.explain(good[1])
        assert (answer.label, answer.error) == (expected[1], None)

    def learned():
        model.partial_fit([good[0]], ["a"]).partial_fit([picture(130)], ["new"]).remove_class("new")

    def calibrated():
        model.calibrate(held_out, ["x", "x", "y", "y"], n_episodes=2, n_shot=1)

    def asked():
        assert model.predict(good).tolist() == expected

    def retrieved():
        assert [[match.id for match in row] for row in retrieve(model, store, good, k=1)] == nearest

    def audited():
        assert {"a", "b", "c", "d"} <= set(model.audit()["label"])

    actions = (annotating, refused, explained, learned, calibrated, asked, retrieved, audited)
    for action in actions:
        action()  # packages that are imported at first use add filters of their own
    filters, threads = list(warnings.filters), (torch.get_num_threads(), faiss_module().omp_get_max_threads())
    until = time.monotonic() + SECONDS
    assert min(together(*map(again, actions))) > 0
    assert warnings.filters == filters
    assert (torch.get_num_threads(), faiss_module().omp_get_max_threads()) == threads
    assert counts(model)["a"] == Counter(model.support_.labels.tolist())["a"] > 1


def unread(names, labels, embeddings, *errors):
    thumbnails = [b"" if name == "b" else name.encode() for name in names]
    return Prepared(names, False, np.asarray(labels), Embedded(np.float32(embeddings), [*errors], thumbnails), None)


def test_items_that_could_not_be_read_are_left_out_by_place_and_not_by_index():
    prepared = unread(["a", "b", "c"], [7, 8, 9], [[1.0], [np.nan], [3.0]], ImageDecodeError("b", "damaged", 1))
    with pytest.warns(UserWarning, match="damaged"):
        read = prepared.without_unreadable("skip")
    assert (read.names, read.labels.tolist(), read.embedded.errors) == (["a", "c"], [7, 9], [])
    assert (read.embedded.embeddings.tolist(), read.embedded.thumbnails) == ([[1.0], [3.0]], [b"a", b"c"])
    for on_error in ("raise", "unknown"):
        with pytest.raises(ImageDecodeError, match="image 1, b: damaged"):
            prepared.without_unreadable(on_error)


def test_where_nothing_could_be_read_the_first_reason_is_raised():
    with pytest.raises(ImageDecodeError, match="image 0, b: damaged"), pytest.warns(UserWarning, match="1 of 1"):
        unread(["b"], ["x"], [[np.nan]], ImageDecodeError("b", "damaged", 0)).without_unreadable("skip")


def test_images_and_labels_come_together_or_side_by_side():
    items, labels = labelled(LabeledImages(["a.png", "b.png"], [1, 2]), None)
    assert (list(items), labels.tolist()) == (["a.png", "b.png"], [1, 2])
    items, labels = labelled(["a.png"], (label for label in "x"))
    assert (items, labels.tolist()) == (["a.png"], ["x"])
    with pytest.raises(TypeError, match="mix the types integer and string"):
        labelled(["a.png"], ["x"], known=PrototypicalClassifier().fit([[0.0], [1.0]], [1, 2]).model_)


def test_names_are_those_given_or_what_images_are_called():
    assert names_of(["x/a.png", b"12"], None, ()) == ["x/a.png", "<2 bytes>"]
    assert names_of([b"1", b"2"], ("one", "two"), {"three"}) == ["one", "two"]
    assert names_of([b"1", b"2"], pd.Series(["one", "two"], index=[3, 4]), ()) == ["one", "two"]
    for ids, message in (
        (["one"], "found 1 id for 2 images"),
        (["one", "one"], "the id 'one' is in use"),
        (["one", "three"], "the id 'three' is in use; remove that image first"),
    ):
        with pytest.raises(ValueError, match=message):
            names_of([b"1", b"2"], ids, {"three"})
    with pytest.raises(TypeError, match="id 1 is 7; expected text"):
        names_of([b"1", b"2"], ["one", 7], ())
