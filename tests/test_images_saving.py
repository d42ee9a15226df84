import copy
import json
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from fewshot import Embedder, FewShotImageClassifier, MatchingLearner, PrototypicalLearner, create_backbone
from fewshot.errors import ArtifactError, ImageDecodeError, UnknownNameError
from fewshot.images import memory_files
from fewshot.learners.registry import learner_class, list_learners
from fewshot.persistence.artifact import size_of
from fewshot.utils.isolation import seeded
from tests.photographs import photos, quick_embedder, write_photos
from tests.processes import python
from tests.together import together

PREDICT = """
import sys
from fewshot import FewShotImageClassifier
model = FewShotImageClassifier.load(sys.argv[1])
print(model.predict_proba(sys.argv[2:]).tolist())
"""


@pytest.fixture
def model():
    return FewShotImageClassifier(quick_embedder()).fit(*photos(4))


@pytest.mark.slow
def test_it_answers_the_same_after_a_restart_and_from_another_place(model, tmp_path):
    queries = write_photos(tmp_path / "queries", 3, seed=1)
    expected = model.predict_proba(queries)
    model.save(tmp_path / "model")
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    result = python(PREDICT, tmp_path / "elsewhere", *queries, cwd=tmp_path)
    np.testing.assert_array_equal(json.loads(result.stdout), expected)


def test_another_learner_over_the_same_network_is_saved_with_it(tmp_path):
    (images, labels), (queries, _) = photos(3), photos(2, seed=1)
    for learner in (None, PrototypicalLearner("cosine", temperature=0.05), MatchingLearner(temperature=0.2)):
        model = FewShotImageClassifier(quick_embedder(), learner).fit(images, labels)
        model.save(tmp_path / "model")
        loaded = FewShotImageClassifier.load(tmp_path / "model")
        np.testing.assert_array_equal(loaded.predict_proba(queries), model.predict_proba(queries))


@pytest.mark.parametrize("name", [n for n in list_learners() if not learner_class(n).transductive])
def test_every_learner_is_saved_with_a_classifier_of_images(name, tmp_path):
    (images, labels), (queries, _) = photos(3), photos(2, seed=1)
    embedder = quick_embedder()
    learner = learner_class(name)().sized(embedder.transform(images[:1]).shape[1])
    model = FewShotImageClassifier(embedder, learner).fit(images, labels)
    model.save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(queries), model.predict_proba(queries))
    more = [one.partial_fit(queries[:1], labels[:1]).predict_proba(queries) for one in (model, loaded)]
    np.testing.assert_array_equal(*more)


@pytest.mark.parametrize(
    "labels", [[3, 3, 7, 7], [False, False, True, True], [2**60, 2**60, 5, 5], ["ü\n", "ü\n", "../x", "../x"]]
)
def test_labels_keep_their_type(labels, tmp_path):
    images, _ = photos(2)
    FewShotImageClassifier(quick_embedder()).fit(images, labels).save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    assert loaded.classes_.tolist() == sorted(set(labels))
    assert loaded.predict(images[:1]).tolist() == labels[:1]


@pytest.mark.parametrize(
    "learner",
    [
        None,
        "prototypical",
        MatchingLearner(temperature=0.2),
        MatchingLearner(temperature=None, centered=True, balanced=True),
        PrototypicalLearner("cosine", temperature=None, centered=True),
    ],
)
@pytest.mark.parametrize("keep_support", [True, False])
def test_it_goes_on_learning_as_if_it_had_never_been_saved(learner, keep_support, tmp_path):
    (images, labels), (queries, _) = photos(3), photos(3, seed=1)
    model = FewShotImageClassifier(quick_embedder(), learner, keep_support=keep_support).fit(images, labels)
    model.save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    for one in (model, loaded):
        one.partial_fit(queries[:2], ["new", "new"]).remove_class("temple")
    np.testing.assert_array_equal(loaded.predict_proba(queries), model.predict_proba(queries))
    assert (loaded.support_ is None) == (model.support_ is None) == (not keep_support)
    if keep_support:
        assert loaded.support_.ids == model.support_.ids
        assert loaded.support_.thumbnails == model.support_.thumbnails
        np.testing.assert_array_equal(loaded.support_.labels, model.support_.labels)
        np.testing.assert_array_equal(loaded.support_.embeddings, model.support_.embeddings)


def test_saving_again_writes_the_weights_once(model, tmp_path):
    model.save(tmp_path / "model")
    (weights,) = (tmp_path / "model").glob("weights-*")
    before = weights.stat().st_mtime_ns
    model.partial_fit(photos(1, seed=2)[0], ["new", "new"]).save(tmp_path / "model")
    assert weights.stat().st_mtime_ns == before
    assert FewShotImageClassifier.load(tmp_path / "model").classes_.tolist() == ["flower", "new", "temple"]
    assert len(list((tmp_path / "model").iterdir())) == 7  # the version before has its own manifest, memory and support


def test_parameters_come_back(tmp_path):
    model = FewShotImageClassifier(quick_embedder(), on_error="unknown", unknown_label="?", index="exact")
    model.fit(*photos(2)).save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model", device="cpu")
    assert (loaded.on_error, loaded.unknown_label, loaded.index, loaded.device) == ("unknown", "?", "exact", "cpu")
    assert loaded.predict([b"no image"]).tolist() == ["?"]
    again = loaded.fit(*photos(2))  # the weights of the folder serve as its backbone
    assert again.embedder_.fingerprint == model.embedder_.fingerprint


def test_a_network_made_by_hand_cannot_be_saved_and_the_sentence_says_what_can(tmp_path):
    with seeded(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 4))
    model = FewShotImageClassifier(network, "prototypical", progress=False).fit(*photos(2))
    with pytest.raises(ValueError, match="create_backbone did not build.*create_backbone"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_network_from_create_backbone_can(tmp_path):
    model = FewShotImageClassifier(create_backbone("conv4", img_size=32, seed=3), progress=False).fit(*photos(2))
    model.save(tmp_path / "model")
    queries, _ = photos(2, seed=1)
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    # Not to the last bit: of what was loaded, batch norm is folded into the convolutions.
    np.testing.assert_allclose(loaded.predict_proba(queries), model.predict_proba(queries), atol=1e-5)


def test_nothing_in_the_folder_is_a_pickle_and_the_manifest_is_for_people(model, tmp_path):
    model.save(tmp_path / "model")
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "model").iterdir())
    assert names == ["manifest.json", "memory", "support", "weights"]
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["backbone"]["name"] == "conv4"
    assert manifest["classes"]["values"] == ["flower", "temple"]
    assert manifest["fingerprint"] == model.embedder_.fingerprint


@pytest.mark.parametrize("name", ["manifest.json", "memory-*", "support-*", "weights-*"])
def test_a_damaged_file_is_named(name, model, tmp_path):
    model.save(tmp_path / "model")
    (path,) = (tmp_path / "model").glob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=path.name):
        FewShotImageClassifier.load(tmp_path / "model")


def test_it_is_not_fitted_it_is_not_saved(tmp_path):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        FewShotImageClassifier().save(tmp_path / "model")


def test_a_reader_gets_a_whole_classifier_while_another_saves(model, tmp_path):
    model.save(tmp_path / "model")
    other = copy.copy(model).partial_fit(photos(1, seed=2)[0], ["new", "new"])
    stop = threading.Event()

    def keep_saving():
        while not stop.is_set():
            for one in (other, model):
                one.save(tmp_path / "model", overwrite=True)

    writer = threading.Thread(target=keep_saving)
    writer.start()
    try:
        sizes = {len(FewShotImageClassifier.load(tmp_path / "model").classes_) for _ in range(20)}
    finally:
        stop.set()
        writer.join()
    assert sizes <= {2, 3}


@pytest.mark.parametrize("error", [FileNotFoundError, RuntimeError])  # of the system, and of safetensors
def test_a_folder_that_is_written_to_and_fro_meanwhile_is_read_again(model, tmp_path, monkeypatch, error):
    """Between verifying and reading another takes its place, and then the same: all files are there again."""
    model.save(tmp_path / "model")
    other = copy.copy(model).partial_fit(photos(1, seed=2)[0], ["new", "new"])
    read, calls = memory_files.read_tensors, []

    def gone_once(path, *rest):
        calls.append(path)
        if len(calls) == 1:
            for one in (other, model):
                one.save(tmp_path / "model", overwrite=True)
            raise error(path)
        return read(path, *rest)

    monkeypatch.setattr(memory_files, "read_tensors", gone_once)
    assert len(FewShotImageClassifier.load(tmp_path / "model").classes_) == 2
    monkeypatch.setattr(memory_files, "read_tensors", lambda path: int("no number"))
    with pytest.raises(ArtifactError, match="no number"):  # and not again without end, where nothing was written
        FewShotImageClassifier.load(tmp_path / "model")


def test_what_others_have_written_since_is_not_undone(model, tmp_path):
    folder, (images, _) = tmp_path / "model", photos(1, seed=2)
    model.save(folder)
    one, two = (FewShotImageClassifier.load(folder) for _ in range(2))
    copied = pickle.loads(pickle.dumps(one))
    one.partial_fit(images[:1], ["one"]).save(folder)
    one.partial_fit(images[:1], ["more"]).save(folder)  # its own changes are known to it
    two.partial_fit(images[:1], ["two"])
    for other in (two, copied, model, copy.copy(two)):
        assert not other.is_saved_in(folder)
        with pytest.raises(
            ArtifactError, match="changed since this classifier was loaded.*load it again.*overwrite=True"
        ):
            other.save(str(folder) + "/.")
    assert one.is_saved_in(folder)
    assert FewShotImageClassifier.load(folder).classes_.tolist() == ["flower", "more", "one", "temple"]
    two.save(tmp_path / "elsewhere")
    two.save(folder, overwrite=True)
    assert FewShotImageClassifier.load(folder).classes_.tolist() == ["flower", "temple", "two"]
    FewShotImageClassifier(quick_embedder()).fit(*photos(2)).save(folder)  # one that has never been there
    shutil.rmtree(folder)
    two.save(folder)  # nothing is lost


def test_threads_that_save_one_classifier_to_one_folder_follow_each_other(model, tmp_path):
    images, _ = photos(4, seed=3)

    def learn(label, some):
        for image in some:
            model.partial_fit([image], [label]).save(tmp_path / "model")

    together(lambda: learn("x", images[:4]), lambda: learn("y", images[4:]))
    assert FewShotImageClassifier.load(tmp_path / "model").n_support_.tolist() == [4, 4, 4, 4]


def test_what_the_first_format_wrote_still_answers_the_same(tmp_path):
    """Written by the version before calibration; see its manifest."""
    frozen = Path(__file__).parent / "artifacts" / "format_1"
    expected = json.loads((frozen.parent / "format_1_answers.json").read_text())
    rng = np.random.default_rng(0)
    images, queries = rng.integers(0, 256, (6, 16, 16, 3), np.uint8), rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    model = FewShotImageClassifier.load(frozen)
    np.testing.assert_allclose(model.predict_proba(queries), expected["proba"], rtol=1e-4)
    assert model.predict(queries).tolist() == expected["labels"]
    assert (model.reject, model.on_error, model.unknown_label) == (None, "unknown", "?")
    model.partial_fit(images[:1], ["temple"]).save(tmp_path / "now")
    assert json.loads((tmp_path / "now" / "manifest.json").read_text())["format"] == 2
    assert FewShotImageClassifier.load(tmp_path / "now").n_support_.tolist() == [2, 3, 2]


def test_pretrained_weights_can_be_named_instead_of_written(tmp_path, monkeypatch):
    queries, _ = photos(2, seed=1)
    model = FewShotImageClassifier("tf_efficientnet_lite0", img_size=64, progress=False).fit(*photos(2))
    model.save(tmp_path / "model", weights="reference")
    assert size_of(tmp_path / "model") < 200_000
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(queries), model.predict_proba(queries))
    loaded.partial_fit(queries[:1], ["new"]).save(tmp_path / "model")  # still by name
    assert not list((tmp_path / "model").glob("weights-*"))
    loaded.save(tmp_path / "model", weights="embed")
    assert size_of(tmp_path / "model") > 10_000_000
    again = FewShotImageClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(queries), loaded.predict_proba(queries))
    loaded.save(tmp_path / "named", weights="reference")
    monkeypatch.setattr(Embedder, "fingerprint", "0" * 64)
    with pytest.raises(ArtifactError, match="the weights found here do not give the network .* at their source"):
        FewShotImageClassifier.load(tmp_path / "named")


def test_weights_without_a_name_are_written(model, tmp_path):
    with pytest.raises(
        ValueError, match="cannot be found by name on another machine; .*: leave out weights='reference'"
    ):
        model.save(tmp_path / "model", weights="reference")
    assert not (tmp_path / "model").exists()
    with pytest.raises(UnknownNameError, match="no weights is called 'refer'; did you mean 'reference'"):
        model.save(tmp_path / "model", weights="refer")
    model.save(tmp_path / "model")
    loaded = FewShotImageClassifier.load(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot be found by name"):  # a file of weights is no name
        loaded.save(tmp_path / "model", weights="reference")


@pytest.mark.parametrize("weights", ["embed", "reference"])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.filterwarnings("error")
def test_the_range_of_16_bit_images_is_kept_with_the_classifier(tmp_path, weights, given):
    """So that queries are read as the support was, however dark they are."""
    rng = np.random.default_rng(0)
    support = [(rng.random((60, 60)) * 4095).astype(np.uint16) for _ in range(4)]
    queries = [image // part for image, part in zip(support, (1, 3, 9, 20), strict=True)]
    if weights == "reference":
        backbone, settings = "tf_efficientnet_lite0", {"img_size": 32}
    else:
        backbone, settings = "conv4", {"weights": "random", "img_size": 32}
    if given:
        model = FewShotImageClassifier(Embedder(backbone, bits=12, max_pixels=4000, progress=False, **settings))
    else:
        model = FewShotImageClassifier(backbone, bits=12, max_pixels=4000, progress=False, **settings)
    model.fit(support, [0, 1, 0, 1]).save(tmp_path / "m", weights=weights)
    loaded = FewShotImageClassifier.load(tmp_path / "m")
    seen = loaded.embedder_.preprocessing
    assert (seen.bits, seen.max_pixels) == (12, 4000)
    np.testing.assert_allclose(loaded.predict_proba(queries), model.predict_proba(queries), atol=1e-6)
    with pytest.raises(ImageDecodeError, match="above the limit of 4000"):
        loaded.predict([np.zeros((70, 70), np.uint8)])
    loaded.save(tmp_path / "again", weights=weights)
    assert FewShotImageClassifier.load(tmp_path / "again").embedder_.fingerprint == model.embedder_.fingerprint


@pytest.mark.parametrize(
    "settings",
    [lambda: torch.device("meta"), lambda: sklearn.config_context(transform_output="pandas")],
    ids=["default device", "tables wanted of transformers"],
)
def test_loading_does_not_depend_on_the_host_programs_settings(model, tmp_path, settings):
    model.save(tmp_path / "model")
    with settings():
        loaded = FewShotImageClassifier.load(tmp_path / "model")
    assert loaded.classes_.tolist() == model.classes_.tolist()


LONG = [np.random.default_rng(i).integers(0, 256, (24, 64, 3), np.uint8) for i in range(6)]


@pytest.mark.parametrize("crop", ["center", "pad", "squash", "tiles", "adaptive"])
@pytest.mark.parametrize("views", [None, "mirror+scales"])
@pytest.mark.parametrize("weights", ["embed", "reference"])
@pytest.mark.filterwarnings("ignore:the network sees only", "ignore:the images are 2.7 times")
def test_crop_and_views_are_kept_with_the_classifier(tmp_path, crop, weights, views):
    own = {"weights": "random"} if weights == "embed" else {}
    own |= {"crop": crop, "views": views}
    model = FewShotImageClassifier("conv4" if "weights" in own else "tf_efficientnet_lite0", img_size=32, **own)
    model.fit(LONG[:4], [0, 1, 0, 1]).save(tmp_path / "m", weights=weights)
    loaded = FewShotImageClassifier.load(tmp_path / "m")
    assert loaded.embedder_.preprocessing == model.embedder_.preprocessing
    np.testing.assert_allclose(loaded.predict_proba(LONG[4:]), model.predict_proba(LONG[4:]), atol=1e-6)
    fitted_again = loaded.fit(LONG[:4], [0, 1, 0, 1])
    np.testing.assert_allclose(fitted_again.predict_proba(LONG[4:]), model.predict_proba(LONG[4:]), atol=1e-6)


@pytest.mark.filterwarnings("ignore:the network sees only", "ignore:the images are 2.7 times")
def test_a_network_that_is_given_again_keeps_the_crop_of_its_folder(tmp_path):
    class Mean(nn.Module):
        """A network made by hand."""

        def forward(self, x):
            return x.mean(-1).flatten(1)

    for crop, views in ((None, None), ("tiles", "mirror")):
        own = {"img_size": 32, "crop": crop, "views": views}
        model = FewShotImageClassifier(Mean(), **own, progress=False).fit(LONG[:4], [0, 1, 0, 1])
        model.save(tmp_path / str(crop), weights="reference")
        content = json.loads((tmp_path / str(crop) / "manifest.json").read_text())
        for name in ("crop", "views"):
            assert (name in content["source"]) == (crop is not None)  # so that older versions read the folder
        loaded = FewShotImageClassifier.load(tmp_path / str(crop), embedder=Embedder(Mean(), **own))
        assert loaded.embedder_.fingerprint == model.embedder_.fingerprint
