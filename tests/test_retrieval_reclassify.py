"""The labels of a store follow its classifier."""

import numpy as np
import pytest

from fewshot import FaissStore, FewShotImageClassifier, Record, RemoteModel, annotate, reclassify, retrieve
from fewshot.errors import StoreError
from tests.photographs import photos, quick_embedder
from tests.serving import running

IMAGES, LABELS = photos(6)
NOISE = [np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8) for i in range(8)]


def fitted(**parameters):
    return FewShotImageClassifier(quick_embedder(), **parameters).fit(IMAGES[::2], LABELS[::2])


def stored(model, images=(*IMAGES, *NOISE)):
    store = FaissStore("cosine", model.embedder_.fingerprint)
    store.add(found.record({"price": i}) for i, found in enumerate(annotate(model, images)))
    return store


def facts(store):
    return {record.id: (record.label, dict(record.payload)) for record in store.snapshot()}


def assert_as_annotated_anew(store, model, kept=()):
    new, now = facts(stored(model)), facts(store)
    assert {id: one for id, one in now.items() if id not in kept} == {id: new[id] for id in now if id not in kept}


@pytest.mark.parametrize("reject", [None, "balanced"])
def test_a_class_that_was_learned_renamed_or_removed_shows_in_the_labels(reject):
    model = fitted(reject=reject)
    store = stored(model)
    assert reclassify(model, store) == 0
    model.partial_fit(NOISE[:3], ["noise"] * 3)
    assert reclassify(model, store) >= 5
    assert_as_annotated_anew(store, model)
    (found,) = retrieve(model, store, NOISE[7:], k=3, by_label=True)
    assert [match.label for match in found] == ["noise"] * 3
    model.rename_class("noise", "static").remove_class("temple")
    assert reclassify(model, store)
    assert_as_annotated_anew(store, model)
    assert "temple" not in store.labels()
    assert reclassify(model, store) == 0


def test_labels_that_were_corrected_and_records_of_others_stay():
    model = fitted(reject="balanced")
    store = stored(model)
    unknown = next(record.id for record in store.snapshot() if record.payload["unknown"])
    store.relabel({"0": "mine", unknown: "owl"})
    own = Record("own", store.get(["0"])[0].vector, "by hand", {"price": 1})
    store.add([own])
    model.partial_fit(NOISE[:3], ["noise"] * 3)
    reclassify(model, store)
    assert_as_annotated_anew(store, model, kept=("0", unknown, "own"))
    now = facts(store)
    assert (now["0"][0], now[unknown][0], now["own"]) == ("mine", "owl", ("by hand", {"price": 1}))
    assert now[unknown][1] == facts(stored(model))[unknown][1]  # what the classifier says stands beside the correction


def test_nothing_is_done_to_an_empty_store_and_to_one_of_another_network():
    model = fitted()
    assert reclassify(model, FaissStore("cosine", model.embedder_.fingerprint)) == 0
    with pytest.raises(StoreError, match="holds vectors of the embedder"):
        reclassify(model, FaissStore("cosine", "f" * 64, 3))


def test_a_service_answers_for_what_it_was_taught(tmp_path, monkeypatch):
    monkeypatch.setattr("fewshot.retrieval.remote.MOST_NUMBERS", 2000)  # several requests
    model = fitted(reject="balanced")
    store = stored(model)
    model.partial_fit(NOISE[:3], ["noise"] * 3)
    model.save(tmp_path / "model")
    with running(tmp_path / "model") as client:
        there = RemoteModel(str(client.base_url))
        assert reclassify(there, store) >= 5
        assert reclassify(there, store) == 0
    assert_as_annotated_anew(store, model)


def test_what_others_change_meanwhile_stays(monkeypatch):
    model = fitted()
    store = stored(model)
    model.partial_fit(NOISE[:3], ["noise"] * 3)
    vector, plain = store.get(["0"])[0].vector, FaissStore._alone

    def changed_before(self):
        monkeypatch.setattr(FaissStore, "_alone", plain)
        store.relabel({"19": "mine"})
        store.remove(["18"])
        (old,) = store.get(["17"])
        store.upsert([Record("17", vector, old.label, old.payload)])
        return plain(self)

    monkeypatch.setattr(FaissStore, "_alone", changed_before)
    before = facts(store)["17"]
    assert reclassify(model, store) > 0
    now = facts(store)
    assert (now["19"][0], now["17"], "18" in now) == ("mine", before, False)
