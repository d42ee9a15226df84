"""Maps of features: their shape, the mean by salience, and that both are cached, batched and saved."""

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import DN4Learner, Embedder, FewShotImageClassifier, FewShotModel, OwnEmbedder, digits
from fewshot.embedding.maps import SALIENCE, feature_map, salient_mean


def images(n=6, seed=0):
    return [np.random.default_rng(seed + i).integers(0, 256, (40, 40, 3), np.uint8) for i in range(n)]


def embedder(name="resnet10t", **how):
    how = {"weights": "random", "img_size": 64, "progress": False, **how}
    return Embedder(name, **how)


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("resnet10t", 64, (2, 2, 512)),
        ("vit_tiny_patch16_224", 224, (14, 14, 192)),  # a class token
        ("swin_tiny_patch4_window7_224", 224, (7, 7, 768)),  # channels last
        ("conv4", 32, (2, 2, 64)),
    ],
)
def test_maps_of_networks_of_all_kinds(name, size, shape):
    found = embedder(name, img_size=size, pool=None)
    assert found.map_shape == shape
    assert found.transform(images(2)).shape == (2, shape[0] * shape[1], shape[2])


def test_the_mean_of_a_map_is_the_embedding_of_a_network_that_averages():
    x = images()
    np.testing.assert_allclose(
        embedder(pool=None, crop="pad").transform(x).mean(1), embedder(crop="pad").transform(x), atol=1e-5
    )


def test_tokens_are_those_of_patches_in_their_order():
    network = embedder("vit_tiny_patch16_224", img_size=224).network
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(feature_map(network, x).flatten(1, 2), network.forward_features(x)[:, 1:])


def test_batches_and_cache_change_nothing(tmp_path):
    x, expected = images(), embedder(pool=None, batch_size=6).transform(images())
    cached = embedder(pool=None, batch_size=2, cache=tmp_path)
    for _ in range(2):
        np.testing.assert_allclose(cached.transform(x), expected, atol=1e-5)
    ways = [embedder(pool=pool, cache=tmp_path).transform(x) for pool in ("auto", "salient")]
    assert not np.allclose(*ways)
    assert len(list(tmp_path.glob("*.sqlite"))) == 3


def test_salience_against_plain_loops():
    places = torch.rand(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, found in zip(places.numpy(), salient_mean(places).numpy(), strict=True):
        unit = np.array([x / np.linalg.norm(x) for x in row])
        mean = unit.mean(0) / np.linalg.norm(unit.mean(0))
        weight = np.array([(1 - x @ mean) ** SALIENCE for x in unit])
        np.testing.assert_allclose(
            found, sum(w * x for w, x in zip(weight, row, strict=True)) / weight.sum(), rtol=1e-4
        )


def test_an_even_image_has_the_mean_of_its_places():
    torch.testing.assert_close(salient_mean(torch.full((1, 9, 4), 3.0)), torch.full((1, 4), 3.0))
    torch.testing.assert_close(salient_mean(torch.zeros(1, 9, 4)), torch.zeros(1, 4))


@pytest.mark.parametrize(("learner", "pool"), [("dn4", "auto"), ("mutual-nearest", "auto"), (None, "salient")])
@pytest.mark.parametrize("weights", ["embed", "reference"])
def test_models_are_saved_with_it(tmp_path, learner, pool, weights):
    data = digits()
    backbone = {"backbone": "tf_efficientnet_lite0", "img_size": 64, "pool": pool, "progress": False}
    model = FewShotImageClassifier(learner=learner, **backbone).fit(data.images[:20], data.labels[:20])
    model.save(tmp_path / "model", weights=weights)
    queries = data.images[20:30]
    for loaded in (FewShotImageClassifier.load(tmp_path / "model"), FewShotModel.load(tmp_path / "model")):
        np.testing.assert_array_equal(loaded.predict_proba(queries), model.predict_proba(queries))
        loaded.partial_fit(data.images[20:24], data.labels[20:24])
        loaded.fit(data.images[:20], data.labels[:20])
        np.testing.assert_array_equal(loaded.predict_proba(queries), model.predict_proba(queries))
    if learner is not None:
        given = Embedder("tf_efficientnet_lite0", img_size=64, progress=False)  # as one would write it again
        assert FewShotImageClassifier.load(tmp_path / "model", embedder=given).predict(queries).shape == (10,)
        assert model.answer(queries[:1])[0].label in model.classes_


def test_other_vectors_are_one_place_unless_a_width_is_given():
    x, y = images(), ["a", "b"] * 3
    vectors = OwnEmbedder(lambda items: [np.asarray(item, float)[0, :2].ravel() for item in items], "two places of 3")
    for learner in ("mutual-nearest", DN4Learner(1, width=3)):
        assert FewShotModel(vectors, learner).fit(x, y).predict(x).tolist() == y


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"views": "mirror"}, "views='mirror' would average different places"),
        ({"crop": "tiles"}, "crop='tiles' would average different places"),
        ({"domain": "file"}, "give one"),
        ({"pool": "max"}, "'max'"),
    ],
)
def test_what_maps_do_not_allow(how, message):
    with pytest.raises(ValueError, match=message):
        embedder(**{"pool": None, **how}).transform(images(1))


def test_a_network_without_maps_is_refused():
    network = nn.Sequential(nn.Flatten())
    with pytest.raises(ValueError, match="Sequential has no map of features"):
        Embedder(network, img_size=8, pool=None).transform(images(1))
