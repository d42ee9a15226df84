"""Export a model to a folder for devices without torch."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.classifiers.fitted import FittedModel
from fewshot.data.images import LabeledImages
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.maps import pooling
from fewshot.errors import LeakError, TooSmallError, UnknownNameError
from fewshot.images.exporting import quantized
from fewshot.images.exporting.network import OPSET, TOLERANCE, InDomain, check_extra, write_onnx
from fewshot.images.learned import labelled
from fewshot.learners.base import Learner
from fewshot.learners.cosine_prototypical import CosinePrototypicalLearner
from fewshot.learners.discriminant import DiscriminantLearner
from fewshot.learners.k_nearest import KNearestLearner
from fewshot.learners.matching import MatchingLearner
from fewshot.learners.prototypical import PrototypicalLearner
from fewshot.learners.simpleshot import SimpleShotLearner
from fewshot.persistence.files import digest
from fewshot.runtime import saving
from fewshot.runtime.background import DeviceBackground
from fewshot.runtime.encoder import Encoder
from fewshot.runtime.memory import DeviceMemory, device_labels, is_writable
from fewshot.runtime.method import KEPT, SUMMED, DeviceMethod
from fewshot.utils.labels import in_known_forms, plain_label, unknown_mark
from fewshot.utils.text import counted, listed
from fewshot.utils.values import check_number

if TYPE_CHECKING:
    from fewshot.images.model import FewShotModel

Quantize = Literal["int8"]
QUANTIZE: tuple[Quantize, ...] = get_args(Quantize)
#: Support images that calibrate activations by default.
N_CALIBRATION = 256
#: The largest relative difference between the given support and what was learned; far above `TOLERANCE`.
SAME = 1e-3


def export(
    model: FewShotModel,
    folder: str | Path,
    quantize: Quantize | None = None,
    *,
    support: tuple[Any, Any] | LabeledImages | None = None,
    calibration: Any = None,
    gate: tuple[Any, Any] | LabeledImages | None = None,
    max_loss: float = 0.01,
) -> None:
    """Write a model to a folder that `fewshot.runtime.load` reads without torch, or replace an existing export.

    The folder holds the network and its domain as ONNX (opset 17), from pixels of any number of images to embeddings;
    the preprocessing; class sums and counts, or the support embeddings; and a manifest with the SHA-256 of each. The
    network is first checked against torch on random images. A failure leaves an existing export intact. The threshold
    of `reject` stays what it is now, also when the device learns more classes: export again to choose another.

    Parameters
    ----------
    model : FewShotModel
        Fitted, with a learner that a device has: discriminant, prototypical, simpleshot, matching or k-nearest.
    folder : path
        New, empty, or one that holds an export.
    quantize : {"int8"}, optional
        Use 8-bit weights and activations, for about a third of the size. This changes embeddings, so the encoder gets
        a new fingerprint and embeds the support again.
    support : (images, labels) or LabeledImages, optional
        For ``quantize``: all images that the model has learned, since it keeps only their embeddings.
    calibration : collection of images, optional
        For ``quantize``: images on which the ranges of activations are measured; by default up to 256 support images.
        A hundred typical images are enough.
    gate : (images, labels) or LabeledImages, optional
        For ``quantize``: 20 images of each of five or more classes that the model has not learned. The accuracy of both
        encoders is measured on the same 5-way episodes of them, with one and with five shots.
    max_loss : float, default=0.01
        The largest accepted loss of accuracy, as a fraction.

    Raises
    ------
    MissingExtraError
        If onnx or onnxruntime is missing.
    TypeError
        If a device does not support the learner or the labels, support or gate are not images with labels, or
        calibration is not a collection of images.
    ValueError
        If a parameter is missing or out of range, the support is not what was learned, or the unknown label is a class.
    LeakError, TooSmallError
        If the gate contains learned classes, or too few classes or images.
    ArtifactError
        If the folder holds something else, onnxruntime and torch disagree, or int8 loses too much accuracy.

    Examples
    --------
    >>> import tempfile
    >>> from fewshot import Embedder, FewShotImageClassifier, digits
    >>> from fewshot.runtime import load
    >>> data, folder = digits(), tempfile.mkdtemp()
    >>> model = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=28))
    >>> export(model.fit(data.images[:50], data.labels[:50]), folder)
    >>> bool((load(folder).predict(data.images[50:90]) == model.predict(data.images[50:90])).all())
    True
    """
    now = model.snapshot()
    check_extra()
    classifier, embedder = now.classifier, now.embedder
    if not isinstance(embedder, Embedder):
        raise TypeError(f"{embedder.name} is a custom embedder; only networks on images can be exported")
    method, memory = translate_learner(classifier.learner_), translate_memory(classifier.model_)
    if not is_writable(memory.classes):
        raise TypeError(f"labels are {memory.classes.dtype}, which a device cannot store; fit with text or integers")
    if classifier.reject is not None or classifier.on_error != "raise":
        unknown_mark(classifier.unknown_label, memory.classes)
    if quantize is not None:
        known, held_out = _check_quantized(quantize, support, gate, memory)
        check_number("max_loss", max_loss)
        calibration = _calibration(known[0], calibration)
    facts = _facts(classifier, embedder, method) | {"quantize": quantize}
    with tempfile.TemporaryDirectory(prefix="fewshot-export-") as work:
        path = Path(work) / "float.onnx"
        domain = embedder.find_domain()
        network = pooling(embedder.network, embedder.preprocessing.pool)
        network = network if domain is None else InDomain(network, domain)
        facts["difference"] = write_onnx(network, embedder.preprocessing, path)
        if quantize is not None:
            exact = Encoder(path, embedder.preprocessing)
            _check_same_support(_relearn(exact, known, method, memory), memory)
            coarse = _quantize(exact, calibration)
            facts["gate"] = quantized.measure(classifier.learner_, exact, coarse, *held_out)
            quantized.check_loss(facts["gate"], max_loss)
            path, memory = coarse.path, _relearn(coarse, known, method, memory)
        facts["encoder"] = digest(path)
        if quantize is not None:
            described = saving.preprocessing_bytes(embedder.preprocessing) + facts["encoder"].encode()
            facts["fingerprint"] = hashlib.sha256(described).hexdigest()
        saving.write_folder(folder, path, embedder.preprocessing, memory, translate_background(classifier), facts)


def _facts(classifier: FewShotClassifier, embedder: Embedder, method: DeviceMethod) -> dict[str, Any]:
    """Return the manifest of a float export, except for the encoder's digest."""
    return {
        "fingerprint": embedder.fingerprint,
        "embedder": embedder.fingerprint,
        "method": method.to_dict(),
        "temperature": classifier.proba_temperature(),
        "threshold": _threshold(classifier),
        "unknown_label": plain_label(classifier.unknown_label),
        "on_error": classifier.on_error,
        "opset": OPSET,
        "tolerance": TOLERANCE,
        "gate": None,
    }


def _check_quantized(
    quantize: str, support: Any, gate: Any, memory: DeviceMemory
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return images and labels of support and gate; raise if they do not fit what was learned."""
    if quantize not in QUANTIZE:
        raise UnknownNameError("quantize", quantize, QUANTIZE)
    if support is None:
        raise ValueError(
            "support is missing: int8 embeds it again, and the model has kept no images; pass "
            "support=(images, labels), all that was learned"
        )
    if gate is None:
        raise ValueError(
            "gate is missing: int8 must be measured; pass gate=(images, labels), five classes or more that were not "
            "learned, 20 images of each"
        )
    images, labels = _labelled("support", support, memory)
    y = device_labels(labels, len(images), memory.classes)
    found, expected = (
        dict(zip(*(part.tolist() for part in pair), strict=True))
        for pair in (np.unique(y, return_counts=True), (memory.classes, memory.n_support))
    )
    for label in [*expected, *found]:
        if found.get(label, 0) != expected.get(label, 0):
            raise ValueError(
                f"support has {found.get(label, 0)} images of {label!r} and the model has learned "
                f"{expected.get(label, 0)}; give all that was learned, and nothing else"
            )
    held_out = _labelled("gate", gate, memory)
    _check_gate(held_out[1], memory)
    return (images, y), held_out


def _labelled(what: str, given: Any, memory: DeviceMemory) -> tuple[Any, Any]:
    """Return images and labels, in the Unicode form of known classes, from `LabeledImages` or from a pair."""
    if isinstance(given, LabeledImages):
        given = given, None
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise TypeError(f"{what} is of type {type(given).__name__}; expected (images, labels), or LabeledImages")
    images, labels = labelled(*given)
    return images, in_known_forms(labels, set(memory.classes.tolist()).intersection)[0]


def _check_gate(labels: Any, memory: DeviceMemory) -> None:
    """Raise if a class of the gate was learned, or it is too small to draw episodes."""
    names, counts = np.unique(labels, return_counts=True)
    learned = set(memory.classes.tolist())
    if known := [name for name in names.tolist() if name in learned]:
        raise LeakError(f"gate has classes that were learned, {listed(known)}; give images of held-out classes")
    least = quantized.N_QUERY + max(quantized.SHOTS)
    if len(names) < quantized.N_WAY or counts.min() < least:
        raise TooSmallError(
            f"gate has {counted(len(names), 'class')}, of {names.tolist()[counts.argmin()]!r} "
            f"{counted(counts.min(), 'image')}; give {quantized.N_WAY} classes or more, {least} images of each"
        )


def _calibration(support: Any, given: Any) -> list[Any]:
    """Return the images that calibrate activations."""
    if given is None:
        places = np.linspace(0, len(support) - 1, min(len(support), N_CALIBRATION)).astype(int)
        return [support[place] for place in places.tolist()]
    try:
        images = list(Embedder.as_items(given))
    except TypeError as error:
        raise TypeError(f"calibration: {error}") from None
    if not images:
        raise ValueError("calibration is empty; give images like those that the device will see, or leave it out")
    return images


def _check_same_support(found: DeviceMemory, memory: DeviceMemory) -> None:
    """Raise unless the given support gives the memory that was learned."""
    for place, label in enumerate(memory.classes.tolist()):
        # Sort each column, so that the order of rows does not matter.
        given, learned = (np.sort(one.x[one.labels == place], axis=0) for one in (found, memory))
        if not np.linalg.norm(given - learned) <= SAME * np.linalg.norm(learned):
            raise ValueError(
                f"support has different images of {label!r} from those the model has learned; give all that was "
                "learned, each image with its label"
            )


def _quantize(exact: Encoder, calibration: list[Any]) -> Encoder:
    """Write the encoder in 8 bits next to the exact one."""
    pixels = exact.preprocessing.stack([exact.preprocessing(image) for image in calibration])
    path = exact.path.with_name("int8.onnx")
    quantized.quantize(exact.path, path, pixels)
    return Encoder(path, exact.preprocessing)


def _relearn(encoder: Encoder, support: tuple[Any, Any], method: DeviceMethod, memory: DeviceMemory) -> DeviceMemory:
    """Return the memory of the support, embedded by another encoder."""
    images, y = support
    x = method.transform(quantized.embed_with(encoder, images))
    return DeviceMemory.of(x, y, method.is_summed, memory.classes)  # classes without support stay


def translate_learner(learner: Learner) -> DeviceMethod:
    """Translate a learner.

    Raises
    ------
    TypeError
        If it needs torch to predict or to learn, or forgets support.

    Examples
    --------
    >>> translate_learner(PrototypicalLearner("cosine", temperature=0.05)).to_dict()["temperature"]
    0.05
    """
    # Not isinstance: a subclass may predict differently.
    kind, basic = type(learner), (learner.name, learner.metric, learner.get_params().get("temperature"))
    shared: dict[str, Any] = {"centered": learner.centered, "balanced": learner.balanced}
    if kind in (PrototypicalLearner, CosinePrototypicalLearner):
        return DeviceMethod(*basic, **shared)
    if isinstance(learner, SimpleShotLearner) and kind is SimpleShotLearner:
        center = None if learner.center is None else tuple(learner.center.tolist())
        return DeviceMethod(*basic, learner.normalization, center)
    if isinstance(learner, DiscriminantLearner) and kind is DiscriminantLearner:
        return DeviceMethod(*basic, power=learner.power, regularization=learner.regularization)
    if isinstance(learner, KNearestLearner) and kind is KNearestLearner:
        return DeviceMethod(*basic, n_neighbors=learner.n_neighbors, **shared)
    if isinstance(learner, MatchingLearner) and kind is MatchingLearner:
        if learner.max_support is not None:
            raise TypeError(
                f"the learner keeps max_support={learner.max_support} images per class, and a device cannot choose "
                "which; fit one that keeps all, max_support=None"
            )
        return DeviceMethod(*basic, **shared)
    raise TypeError(f"{kind.__name__} cannot be exported; expected one of {', '.join(SUMMED + KEPT)}")


def translate_background(classifier: FewShotClassifier) -> DeviceBackground | None:
    """Return what tells a device how familiar an image is; None if the similarity to the nearest key tells."""
    open_set = classifier.reject_rule().open_set()
    if open_set is None or open_set.seen is None:
        return None
    return DeviceBackground(open_set.background.x, open_set.background.codes)


def _threshold(classifier: FewShotClassifier) -> Any:
    threshold = classifier.reject_rule().threshold()
    return threshold if translate_background(classifier) is None else {"familiarity": threshold}


def translate_memory(fitted: FittedModel) -> DeviceMemory:
    """Convert what a fitted model has learned to numpy."""
    statistics = fitted.statistics
    if statistics.sums:
        x, labels, weights = statistics.sums["x"].numpy(), np.arange(len(fitted.classes)), statistics.count.numpy()
    else:
        x, labels, weights = (statistics.support[name].numpy() for name in ("x", "labels", "weight"))
    return DeviceMemory(fitted.classes, fitted.n_support, bool(statistics.sums), x, labels, weights)
