"""The export of a classifier: what of it goes into the folder, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot.data.images import LabeledImages, as_items
from fewshot.embedding.embedder import Embedder
from fewshot.errors import LeakError, TooSmallError, UnknownNameError
from fewshot.images.exporting import quantized
from fewshot.images.exporting.network import OPSET, TOLERANCE, check_extra, write_onnx
from fewshot.images.exporting.translate import translate_learner, translate_memory
from fewshot.images.inputs import labelled
from fewshot.persistence.files import digest
from fewshot.runtime import saving
from fewshot.runtime.encoder import Encoder
from fewshot.runtime.labels import device_labels, is_writable
from fewshot.runtime.learner import DeviceLearner
from fewshot.runtime.memory import DeviceMemory
from fewshot.utils.labels import plain_label
from fewshot.utils.parameters import check_number
from fewshot.utils.unknown import unknown_mark

if TYPE_CHECKING:
    from fewshot.images.model import FewShotModel

QUANTIZE = ("int8",)
#: Images of the support that ranges are measured on, where no others are given.
N_CALIBRATION = 256
#: By how much what int8 is given may differ from what was learned, as a part of its length: far above `TOLERANCE`.
SAME = 1e-3


def export(
    model: FewShotModel,
    folder: str | Path,
    quantize: str | None = None,
    *,
    support: tuple[Any, Any] | LabeledImages | None = None,
    calibration: Any = None,
    gate: tuple[Any, Any] | LabeledImages | None = None,
    max_loss: float = 0.01,
) -> None:
    """Write a classifier to a folder that `fewshot.runtime.load` reads without torch, or replace the one there.

    The folder holds the network as ONNX (opset 17), from pixels of any number of images to embeddings; the
    preprocessing; class sums and counts, or kept support; and a manifest with the SHA-256 of each. What onnxruntime
    computes is held against torch on random images first. A failure leaves what was there.

    Parameters
    ----------
    model : FewShotModel
        Fitted, with a learner that answers by a metric alone: prototypical, simpleshot, matching or k-nearest.
    folder : path
        New, empty, or one that holds an export.
    quantize : {"int8"}, optional
        Weights and activations of 8 bits: about a third of the size. Embeddings are then others, so the encoder has a
        fingerprint of its own and embeds the support anew.
    support : (images, labels) or LabeledImages, optional
        For ``quantize``: all images that the classifier has learned; it keeps their embeddings alone.
    calibration : collection of images, optional
        For ``quantize``: what the ranges of activations are measured on; by default the support, or 256 images spread
        over it. A hundred images like those that it will see are enough.
    gate : (images, labels) or LabeledImages, optional
        For ``quantize``: images of five classes or more, 20 of each; classes that the classifier has not learned. The
        accuracy of both encoders is measured on the same 5-way episodes of them, of one shot and of five.
    max_loss : float, default=0.01
        The largest loss of accuracy there, in parts of 1.

    Raises
    ------
    MissingExtraError
        If onnx or onnxruntime is missing.
    TypeError
        If the learner or its labels are none that a device can hold, support or gate no images with labels, or
        calibration no collection of images.
    ValueError
        If a parameter is missing or out of range, the support is not what was learned, or a class could not be told
        from the answer to unknown images.
    LeakError, TooSmallError
        If the gate has classes that were learned, or too few of others.
    ArtifactError
        If the folder holds something else, onnxruntime does not compute the same, or int8 loses too much accuracy.

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
    check_is_fitted(model)
    check_extra()
    model = copy.copy(model)  # of this moment, whatever is learned meanwhile
    now = model.snapshot()
    classifier, embedder = now.classifier, now.embedder
    if not isinstance(embedder, Embedder):
        raise TypeError(f"{embedder.name} is a custom embedder; only networks on images can be exported")
    method, memory = translate_learner(classifier.learner_), translate_memory(classifier.model_)
    if not is_writable(memory.classes):
        raise TypeError(f"labels are {memory.classes.dtype}, which a device cannot hold; fit with text or integers")
    if model.reject is not None or model.on_error != "raise":
        unknown_mark(model.unknown_label, memory.classes)
    asked = _checked(quantize, support, gate, memory)
    if asked is not None:
        check_number("max_loss", max_loss)
        calibration = _calibration(asked[0][0], calibration)
    facts: dict[str, Any] = {
        "fingerprint": embedder.fingerprint,
        "embedder": embedder.fingerprint,
        "method": method.to_dict(),
        "temperature": classifier.proba_temperature(),
        "threshold": classifier.reject_threshold(),
        "unknown_label": plain_label(model.unknown_label),
        "on_error": model.on_error,
        "opset": OPSET,
        "tolerance": TOLERANCE,
        "quantize": quantize,
        "gate": None,
    }
    with tempfile.TemporaryDirectory(prefix="fewshot-export-") as work:
        path = Path(work) / "float.onnx"
        facts["difference"] = write_onnx(embedder.network, embedder.preprocessing, path)
        if asked is not None:
            exact = Encoder(path, embedder.preprocessing)
            _refuse_other_support(_relearned(exact, asked[0], method, memory), memory)
            coarse = _coarse(exact, calibration)
            facts["gate"] = quantized.measure(classifier.learner_, exact, coarse, *asked[1])
            quantized.refuse_loss(facts["gate"], max_loss)
            path, memory = coarse.path, _relearned(coarse, asked[0], method, memory)
        facts["encoder"] = digest(path)
        if asked is not None:
            described = saving.preprocessing_bytes(embedder.preprocessing) + facts["encoder"].encode()
            facts["fingerprint"] = hashlib.sha256(described).hexdigest()
        saving.write_folder(folder, path, embedder.preprocessing, memory, facts)


#: Support and gate: images and labels of each.
_Asked = tuple[tuple[Any, Any], tuple[Any, Any]]


def _checked(quantize: str | None, support: Any, gate: Any, memory: DeviceMemory) -> _Asked | None:
    """Return support and gate where something is to be quantised, and refuse what cannot be."""
    if quantize is None:
        return None
    if quantize not in QUANTIZE:
        raise UnknownNameError("quantize", quantize, QUANTIZE)
    if support is None:
        raise ValueError(
            "support is missing: int8 embeds it anew, and the classifier has kept no images; pass "
            "support=(images, labels), all that was learned"
        )
    if gate is None:
        raise ValueError(
            "gate is missing: int8 is only as good as what it was measured on; pass gate=(images, labels), five "
            "classes or more that were not learned, 20 images of each"
        )
    images, labels = _labelled("support", support)
    y = device_labels(labels, len(images), memory.classes)
    found, expected = (
        dict(zip(*(part.tolist() for part in pair), strict=True))
        for pair in (np.unique(y, return_counts=True), (memory.classes, memory.n_support))
    )
    for label in [*expected, *found]:
        if found.get(label, 0) != expected.get(label, 0):
            raise ValueError(
                f"support has {found.get(label, 0)} images of {label!r} and the classifier has learned "
                f"{expected.get(label, 0)}; give all that was learned, and nothing else"
            )
    held_out = _labelled("gate", gate)
    _check_gate(held_out[1], memory)
    return (images, y), held_out


def _labelled(what: str, given: Any) -> tuple[Any, Any]:
    """Return images and labels, of `LabeledImages` or of a pair."""
    if isinstance(given, LabeledImages):
        return labelled(given, None)
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise TypeError(f"{what} is of type {type(given).__name__}; expected (images, labels), or LabeledImages")
    return labelled(*given)


def _check_gate(labels: Any, memory: DeviceMemory) -> None:
    """Refuse a gate of which some was learned, or on which no episodes can be drawn."""
    names, counts = np.unique(labels, return_counts=True)
    learned = set(memory.classes.tolist())
    if known := [name for name in names.tolist() if name in learned]:
        shown = ", ".join(map(repr, known[:5])) + (", ..." if len(known) > 5 else "")
        raise LeakError(f"gate has classes that were learned, {shown}; give images of other classes, that you hold out")
    least = quantized.N_QUERY + max(quantized.SHOTS)
    if len(names) < quantized.N_WAY or counts.min() < least:
        raise TooSmallError(
            f"gate has {len(names)} classes, of {names.tolist()[counts.argmin()]!r} {counts.min()} images; give "
            f"{quantized.N_WAY} classes or more, {least} images of each"
        )


def _calibration(support: Any, given: Any) -> list[Any]:
    """Return the images that ranges are measured on."""
    if given is None:
        places = np.linspace(0, len(support) - 1, min(len(support), N_CALIBRATION)).astype(int)
        return [support[place] for place in places.tolist()]
    try:
        images = list(as_items(given))
    except TypeError as error:
        raise TypeError(f"calibration: {error}") from None
    if not images:
        raise ValueError("calibration is empty; give images like those that the device will see, or leave it out")
    return images


def _refuse_other_support(found: DeviceMemory, memory: DeviceMemory) -> None:
    """Refuse support of which the same encoder makes another memory."""
    for place, label in enumerate(memory.classes.tolist()):
        # Each column sorted by itself: rows are compared without regard to their order.
        given, learned = (np.sort(one.x[one.labels == place], axis=0) for one in (found, memory))
        if not np.linalg.norm(given - learned) <= SAME * np.linalg.norm(learned):
            raise ValueError(
                f"support has other images of {label!r} than the classifier has learned; give all that was learned, "
                "each image with its label"
            )


def _coarse(exact: Encoder, calibration: list[Any]) -> Encoder:
    """Return the encoder in 8 bits, beside the exact one."""
    pixels = np.stack([exact.preprocessing(image) for image in calibration])
    path = exact.path.with_name("int8.onnx")
    quantized.quantize(exact.path, path, pixels)
    return Encoder(path, exact.preprocessing)


def _relearned(encoder: Encoder, support: tuple[Any, Any], method: DeviceLearner, memory: DeviceMemory) -> DeviceMemory:
    """Return the memory of the same support as another encoder sees it."""
    images, y = support
    made = DeviceMemory.of(method.transform(quantized.embed_with(encoder, images)), y, method.is_summed)
    # Beside nothing of each known class: those without support are known, too.
    return memory.emptied() + made
