"""Checks for image classifiers, like scikit-learn's `check_estimator`.

`check_estimator` passes matrices, so it cannot test an estimator of images. These checks pass images in all usual
containers.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils import _safe_indexing

#: Images of each class, and their side in pixels.
N_IMAGES, SIDE = 4, 32
LABELS = np.repeat(["dark", "light"], N_IMAGES)
#: Tolerance of probabilities for float32 rounding.
TOLERANCE = 1e-4
Check = Callable[[Any], None]


def containers(folder: str | Path, seed: int = 0) -> dict[str, Any]:
    """Return the same eight images, four dark and four light, in seven containers.

    Parameters
    ----------
    folder : path
        Where to write the files.
    seed : int, default=0
        Seed of the pixels.

    Examples
    --------
    >>> import tempfile
    >>> sorted(containers(tempfile.mkdtemp()))  # doctest: +NORMALIZE_WHITESPACE
    ['array of images', 'array of paths', 'list of images', 'list of paths', 'object array', 'series of paths',
    'series of strings']
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    base = np.where(LABELS == "dark", 20, 180)
    pixels = (base[:, None, None, None] + rng.integers(0, 60, (len(LABELS), SIDE, SIDE, 3))).astype(np.uint8)
    images, paths = [Image.fromarray(image) for image in pixels], []
    for i, image in enumerate(images):
        paths.append(Path(folder) / f"{seed}-{i}.png")
        image.save(paths[-1])
    objects = np.empty(len(images), dtype=object)
    objects[:] = images
    strings = [str(path) for path in paths]
    index = np.arange(100, 100 + len(paths))  # does not start at 0, as after a split
    return {
        "array of images": pixels,
        "list of images": images,
        "list of paths": paths,
        "object array": objects,
        "series of paths": pd.Series(paths, index=index, dtype=object),
        "series of strings": pd.Series(strings, index=index, dtype="string"),
        "array of paths": np.array(strings),
    }


def check_image_estimator(estimator: Any) -> None:
    """Check that an image classifier follows the conventions of scikit-learn.

    Parameters
    ----------
    estimator : classifier
        Has ``fit``, ``predict`` and ``predict_proba`` for collections of images; it is cloned and not changed.

    Raises
    ------
    AssertionError
        If a check fails; the message names it.

    Examples
    --------
    >>> from fewshot import Embedder, FewShotImageClassifier, check_image_estimator
    >>> check_image_estimator(FewShotImageClassifier(Embedder("conv4", weights="random", img_size=32)))
    """
    for name, check in image_estimator_checks():
        try:
            check(estimator)
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error


def image_estimator_checks() -> Iterator[tuple[str, Check]]:
    """Yield name and function of each check, so that a test can run them one by one."""
    for name, value in sorted(globals().items()):
        if name.startswith("_check_"):
            yield name.removeprefix("_"), _with_images(value)


def _with_images(check: Callable[[Any, dict[str, Any]], None]) -> Check:
    @wraps(check)
    def run(estimator: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="fewshot-checks-") as folder:
            check(estimator, containers(folder))

    return run


def _fitted(estimator: Any, X: Any, y: Any = LABELS) -> Any:
    return clone(estimator).fit(X, y)


def _same(one: NDArray[Any], other: NDArray[Any], what: str) -> None:
    np.testing.assert_allclose(one, other, atol=TOLERANCE, err_msg=what)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def _check_every_container_gives_the_same(estimator: Any, inputs: dict[str, Any]) -> None:
    rows = np.array([6, 1, 3, 4])
    expected = _fitted(estimator, inputs["list of images"]).predict_proba(inputs["list of images"])
    for name, X in inputs.items():
        model = _fitted(estimator, X)
        _same(model.predict_proba(X), expected, f"answers for {name} differ")
        _same(model.predict_proba(_safe_indexing(X, rows)), expected[rows], f"answers for a part of {name} differ")
        _require(model.predict(X).tolist() == LABELS.tolist(), f"dark and light are confused in {name}")


def _check_cross_validation(estimator: Any, inputs: dict[str, Any]) -> None:
    for name, X in inputs.items():
        scores = cross_val_score(clone(estimator), X, LABELS, cv=2, error_score="raise")
        _require(scores.tolist() == [1.0, 1.0], f"cross-validation over {name} confuses dark and light")


def _check_clone_and_parameters(estimator: Any, inputs: dict[str, Any]) -> None:
    copied = clone(estimator)
    one, other = estimator.get_params(deep=False), copied.get_params(deep=False)
    _require(one.keys() == other.keys(), "a clone has other parameters")
    _require(copied.set_params(**other) is copied, "set_params does not return the estimator")
    model = copied.fit(inputs["list of images"], LABELS)
    _require(model is copied, "fit does not return the estimator")
    learned = _learned(model)
    _require("classes_" in learned, "fit leaves no classes_")
    kept = sorted(learned & _learned(clone(model)))
    _require(not kept, f"a clone of a fitted estimator still has {kept}")


def _learned(model: Any) -> set[str]:
    """Return the names of learned attributes and properties."""
    public = (name for name in dir(model) if name.endswith("_") and not name.startswith("_"))
    return {name for name in public if hasattr(model, name)}


def _check_not_fitted(estimator: Any, inputs: dict[str, Any]) -> None:
    try:
        clone(estimator).predict(inputs["list of images"])
    except NotFittedError:
        return
    raise AssertionError("predict before fit raises no NotFittedError")


def _check_pickle(estimator: Any, inputs: dict[str, Any]) -> None:
    model = _fitted(estimator, inputs["list of images"])
    _require(len(pickle.dumps(model)) > 0, "it cannot be pickled")
    X, again = inputs["array of images"], copy.deepcopy(model)  # uses the pickle protocol without a file
    _same(again.predict_proba(X), model.predict_proba(X), "answers of a copy differ")


def _check_fit_is_idempotent_and_forgets(estimator: Any, inputs: dict[str, Any]) -> None:
    X = inputs["array of images"]
    model = _fitted(estimator, X)
    expected = model.predict_proba(X)
    _same(model.fit(X, LABELS).predict_proba(X), expected, "answers after fitting again differ")
    others = np.where(LABELS == "dark", "night", "day")
    _require(model.fit(X, others).classes_.tolist() == ["day", "night"], "fit does not forget earlier classes")


def _check_predict_changes_nothing(estimator: Any, inputs: dict[str, Any]) -> None:
    for name, X in inputs.items():
        before = X.copy() if hasattr(X, "copy") else list(X)
        model = _fitted(estimator, X)
        known, classes = _learned(model), model.classes_.tolist()
        model.predict(X), model.predict_proba(X)
        _require(_learned(model) == known, "predict adds or removes attributes")
        _require(model.classes_.tolist() == classes, "predict changes the classes")
        same = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(before, X, strict=True))
        _require(same, f"predict changes {name}")


def _check_order_does_not_matter(estimator: Any, inputs: dict[str, Any]) -> None:
    order = np.array([5, 0, 7, 2, 1, 6, 3, 4])
    X = inputs["array of images"]
    expected = _fitted(estimator, X).predict_proba(X)
    turned = _fitted(estimator, X[order], LABELS[order])
    _same(turned.predict_proba(X), expected, "the order of the support changes answers")
    _same(turned.predict_proba(X[order]), expected[order], "the order of the queries changes answers")
    _same(turned.predict_proba(X[3:4]), expected[3:4], "the answer to a query depends on the other queries")


def _check_labels_come_back(estimator: Any, inputs: dict[str, Any]) -> None:
    X = inputs["array of images"]
    for labels in (LABELS, LABELS == "light", np.where(LABELS == "dark", -7, 2**60), LABELS.astype(object)):
        model = _fitted(estimator, X, labels)
        found = model.predict(X)
        _require(found.tolist() == labels.tolist(), f"labels of type {labels.dtype} do not come back")
        _require(type(found.tolist()[0]) is type(labels.tolist()[0]), f"labels of type {labels.dtype} change type")


def _check_probabilities(estimator: Any, inputs: dict[str, Any]) -> None:
    X = inputs["array of images"]
    model = _fitted(estimator, X)
    proba = model.predict_proba(X)
    _require(proba.shape == (len(LABELS), 2), f"probabilities have shape {proba.shape}")
    _same(proba.sum(1), np.ones(len(proba)), "probabilities do not add up to one")
    _require((proba >= 0).all(), "a probability is negative")
    answers = model.classes_[proba.argmax(1)]
    _require((answers == model.predict(X)).all(), "the likeliest class is not the answer")
    _require(0 <= model.score(X, LABELS) <= 1, "score is not in 0..1")


def _check_mistakes_are_errors(estimator: Any, inputs: dict[str, Any]) -> None:
    images = inputs["list of images"]
    for X, y, what in (
        (images, LABELS[:-1], "fewer labels than images"),
        ([], [], "no images"),
        (images, [None, *LABELS[1:]], "a missing label"),
        (images[0], LABELS[:1], "a single image instead of a collection"),
    ):
        try:
            _fitted(estimator, X, y)
        except (ValueError, TypeError):
            continue
        raise AssertionError(f"{what}: no error")
