import numpy as np
import pytest
import torch
from torch import nn

from fewshot import create_backbone
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.loaded import Loaded, choose_device


def test_missing_images_are_rows_of_nan():
    loaded = Loaded(create_backbone("conv4", img_size=16), Preprocessing(3, 16, 16))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        some, none = loaded.embed([image, None, image]), loaded.embed([None, None])
    assert np.isnan(some).all(1).tolist() == [False, True, False]
    np.testing.assert_allclose(some[0], some[2], rtol=1e-5, atol=1e-6)
    assert none.shape == some[:2].shape
    assert np.isnan(none).all()


def test_a_network_without_one_vector_an_image_is_refused():
    loaded = Loaded(nn.Identity(), Preprocessing(3, 4, 4))
    with pytest.raises(ValueError, match=r"maps images to \(1, 3, 4, 4\); expected \(n, d\)"):
        loaded.embed([np.zeros((4, 4, 3), np.uint8)])


@pytest.mark.parametrize(("side", "batch"), [(28, 256), (112, 16), (224, 4), (448, 1), (4000, 1)])
def test_smaller_images_come_in_larger_batches(side, batch):
    assert Loaded(nn.Identity(), Preprocessing(3, side, side)).batch_size == batch


def test_the_fingerprint_changes_with_any_weight_and_any_preprocessing():
    network, seen = create_backbone("conv4", img_size=16), Preprocessing(3, 16, 16)
    before = Loaded(network, seen).fingerprint
    assert Loaded(network.to(memory_format=torch.channels_last), seen).fingerprint == before
    assert Loaded(network, Preprocessing(3, 16, 16, crop_pct=0.9)).fingerprint != before
    with torch.no_grad():
        network.blocks[3].norm.running_mean[5] += 1e-6
    assert Loaded(network, seen).fingerprint != before


def test_two_architectures_of_the_same_weights_have_two_identities():
    seen = Preprocessing(3, 32, 32)
    one = Loaded(create_backbone("efficientnet_b0"), seen)
    two = Loaded(create_backbone("tf_efficientnet_b0"), seen)  # the same layers, padded otherwise
    two.network.load_state_dict(one.network.state_dict())
    assert one.fingerprint == two.fingerprint
    assert one.identity != two.identity
    again = Loaded(create_backbone("efficientnet_b0"), seen)
    again.network.load_state_dict(one.network.state_dict())
    assert again.identity == one.identity
    assert Loaded(nn.Identity(), seen).identity != Loaded(nn.Flatten(), seen).identity


def test_a_device_is_chosen_or_refused():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"
    for wrong in ("warp", "cuda:99", "meta"):
        with pytest.raises(ValueError, match=f"device is '{wrong}', which is not here"):
            choose_device(wrong)
