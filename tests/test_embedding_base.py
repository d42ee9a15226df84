"""What all embedders are, with and without a domain."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from fewshot import Embedder, FewShotModel, OwnEmbedder
from tests.adapting import QUERIES, adapted, images, plain


def test_an_adapted_embedder_maps_the_embeddings_of_the_network() -> None:
    raw = plain().transform(images(QUERIES))
    assert np.array_equal(adapted().transform(images(QUERIES)), adapted().domain(raw))
    assert plain().domain is None
    assert np.array_equal(adapted().unadapted.transform(images(QUERIES)), raw)
    assert len({one.fingerprint for one in (plain(), adapted(), clone(adapted()))}) == 2
    assert plain().fingerprint == adapted().domain.embedder == adapted().unadapted.fingerprint
    assert plain().identity != adapted().identity
    assert adapted().domain.n_classes == 5


def test_a_domain_in_a_file_is_the_same(tmp_path: Path) -> None:
    adapted().domain.save(tmp_path / "d.safetensors")
    from_file = clone(plain()).set_params(domain=tmp_path / "d.safetensors")
    assert from_file.fingerprint == adapted().fingerprint
    (tmp_path / "d.safetensors").unlink()  # it was read
    assert np.array_equal(clone(from_file).transform(images(QUERIES)), adapted().transform(images(QUERIES)))
    pickled = pickle.loads(pickle.dumps(adapted()))
    assert np.array_equal(pickled.transform(images(QUERIES)), adapted().transform(images(QUERIES)))


def test_the_domain_of_another_network_is_refused() -> None:
    other = Embedder("conv4", weights="random", img_size=32, progress=False, domain=adapted().domain)
    with pytest.raises(ValueError, match="adapt again, with this embedder"):
        other.transform(images(QUERIES))
    with pytest.raises(TypeError, match="domain is 3"):
        other.set_params(domain=3).transform(images(QUERIES))


@pytest.mark.parametrize("kind", [Embedder, OwnEmbedder])
def test_a_clone_keeps_what_scikit_learn_was_told(kind: type) -> None:
    given = images(QUERIES)[:2]
    own = OwnEmbedder(lambda items: np.array([image.ravel()[:3] for image in items]), "pixels")
    embedder = plain() if kind is Embedder else own
    told = clone(embedder).set_output(transform="pandas")
    found = clone(told).transform(given)
    assert found.columns[0] == f"{kind.__name__.lower()}0"


TEXTS = ["red cat", "red dog", "red fox", "blue car", "blue bus", "blue van"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_grid_over_what_a_fitted_backbone_was_fitted_with_is_refused_and_changes_nothing(wrapped: bool) -> None:
    fitted = make_pipeline(TfidfVectorizer(), TruncatedSVD(3, random_state=0)).fit(TEXTS)
    embedder = OwnEmbedder(fitted, "svd 1")
    model, name = FewShotModel(embedder), "embedder"
    if wrapped:
        model, name = make_pipeline(model), "fewshotmodel__embedder"
    names = [one for one in model.get_params() if one.startswith(f"{name}__backbone")]
    assert names == [f"{name}__backbone"]
    search = GridSearchCV(model, {f"{name}__backbone__truncatedsvd__n_components": [1, 2]}, cv=3)
    with pytest.raises(ValueError, match=r"backbone__truncatedsvd__n_components would be.*as it was fitted; to tune"):
        search.fit(TEXTS, ["animal"] * 3 + ["vehicle"] * 3)
    assert fitted[-1].n_components == 3
    assert embedder.transform(TEXTS).shape == (6, 3)
    assert embedder.set_params(name="svd 2").name == "svd 2"
    with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
        embedder.set_params(nothing__x=1)
