"""The runtime answers, learns and is saved as the library, without torch."""

import copy
import os
import pickle
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from fewshot import (
    CosinePrototypicalLearner,
    DiscriminantLearner,
    Embedder,
    FewShotImageClassifier,
    KNearestLearner,
    MatchingLearner,
    PrototypicalLearner,
    SimpleShotLearner,
    digits,
    export,
)
from fewshot.errors import ArtifactError, ImageDecodeError, OutOfMemoryError
from fewshot.runtime import load
from fewshot.runtime.memory import DeviceMemory, device_labels
from fewshot.runtime.method import DeviceMethod
from fewshot.runtime.model import DeviceModel
from fewshot.search.similarity import METRICS, pairwise_similarity
from tests.photographs import photos
from tests.together import together

ROOT = Path(__file__).parents[1]
#: What a device does without.
FORBIDDEN = ("torch", "torchvision", "sklearn", "timm", "faiss", "pandas", "safetensors", "scipy", "tqdm", "matplotlib")
DATA = digits()
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[DATA.labels]
LEARNERS = {
    **{
        f"prototypical {metric}": PrototypicalLearner(metric, 0.05 if metric == "cosine" else 2.0) for metric in METRICS
    },
    "UN": SimpleShotLearner("UN"),
    "L2N": SimpleShotLearner("L2N"),
    "CL2N": SimpleShotLearner("CL2N", center=np.linspace(0, 0.1, 64).tolist()),
    "matching": MatchingLearner(),
    "matching sqeuclidean": MatchingLearner("sqeuclidean", 2.0),
    "k-nearest": KNearestLearner(3),
    "k-nearest 1": KNearestLearner(1, "sqeuclidean", 1.0),
    "cosine centred": CosinePrototypicalLearner(centered=True),
    "prototypical of the support": PrototypicalLearner(temperature=None),
    "cosine of the support": CosinePrototypicalLearner(None, centered=True),
    "L2N of the support": SimpleShotLearner(temperature=None),
    "matching centred": MatchingLearner(temperature=None, centered=True, balanced=True),
    "k-nearest centred": KNearestLearner(3, temperature=None, centered=True),
    "discriminant": DiscriminantLearner(),
    "discriminant 1": DiscriminantLearner(1.0, 0.5, temperature=0.1),
}


@pytest.fixture(scope="module")
def embedder():
    return Embedder("conv4", weights="random", img_size=28, progress=False)


def fitted(embedder, learner="prototypical", n=40, **kwargs):
    model = FewShotImageClassifier(embedder, learner, progress=False, keep_support=False, **kwargs)
    return model.fit(DATA.images[:n], NAMES[:n])


def exported(model, folder):
    export(model, folder)
    return load(folder)


@pytest.fixture
def device(embedder, tmp_path):
    return exported(fitted(embedder), tmp_path / "device")


@pytest.mark.parametrize("metric", METRICS)
def test_similarities_are_those_of_the_library(metric):
    import torch

    rng = np.random.default_rng(0)
    queries, keys = (np.vstack([rng.normal(size=(n, 8)) + 100, np.zeros((1, 8))]) for n in (9, 5))
    expected = pairwise_similarity(torch.from_numpy(queries), torch.from_numpy(keys), metric).numpy()
    memory, learner = DeviceMemory.of(keys, np.arange(6), True), DeviceMethod("prototypical", metric, 1.0)
    found = DeviceModel(memory, learner, {"unknown_label": None}).nearest(queries, 6)[1]
    np.testing.assert_allclose(found, -np.sort(-expected), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", LEARNERS)
def test_answers_are_those_of_the_estimator(embedder, name, tmp_path):
    model = fitted(embedder, LEARNERS[name])
    device = exported(model, tmp_path / "d")
    single = embedder.transform(DATA.images[40:140])
    for x, near in ((single.astype(np.float64), 1e-12), (single, 1e-6)):
        expected = model.classifier_.predict_proba(x)
        np.testing.assert_allclose(device.model.predict_proba(x), expected, rtol=0, atol=near)
        np.testing.assert_array_equal(device.model.predict(x), model.classifier_.predict(x))
    labels, similarities = device.model.nearest(single.astype(np.float64), 4)
    expected_labels, expected = model.classifier_.nearest(single.astype(np.float64), 4)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_allclose(similarities, expected, rtol=1e-12, atol=1e-12)
    # From images, so far as float32 of onnxruntime and torch agree.
    embeddings, _ = device.encoder.embed(DATA.images[40:140])
    lengths = np.linalg.norm(single, axis=1)
    assert (np.linalg.norm(embeddings - single, axis=1) / lengths).max() < 1e-5
    np.testing.assert_array_equal(device.predict(DATA.images[40:140]), model.predict(DATA.images[40:140]))
    assert device.predict_proba(DATA.images[40:43]).shape == device.nearest(DATA.images[40:43], 10)[1].shape == (3, 10)


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_learned_on_the_device_is_what_the_library_learns(embedder, name, tmp_path):
    model = fitted(embedder, LEARNERS[name])
    device = exported(model, tmp_path / "d")
    device.partial_fit(DATA.images[40:60], [f"new {i % 3}" for i in range(20)]).partial_fit(
        DATA.images[60:65], NAMES[60:65]
    )
    model.partial_fit(DATA.images[40:60], [f"new {i % 3}" for i in range(20)]).partial_fit(
        DATA.images[60:65], NAMES[60:65]
    )
    device.remove_class("seven")
    model.remove_class("seven")
    assert device.classes_.tolist() == model.classes_.tolist()
    assert device.n_support_.tolist() == model.n_support_.tolist()
    x = embedder.transform(DATA.images[100:160]).astype(np.float64)
    np.testing.assert_allclose(device.model.predict_proba(x), model.classifier_.predict_proba(x), rtol=0, atol=2e-5)


def test_given_equal_embeddings_the_sums_are_equal(embedder, device):
    model = fitted(embedder)
    x, y = embedder.transform(DATA.images[40:90]), NAMES[40:90]
    memory = device.model.memory + device.model.learned(x, y)
    expected = model.classifier_.partial_fit(x, y).model_.statistics
    scale = np.abs(embedder.transform(DATA.images[:90])).sum()
    assert np.abs(memory.x - expected.sums["x"].numpy()).max() <= 1e-12 * scale
    np.testing.assert_array_equal(memory.weights, expected.count.numpy())


@pytest.mark.parametrize("is_summed", [True, False])
def test_two_merged_memories_are_one_that_saw_everything(is_summed):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 16)) * 1e3, rng.permutation(np.repeat(["a", "b", "longer", "d"], 75))
    parts = [DeviceMemory.of(x[rows], y[rows], is_summed) for rows in (slice(100), slice(100, 300), slice(None))]
    merged, whole = parts[0] + parts[1], parts[2]
    assert merged.classes.tolist() == whole.classes.tolist()
    assert merged.n_support.tolist() == whole.n_support.tolist()
    for i in range(4) if is_summed else []:
        scale = np.abs(x[y == whole.classes[i]]).sum(0)
        assert (np.abs(merged.x[i] - whole.x[i]) <= 1e-12 * scale).all()
    if not is_summed:
        np.testing.assert_array_equal(merged.x, whole.x)


@pytest.mark.parametrize("name", ["prototypical cosine", "matching"])
def test_two_devices_that_began_with_one_export_count_it_once(embedder, name, tmp_path):
    export(fitted(embedder, LEARNERS[name]), tmp_path / "d")
    base, one, two, both = (load(tmp_path / "d") for _ in range(4))
    one.partial_fit(DATA.images[40:50], NAMES[40:50])
    two.partial_fit(DATA.images[50:60], ["new"] * 10).remove_class("four")
    both.partial_fit(DATA.images[40:50], NAMES[40:50]).partial_fit(DATA.images[50:60], ["new"] * 10)
    one.merge(two, base)
    assert one.classes_.tolist() == both.classes_.tolist()
    assert one.n_support_.tolist() == both.n_support_.tolist()
    scale = np.abs(both.model.memory.x).sum()
    assert np.abs(one.model.memory.x - both.model.memory.x).max() <= 1e-12 * scale
    with pytest.raises(ValueError, match="not an earlier state"):
        base.merge(load(tmp_path / "d"), both)


@pytest.mark.parametrize("name", ["prototypical cosine", "matching"])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_what_a_device_learns_of_a_class_it_has_forgotten_is_merged(embedder, name, n, tmp_path):
    """Be they fewer images than before, as many, or more."""
    export(fitted(embedder, LEARNERS[name]), tmp_path / "d")
    base, one, two, both = (load(tmp_path / "d") for _ in range(4))
    assert base.n_support_[base.classes_.tolist().index("four")] == 3
    new, labels = DATA.images[60 : 60 + n], ["four"] * n
    two.remove_class("four").partial_fit(new, labels).save(tmp_path / "two")
    one.merge(load(tmp_path / "two"), base)
    both.partial_fit(new, labels)
    assert one.n_support_.tolist() == both.n_support_.tolist()
    np.testing.assert_allclose(one.model.memory.x, both.model.memory.x, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", ["prototypical cosine", "L2N", "matching"])
def test_a_base_that_the_other_has_not_begun_with_is_refused(embedder, name, tmp_path):
    export(fitted(embedder, LEARNERS[name]), tmp_path / "d")
    one, two, later, less = (load(tmp_path / "d") for _ in range(4))
    two.partial_fit(DATA.images[40:42], ["four", "four"])
    rolled = np.roll(DATA.images[:40], 1, axis=2)  # as many of each class
    others = exported(
        FewShotImageClassifier(embedder, LEARNERS[name], progress=False).fit(rolled, NAMES[:40]), tmp_path / "o"
    )
    later.remove_class("four").partial_fit(DATA.images[60:63], ["four"] * 3)
    less.model = replace(less.model, memory=replace(less.model.memory.without("four"), forgotten={}))
    before = one.model
    for other, base in ((two, others), (others, one), (two, later), (less, one)):
        with pytest.raises(ValueError, match="not an earlier state"):
            one.merge(other, base)
    assert one.model is before


@pytest.mark.parametrize("is_summed", [True, False])
def test_any_earlier_state_of_a_long_history_is_a_base(is_summed):
    rng = np.random.default_rng(0)
    memory = DeviceMemory.of(rng.normal(size=(30, 4)) * 1e3, rng.permutation(np.repeat(["a", "b", "c"], 10)), is_summed)
    history = [memory]
    for i in range(40):
        if i % 5 == 4 and len(memory.classes) > 1:
            memory = memory.without(rng.choice(memory.classes))
        news = DeviceMemory.of(rng.normal(size=(3, 4)), rng.choice(["a", "b", "c", "d"], 3), is_summed)
        if i % 3 == 0:  # what another device has learned meanwhile
            news = (memory + news).since(memory)
        memory = memory + news
        history.append(memory)
    for before in history:
        news = memory.since(before)
        same = [
            label for label in before.classes.tolist() if memory.forgotten.get(label) == before.forgotten.get(label)
        ]
        for label in same:
            count = [
                dict(zip(m.classes.tolist(), m.n_support, strict=True)).get(label, 0) for m in (memory, before, news)
            ]
            assert count[0] == count[1] + count[2]


def test_merging_refuses_another_encoder_or_learner(embedder, device, tmp_path):
    other = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=32, progress=False), progress=False)
    other = exported(other.fit(DATA.images[:20], NAMES[:20]), tmp_path / "other")
    before = device.model
    with pytest.raises(ValueError, match="has the encoder"):
        device.merge(other)
    with pytest.raises(ValueError, match="cannot merge what"):
        device.merge(exported(fitted(embedder, LEARNERS["L2N"]), tmp_path / "l2n"))
    numbered = FewShotImageClassifier(embedder, "prototypical", progress=False).fit(DATA.images[:40], DATA.labels[:40])
    with pytest.raises(TypeError, match="labels mix the types integer and string"):
        device.merge(exported(numbered, tmp_path / "numbered"))
    for nothing in ("x", None):
        with pytest.raises(TypeError, match=r"cannot merge a \w+; give what load\(\) returns"):
            device.merge(nothing)
    with pytest.raises(TypeError, match="cannot merge a str"):
        device.merge(load(tmp_path / "device"), "x")
    assert device.model is before


@pytest.mark.parametrize("learner", ["prototypical cosine", "discriminant"])
def test_the_unknown_is_as_it_was(embedder, learner, tmp_path):
    few, others = np.flatnonzero(DATA.labels < 4)[:40], np.flatnonzero(DATA.labels > 4)[:200]
    model = fitted(embedder, LEARNERS[learner], reject="20%", unknown_label="?", on_error="unknown")
    model.fit(DATA.images[few], NAMES[few])
    model.calibrate(DATA.images[others], NAMES[others], reject_examples=DATA.images[others[:5]], n_episodes=20)
    device = exported(model, tmp_path / "d")
    device.save(tmp_path / "again")
    device = load(tmp_path / "again")
    queries = [*DATA.images[200:260], np.zeros((28, 28), np.uint8), b"no image"]
    expected = model.predict(queries)
    assert (expected[:60] == "?").any()
    assert (expected[:60] != "?").any()
    np.testing.assert_array_equal(device.predict(queries), expected)
    np.testing.assert_allclose(device.predict_proba(queries), model.predict_proba(queries), rtol=0, atol=1e-4)
    assert device.nearest([b"no image"])[0].tolist() == [["?"]]
    with pytest.raises(ValueError, match="is a class"):
        device.partial_fit(DATA.images[:1], ["?"])


def test_threads_that_learn_forget_and_merge_at_once_lose_nothing(embedder, device, tmp_path):
    other = exported(fitted(embedder, n=10), tmp_path / "other")

    def learn(label):
        for i in range(10):
            device.partial_fit(DATA.images[i : i + 1], [label])

    def merge():
        for _ in range(10):
            device.merge(other)

    before = dict(zip(device.classes_.tolist(), device.n_support_.tolist(), strict=True))
    together(lambda: learn("a"), lambda: learn("b"), merge, lambda: device.remove_class("nine"))
    found = dict(zip(device.classes_.tolist(), device.n_support_.tolist(), strict=True))
    assert found.pop("nine", 0) <= 10
    gained = dict(zip(other.classes_.tolist(), (10 * other.n_support_).tolist(), strict=True))
    expected = {label: before[label] + gained[label] for label in before if label != "nine"}
    assert found == {**expected, "a": 10, "b": 10}


def test_an_image_that_cannot_be_read(embedder, device, tmp_path):
    with pytest.raises(ImageDecodeError, match="image 1"):
        device.predict([DATA.images[0], b"no image"])
    with pytest.raises(ImageDecodeError, match="image 0"):
        device.partial_fit([b"no image"], ["one"])
    skipping = exported(fitted(embedder, on_error="skip"), tmp_path / "skip")
    skipping.partial_fit([b"no image", DATA.images[0]], ["new", "newer"])
    assert "newer" in skipping.classes_
    assert "new" not in skipping.classes_
    with pytest.raises(ImageDecodeError):
        skipping.partial_fit([b"no image"], ["new"])


@pytest.mark.parametrize(
    ("learner", "known"), [("prototypical cosine", False), ("matching", True)], ids=["sums", "support"]
)
def test_an_image_that_is_learned_twice_is_named(embedder, tmp_path, learner, known, recwarn):
    device = exported(fitted(embedder, LEARNERS[learner]), tmp_path / "d")
    device.partial_fit(DATA.images[100:101], ["new"]).partial_fit(DATA.images[100:101], ["new"])
    told = [str(one.message) for one in recwarn if "learned already" in str(one.message)]
    assert len(told) == known
    if known:
        assert "the same as an image of 'new' learned before" in told[0]
    with pytest.warns(UserWarning, match="learned already or twice, 1 of 2 images: "):
        device.partial_fit(DATA.images[[101, 101]], ["new", "new"])


def test_a_class_is_told_from_the_unknown(embedder, tmp_path):
    model = fitted(embedder, LEARNERS["prototypical cosine"], reject=0.5)
    device = exported(model, tmp_path / "d")
    with pytest.raises(ValueError, match="unknown_label='unknown' is a class"):
        device.partial_fit(DATA.images[:1], ["unknown"])
    assert device.remove_class(NAMES[0]).classes_.tolist() == sorted(set(NAMES) - {NAMES[0]})
    ambiguous = fitted(embedder, LEARNERS["prototypical cosine"]).rename_class(NAMES[0], "unknown")
    with pytest.raises(ValueError, match="unknown_label='unknown' is a class"):
        exported(ambiguous.set_params(reject=0.5), tmp_path / "d")
    named = exported(ambiguous.set_params(unknown_label="?", reject=2.0), tmp_path / "d")
    assert named.predict(DATA.images[:2]).tolist() == ["?", "?"]


@pytest.mark.parametrize("on_error", ["raise", "skip", "unknown"])
def test_an_image_of_which_the_encoder_makes_no_embedding_is_named(embedder, tmp_path, monkeypatch, on_error):
    device = exported(fitted(embedder, on_error=on_error), tmp_path / "d")
    before, real = device.model, device.encoder.embed_pixels

    def overflowing(pixels):
        found = real(pixels)
        found[-1, 3] = np.inf
        return found

    monkeypatch.setattr(device.encoder, "embed_pixels", overflowing)
    images = [DATA.images[0], b"no image", DATA.images[1]] if on_error == "skip" else list(DATA.images[:3])
    with pytest.raises(ValueError, match="no finite embedding of image 2; leave it out"):
        device.partial_fit(images, ["new"] * 3)
    assert device.model is before
    if on_error == "raise":
        with pytest.raises(ValueError, match="no finite embedding of image 2"):
            device.predict(images)
    else:
        assert device.predict(images)[2] == "unknown"


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        ([1], "integer and string"),
        ([True], "boolean and string"),
        ([None], "None at index 0"),
        (["a", "b"], "2 labels"),
    ],
)
def test_labels_that_do_not_fit(device, labels, error):
    before = device.model
    with pytest.raises((TypeError, ValueError), match=error):
        device.partial_fit(DATA.images[:1], labels)
    assert device.model is before


def test_other_mistakes(device, tmp_path):
    for bad in ("a.png", DATA.images[0].repeat(3).reshape(28, 28, 3), {}, np.zeros((2, 2))):
        with pytest.raises(TypeError, match="images"):
            device.predict(bad)
    with pytest.raises(ValueError, match="k is 11"):
        device.nearest(DATA.images[:1], 11)
    with pytest.raises(ValueError, match="no class"):
        device.remove_class("ten")
    with pytest.raises(ValueError, match="no images"):
        device.partial_fit([], [])
    with pytest.raises(ValueError, match="n_threads"):
        load(tmp_path / "device", n_threads=0)
    with pytest.raises(ArtifactError, match="no such folder"):
        load(tmp_path / "nowhere")
    for label in device.classes_[1:].tolist():
        device.remove_class(label)
    with pytest.raises(ValueError, match="only class"):
        device.remove_class(device.classes_[0])
    assert device.predict([]).shape == (0,)
    assert load(tmp_path / "device", n_threads=2).predict(DATA.images[:2]).shape == (2,)


def test_labels_keep_their_type():
    assert device_labels(np.array([3, 4]), 2, np.array([1])).dtype == np.int64
    assert device_labels([True], 1, np.array([False])).tolist() == [True]
    assert device_labels(["a\0"], 1, np.array(["b"], dtype=object)).tolist() == ["a\0"]


def test_a_label_that_ends_in_a_nul_is_a_class_of_its_own(device, tmp_path):
    device.partial_fit(DATA.images[:2], ["one\0", "one\0"]).save(tmp_path / "device")
    for found in (device, load(tmp_path / "device")):
        assert found.n_support_[found.classes_.tolist().index("one\0")] == 2
        assert len(found.classes_) == 11
    other = load(tmp_path / "device").partial_fit(DATA.images[2:3], ["one"])
    assert device.merge(other, load(tmp_path / "device")).n_support_.sum() == 43


@pytest.mark.parametrize(
    ("labels", "known", "error"),
    [
        ("cat", ["a"], "not a list of labels: found 'cat'"),
        (b"cat", ["a"], "not a list of labels: found b'cat'"),
        (np.array("cat"), ["a"], "of one label for each row"),
        (None, ["a"], "not a list of labels: found None"),
        ([1, 2, 2**63], [1], "does not fit 64 bits"),
        ([1, 2, 2**70], [1], "does not fit 64 bits"),
    ],
)
def test_what_are_no_labels_of_three_images(labels, known, error):
    with pytest.raises(ValueError, match=error):
        device_labels(labels, 3, np.array(known))


# ---- on disk -------------------------------------------------------------------------------------------------------


def test_a_device_is_saved_with_what_it_has_learned(device, tmp_path):
    device.partial_fit(DATA.images[40:45], ["new"] * 5)
    device.save(tmp_path / "device")
    device.save(tmp_path / "elsewhere")
    expected = device.predict_proba(DATA.images[50:60])
    for folder in ("device", "elsewhere"):
        again = load(tmp_path / folder)
        assert again.classes_.tolist() == device.classes_.tolist()
        assert again.facts == device.facts
        np.testing.assert_array_equal(again.predict_proba(DATA.images[50:60]), expected)
        assert sorted(path.suffix for path in (tmp_path / folder).iterdir()) == [".json", ".json", ".npz", ".onnx"]


def test_what_another_device_has_saved_since_is_not_undone(device, tmp_path):
    one, two = load(tmp_path / "device"), load(tmp_path / "device")
    one.partial_fit(DATA.images[:1], ["cat"]).save(tmp_path / "device")
    one.remove_class("nine").save(tmp_path / "device")
    two.partial_fit(DATA.images[:1], ["dog"])
    with pytest.raises(ArtifactError, match="changed since this export was loaded.*overwrite=True"):
        two.save(tmp_path / "device")
    assert {"cat"} == set(load(tmp_path / "device").classes_.tolist()) - set(NAMES.tolist())
    two.save(tmp_path / "other")
    two.save(tmp_path / "device", overwrite=True)
    assert {"dog"} == set(load(tmp_path / "device").classes_.tolist()) - set(NAMES.tolist())


def test_saving_where_it_came_from_writes_the_memory_alone(device, tmp_path):
    (encoder,) = (tmp_path / "device").glob("*.onnx")
    stamp = encoder.stat().st_mtime_ns
    device.partial_fit(DATA.images[40:45], ["new"] * 5).save(tmp_path / "device")
    assert encoder.stat().st_mtime_ns == stamp


def test_a_flipped_byte_in_any_file_is_refused(device, tmp_path):
    files = sorted((tmp_path / "device").iterdir())
    assert len(files) == 4
    for path in files:
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 3):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(bytes(damaged))
            with pytest.raises(ArtifactError, match="damaged"):
                load(tmp_path / "device")
        path.write_bytes(whole)
        path.rename(tmp_path / "away")
        with pytest.raises(ArtifactError):
            load(tmp_path / "device")
        (tmp_path / "away").rename(path)
    assert len(load(tmp_path / "device").classes_) == 10


@pytest.mark.parametrize("n", range(3))
@pytest.mark.parametrize("what", ["replace", "fsync"])
def test_an_interrupted_save_leaves_the_old_one_whole(device, tmp_path, monkeypatch, what, n):
    device.partial_fit(DATA.images[40:45], ["new"] * 5)
    calls, real = [], getattr(os, what)

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > n:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, what, failing)
    with pytest.raises(OSError, match="No space left"):
        device.save(tmp_path / "device")
    monkeypatch.setattr(os, what, real)
    assert "new" not in load(tmp_path / "device").classes_
    device.save(tmp_path / "device")
    assert "new" in load(tmp_path / "device").classes_


def test_an_encoder_that_has_gone_or_changed_is_not_saved(device, tmp_path):
    whole = device.encoder.path.read_bytes()
    device.encoder.path.write_bytes(whole + b"x")
    with pytest.raises(ArtifactError, match="has changed"):
        device.save(tmp_path / "other")
    device.encoder.path.unlink()
    with pytest.raises(ArtifactError, match="is missing; load"):
        device.save(tmp_path / "third")


# ---- the real network ----------------------------------------------------------------------------------------------


def test_the_offline_network_at_its_own_size(tmp_path):
    images, labels = photos(4, side=150)
    model = FewShotImageClassifier(progress=False).fit(images[:6], labels[:6])
    device = exported(model, tmp_path / "d")
    expected = model.embedder_.transform(images)
    found, _ = device.encoder.embed(images)
    assert found.shape == (8, 1280)
    assert (np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max() < 1e-5
    np.testing.assert_allclose(device.predict_proba(images), model.predict_proba(images), rtol=0, atol=1e-4)
    (labels, near), (expected, close) = device.nearest(images, 2), model.nearest(images, 2)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(near, close, rtol=0, atol=1e-6)
    preprocessing = model.embedder_.preprocessing
    assert device.encoder.preprocessing == preprocessing
    config = model.embedder_.network.pretrained_cfg
    used = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    transform = create_transform(**{name: config[name] for name in used}, is_training=False, normalize=False)
    for image in images:
        pixels = device.encoder.preprocessing(image)
        np.testing.assert_array_equal(pixels, preprocessing(image))
        np.testing.assert_array_equal(pixels, transform(image).numpy().transpose(1, 2, 0))


# ---- without torch -------------------------------------------------------------------------------------------------

USE = """
import sys
from pathlib import Path
from fewshot.runtime import load
from PIL import Image
folder, out = sys.argv[1:3]
model = load(folder)
images = [Image.radial_gradient("L").rotate(angle) for angle in (0, 45)]
before = model.predict(images).tolist()
model.partial_fit(images, ["disc", "disc"]).remove_class(model.classes_[1]).merge(load(folder)).save(out)
again = load(out)
assert again.predict(images).tolist() == ["disc", "disc"], again.predict(images)
assert again.predict_proba(images).shape == (2, len(again.classes_))
assert again.nearest(images)[0].tolist() == [["disc"], ["disc"]]
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & set(FORBIDDEN), loaded & set(FORBIDDEN)
print("done")
"""

HOOK = """
import sys
FORBIDDEN = %r
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ImportError(name + " is forbidden")
sys.meta_path.insert(0, Refuse())
"""


def run(python, code, *arguments, **kwargs):
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_but_numpy_pillow_and_onnxruntime_is_imported(device, tmp_path):
    code = HOOK % (FORBIDDEN,) + USE
    assert run(sys.executable, code, tmp_path / "device", tmp_path / "out", cwd=ROOT) == "done\n"


def test_without_onnxruntime_the_line_that_installs_it_is_printed(device, tmp_path):
    code = HOOK % (("onnxruntime",),) + (
        "from fewshot.runtime import load\nfrom fewshot.errors import MissingExtraError\n"
        "try:\n    load(sys.argv[1])\nexcept MissingExtraError as error:\n    print(error)\n"
    )
    found = run(sys.executable, code, tmp_path / "device", cwd=ROOT)
    assert found == 'onnxruntime is missing; run: pip install "fewshot-learn[runtime]"\n'


@pytest.mark.slow
def test_the_distribution_for_devices_in_a_fresh_environment(device, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python, before = programs / "python", size_of(tmp_path / "venv")
    subprocess.run([sys.executable, ROOT / ".ci" / "runtime.py", tmp_path / "source"], check=True, timeout=60)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(tmp_path / "source")], check=True, timeout=600)
    there = run(
        python,
        "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))",
        env=environment,
    )
    assert {"fewshot-runtime", "numpy", "pillow", "onnxruntime", "filelock"} <= set(there.split())
    assert not {"torch", "timm", "scikit-learn", "faiss-cpu", "pandas", "safetensors", "scipy"} & set(there.split())
    assert size_of(tmp_path / "venv") - before < 200e6
    code = f"FORBIDDEN = {FORBIDDEN!r}\n" + USE
    assert run(python, code, tmp_path / "device", tmp_path / "out", cwd=tmp_path, env=environment) == "done\n"
    Image.fromarray(DATA.images[3]).save(tmp_path / "three.png")
    for words, said in (
        ("add out three three.png", "learned 1 image of 'three'; "),
        ("predict out three.png", "three.png  three  "),
        ("remove out three", "'three' is forgotten; "),
    ):
        command = [programs / "fewshot-runtime", *words.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.startswith(said), done.stderr
    code = "from fewshot import FewShotImageClassifier"
    command = [str(python), "-c", code]
    failed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "FewShotImageClassifier is not in fewshot-runtime; run: pip install fewshot-learn" in failed.stderr


def size_of(folder):
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink())


def test_a_picture_file_is_answered_by_its_path(device, tmp_path):
    Image.fromarray(DATA.images[3]).save(tmp_path / "three.png")
    assert device.predict([tmp_path / "three.png"]).tolist() == device.predict(DATA.images[3:4]).tolist()


@pytest.mark.parametrize("bits", [None, 12])
@pytest.mark.filterwarnings("ignore:16-bit images")
def test_a_device_reads_16_bit_images_as_the_library_does(tmp_path, bits):
    rng = np.random.default_rng(0)
    images = [(rng.random((30, 30)) * 4095 / part).astype(np.uint16) for part in (1, 3, 9, 20)]
    embedder = Embedder("conv4", weights="random", img_size=28, progress=False, bits=bits)
    model = FewShotImageClassifier(embedder, progress=False).fit(images, ["a", "b", "a", "b"])
    export(model, tmp_path / "e")
    device = load(tmp_path / "e")
    assert device.encoder.preprocessing == embedder.preprocessing
    np.testing.assert_allclose(device.encoder.embed(images)[0], embedder.transform(images), rtol=1e-3, atol=1e-4)
    assert device.predict(images).tolist() == model.predict(images).tolist()


def test_a_device_stops_where_the_image_is_not_to_blame(embedder, tmp_path, monkeypatch):
    export(fitted(embedder, on_error="skip"), tmp_path / "e")
    device = load(tmp_path / "e")

    def fail(self):
        raise MemoryError

    Image.fromarray(DATA.images[0]).save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "read_bytes", fail)
    for call in (device.predict, lambda images: device.partial_fit(images, ["one"])):
        with pytest.raises(OutOfMemoryError, match=r"a\.png: out of memory .the image may be intact"):
            call([tmp_path / "a.png"])
    with pytest.raises(TypeError, match="image 1: an image is given as int"):
        device.predict([DATA.images[0], 3])


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_device_is_copied_by_saving_and_loading(embedder, tmp_path, copied):
    export(fitted(embedder), tmp_path / "e")
    with pytest.raises(
        TypeError, match=r"a RuntimeClassifier cannot be pickled or copied, .*; save.. it, and load\(\)"
    ):
        copied(load(tmp_path / "e"))


@pytest.mark.parametrize("name", ["prototypical", "matching", "simpleshot", "k-nearest"])
def test_what_numpy_is_told_of_underflow_changes_no_answer(name):
    rng = np.random.default_rng(0)
    x, y, queries = rng.normal(size=(12, 4)), np.repeat(["a", "b", "c"], 4), 1e3 * rng.normal(size=(5, 4))
    facts = {"temperature": 1.0, "threshold": None, "unknown_label": None}
    neighbours = {"n_neighbors": 3} if name == "k-nearest" else {}
    method = DeviceMethod(name, "sqeuclidean", 1e-3, **neighbours)

    def answers():
        model = DeviceModel(DeviceMemory.of(x, y, method.is_summed), method, facts)
        return [model.predict_proba(queries), *model.nearest(queries, 2), model.learned(x, y).keys]

    expected = answers()
    with np.errstate(all="raise"):
        for one, other in zip(answers(), expected, strict=True):
            np.testing.assert_array_equal(one, other)
