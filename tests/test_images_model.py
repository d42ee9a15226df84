import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from fewshot import (
    Embedder,
    FewShotClassifier,
    FewShotImageClassifier,
    LabeledImages,
    OwnEmbedder,
    PrototypicalLearner,
    create_backbone,
)
from fewshot.embedding.checkpoint import save_weights
from fewshot.errors import ImageDecodeError, UnknownNameError
from fewshot.search.approximate import Approximate
from tests.photographs import LABELS, photos, quick_embedder, write_photos
from tests.processes import python
from tests.summation import sum_in_other_orders


@pytest.fixture
def model():
    return FewShotImageClassifier(quick_embedder()).fit(*photos(4))


@pytest.fixture
def broken(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    return str(tmp_path / "broken.png")


def test_it_is_the_embedder_and_the_classifier_one_after_the_other(model):
    (images, labels), (queries, _) = photos(4), photos(3, seed=1)
    embedder = quick_embedder()
    expected = FewShotClassifier("discriminant")
    expected.fit(embedder.transform(images), labels)
    x = embedder.transform(queries)
    np.testing.assert_array_equal(model.predict(queries), expected.predict(x))
    np.testing.assert_allclose(model.predict_proba(queries), expected.predict_proba(x), atol=1e-6)
    for got, wanted in zip(model.nearest(queries, 2), expected.nearest(x, 2), strict=True):
        np.testing.assert_array_equal(got, wanted) if got.dtype.kind in "UO" else np.testing.assert_allclose(
            got, wanted, atol=1e-6
        )
    assert model.n_support_.tolist() == [4, 4]


def test_learning_bit_by_bit_is_learning_at_once(model):
    images, labels = photos(4)
    bits = FewShotImageClassifier(quick_embedder())
    for i in range(len(images)):
        bits.partial_fit(images[i : i + 1], labels[i : i + 1])
    queries, _ = photos(3, seed=1)
    np.testing.assert_allclose(bits.predict_proba(queries), model.predict_proba(queries), atol=1e-5)
    assert bits.support_.ids == model.support_.ids
    assert bits.n_support_.tolist() == [4, 4]


def test_a_class_that_was_removed_was_never_there(model):
    before = model.predict_proba(photos(2, seed=1)[0])
    model.partial_fit([Image.new("RGB", (40, 40), "red")] * 2, ["red"] * 2)
    assert model.classes_.tolist() == ["flower", "red", "temple"]
    model.remove_class("red")
    np.testing.assert_allclose(model.predict_proba(photos(2, seed=1)[0]), before, atol=1e-6)
    assert set(model.support_.labels) == set(LABELS)
    with pytest.raises(ValueError, match="red"):
        model.remove_class("red")


def test_images_come_from_a_folder_a_table_or_arrays(tmp_path, model):
    paths = write_photos(tmp_path / "photos", 4)
    labels = [path.split("/")[-2] for path in paths]
    queries, _ = photos(3, seed=1)
    expected = model.predict_proba(queries)
    frame = pd.DataFrame({"path": paths, "label": labels}, index=range(100, 108))
    arrays = np.stack([np.asarray(image) for image in photos(4)[0]])
    for given in (
        (LabeledImages.from_folder(tmp_path / "photos"),),
        (LabeledImages.from_table(frame, root=tmp_path),),
        (frame["path"], frame["label"]),
        (arrays, labels),
    ):
        fitted = FewShotImageClassifier(quick_embedder()).fit(*given)
        np.testing.assert_allclose(fitted.predict_proba(queries), expected, atol=1e-5)


def test_one_class_alone_is_the_answer():
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder()).fit(images[:2], labels[:2])
    assert model.predict(images).tolist() == [labels[0]] * 4
    assert model.predict_proba(images).tolist() == [[1.0]] * 4


@pytest.mark.parametrize(
    "labels", [[3, 3, 7, 7], [False, False, True, True], list("aabb"), ["<script>", "<script>", "ü\n", "ü\n"]]
)
def test_labels_come_back_as_they_were_given(labels):
    images, _ = photos(2)
    model = FewShotImageClassifier(quick_embedder()).fit(images, labels)
    assert model.predict(images[:1]).tolist() == labels[:1]
    assert model.classes_.tolist() == sorted(set(labels))


# ---- images that cannot be read ------------------------------------------------------------------------------------


def test_an_unreadable_image_stops_learning_and_nothing_is_lost(model, broken):
    images, labels = photos(2)
    before = model.__dict__.copy()
    with pytest.raises(ImageDecodeError, match=r"image 4, .*broken\.png"):
        model.partial_fit([*images, broken], [*labels, "new"])
    assert model.__dict__ == before
    with pytest.raises(ImageDecodeError, match=r"broken\.png"):
        model.predict([broken])


def test_an_unreadable_image_is_left_out_of_the_support_on_request(broken):
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder(), on_error="skip")
    with pytest.warns(UserWarning, match="1 of 5 images could not be read"):
        model.fit([broken, *images], pd.Series(["temple", *labels], index=range(7, 12)))
    assert model.n_support_.tolist() == [2, 2]
    assert len(model.support_) == 4
    with pytest.raises(ImageDecodeError), pytest.warns(UserWarning, match="2 of 2"):
        clone(model).fit([broken, broken], ["a", "b"])


@pytest.mark.parametrize("on_error", ["skip", "unknown"])
def test_an_unreadable_query_is_answered_with_unknown(on_error, broken, recwarn):
    images, labels = photos(2)
    model = FewShotImageClassifier(quick_embedder()).fit(images, labels).set_params(on_error=on_error)
    assert model.predict([images[0], broken]).tolist() == [labels[0], "unknown"]
    assert model.embedder_.on_error == "raise"  # as it was: others may use it
    assert model.predict_proba([broken]).tolist() == [[0.5, 0.5]]
    assert model.set_params(unknown_label="?").predict([broken]).tolist() == ["?"]
    assert not recwarn.list


# ---- what can be asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"on_error": "rais"}, UnknownNameError, "did you mean 'raise'"),
        ({"backbone": "resnet81"}, UnknownNameError, "did you mean 'resnet18'"),
        ({"backbone": "resnet18"}, ValueError, "pretrained=True"),
        ({"learner": "prototypicl"}, UnknownNameError, "did you mean 'prototypical'"),
        ({"weights": "random"}, ValueError, "weights belongs to the Embedder"),
        ({"index": "fais"}, UnknownNameError, "did you mean 'faiss'"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(params, error, message):
    with pytest.raises(error, match=message):
        FewShotImageClassifier(**{"backbone": quick_embedder(), **params}).fit(*photos(1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], []), "there are no images; give at least one of each class"),
        ((["a.png"], ["a", "b"]), "X has 1 image and y 2 labels"),
        ((["a.png"],), "y is missing"),
        ((LabeledImages(np.zeros((1, 8, 8), np.uint8), ["a"]), ["a"]), "leave y out"),
        ((["gone.png"], ["a"]), r"image 0, gone\.png: no such file"),
    ],
)
def test_wrong_input_is_one_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        FewShotImageClassifier(quick_embedder()).fit(*given)


def test_a_checkpoint_brings_its_learner(tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, create_backbone("conv4", in_chans=1, img_size=28), PrototypicalLearner(temperature=3.0))
    model = FewShotImageClassifier(path, progress=False).fit(*photos(2))
    learner = model.classifier_.model_.learner
    assert (learner.metric, learner.temperature.item()) == ("sqeuclidean", pytest.approx(3.0))


# ---- scikit-learn --------------------------------------------------------------------------------------------------


def test_it_is_a_scikit_learn_classifier():
    images, labels = photos(6)
    X = np.empty(len(images), dtype=object)
    X[:] = images
    model = FewShotImageClassifier(quick_embedder(), keep_support=False)
    scores = cross_val_score(model, X, labels, cv=3)
    assert len(scores) == 3
    grid = {"learner": [PrototypicalLearner("cosine"), PrototypicalLearner()], "backbone__img_size": [16, 32]}
    search = GridSearchCV(model, grid, cv=2).fit(X, labels)
    assert search.predict(X).shape == (12,)


def test_a_clone_is_not_fitted_and_a_copy_is_on_its_own(model):
    assert not hasattr(clone(model), "classifier_")
    other = copy.copy(model).partial_fit([Image.new("RGB", (40, 40), "red")], ["red"])
    assert other.classes_.tolist() == ["flower", "red", "temple"]
    assert model.classes_.tolist() == ["flower", "temple"]
    assert len(model.support_) == 8


@pytest.mark.slow
def test_a_pickle_answers_the_same_in_another_process(model, tmp_path):
    queries = write_photos(tmp_path / "queries", 2, seed=1)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).predict_proba(sys.argv[2:]).tolist())"
    result = python(code, tmp_path / "model.pickle", *queries)
    np.testing.assert_allclose(eval(result.stdout), model.predict_proba(queries), atol=1e-6)


def test_predicting_before_fitting_is_scikit_learns_error():
    from sklearn.exceptions import NotFittedError

    for call in ("predict", "predict_proba", "nearest", "answer"):
        with pytest.raises(NotFittedError):
            getattr(FewShotImageClassifier(), call)(["a.png"])


def test_a_class_is_known_in_the_time_of_embedding_its_images_and_little_more():
    import time  # of the processor: other tests run beside this one

    model = FewShotImageClassifier(quick_embedder())
    images, _ = photos(3, side=40)
    crowd = [f"class {i}" for i in range(200)]
    model.fit([images[0]] * len(crowd), crowd)

    def seconds(function, *given):
        start = time.process_time()
        function(*given)
        return time.process_time() - start

    beyond = []
    for i in range(15):
        learning = seconds(model.partial_fit, images, [f"new {i}"] * len(images))
        beyond.append(learning - seconds(lambda: model.embedder_.embed(images, thumbnails=True)))
    assert sorted(beyond)[len(beyond) // 2] < 0.05  # 10 ms alone


def test_the_real_weights_tell_photographs_apart():
    model = FewShotImageClassifier(Embedder(progress=False)).fit(*photos(1, side=200))
    queries, labels = photos(5, seed=1, side=200)
    assert model.predict(queries).tolist() == labels
    assert model.predict_proba(queries).max(1).min() > 0.8


def test_an_index_that_is_set_later_acts_at_once(monkeypatch):
    built, build = [], Approximate.build
    monkeypatch.setattr(Approximate, "build", lambda *a: built.append(a[0]) or build(*a))
    queries, _ = photos(2, seed=1)
    model = FewShotImageClassifier(quick_embedder(), "cosine-prototypical").fit(*photos(4))  # hnsw is not for dot
    expected = model.predict_proba(queries)
    np.testing.assert_allclose(model.set_params(index="hnsw").predict_proba(queries), expected, atol=1e-6)
    assert model.nearest(queries, 2)[0].shape == (4, 2)
    assert built == ["hnsw"]
    with pytest.raises(UnknownNameError, match="no index is called 'none'"):
        model.set_params(index="none").predict(queries)


def test_tables_of_other_batches_can_be_compared(monkeypatch):
    sum_in_other_orders(monkeypatch)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 256)).astype(np.float32)
    embedder = OwnEmbedder(lambda items: vectors[[int(item) for item in items]], name="rows")
    items = [str(i) for i in range(40)]
    model = FewShotImageClassifier(embedder, progress=False).fit(items[:20], ["ab"[i % 2] for i in range(20)])
    whole = [model.predict_proba(items[20:]), *model.nearest(items[20:], 2)[1:]]
    answers = model.answer(items[20:])
    for size in (1, 3, 7):
        parts = [items[start : start + size] for start in range(20, 40, size)]
        np.testing.assert_array_equal(np.concatenate([model.predict_proba(part) for part in parts]), whole[0])
        np.testing.assert_array_equal(np.concatenate([model.nearest(part, 2)[1] for part in parts]), whole[1])
        for one, other in zip((found for part in parts for found in model.answer(part)), answers, strict=True):
            assert (one.margin, one.prototypes, one.ranking) == (other.margin, other.prototypes, other.ranking)
            assert [n.similarity for n in one.neighbours] == [n.similarity for n in other.neighbours]


@pytest.mark.parametrize(("learner", "warns"), [(None, False), ("prototypical", True)])
def test_very_uneven_support_is_warned_of_if_the_learner_minds(learner, warns):
    images, labels = photos(10)
    keep = [i for i, label in enumerate(labels) if label == "temple" or i == labels.index("flower")]
    model = FewShotImageClassifier(quick_embedder(), learner)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit([images[i] for i in keep], [labels[i] for i in keep])
        model.audit()
    found = [str(w.message) for w in caught if "favours larger classes" in str(w.message)]
    assert len(found) == (2 if warns else 0)
    assert all(f.startswith("class 'temple' has 10 items and 'flower' has 1, and prototypical") for f in found)
