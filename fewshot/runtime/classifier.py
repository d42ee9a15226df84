"""The classifier of a device: it answers, learns, forgets, is merged with others and saved."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import describe, is_name
from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import Versions, stamp, version_of, writing
from fewshot.runtime import saving
from fewshot.runtime.encoder import Encoder, image_list
from fewshot.runtime.labels import device_labels
from fewshot.runtime.memory import DeviceMemory
from fewshot.runtime.model import Model
from fewshot.runtime.similarity import Array
from fewshot.utils.locks import lock_of, one_at_a_time
from fewshot.utils.twins import earlier_twins, warn_of_twins
from fewshot.utils.unknown import check_unknown


class RuntimeClassifier:
    """A classifier that `fewshot.export` has written and `load` has read.

    It answers as the classifier that it was exported from, but in float64: given equal embeddings, probabilities are
    equal up to the float32 rounding of that one. Learning changes the memory alone, by addition; the encoder and the
    calibration stay.

    Attributes
    ----------
    encoder : Encoder
        From images to embeddings.
    model : Model
        From embeddings to answers; it is replaced as a whole, so threads may answer and learn at once.
    facts : dict
        What the manifest says beside the memory: ``fingerprint`` of the encoder and ``embedder``, that of the embedder
        it was exported from; ``method``, ``temperature``, ``threshold``, ``unknown_label``, ``on_error``, ``quantize``,
        and what was measured when it was exported.
    """

    def __init__(self, encoder: Encoder, model: Model, facts: dict[str, Any]) -> None:
        self.encoder, self.model, self.facts = encoder, model, facts
        self._versions: Versions = {}

    def __repr__(self) -> str:
        return f"RuntimeClassifier({self.model.method.name}, {len(self.classes_)} classes)"

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted labels, (n_classes,)."""
        return self.model.memory.classes

    @property
    def n_support_(self) -> NDArray[np.int64]:
        """Support images of each class, (n_classes,)."""
        return self.model.memory.n_support

    @property
    def fingerprint(self) -> str:
        """SHA-256 that stands for the encoder: embeddings of equal fingerprints can be compared."""
        return str(self.facts["fingerprint"])

    def predict(self, images: Any) -> NDArray[Any]:
        """Return the class of each image; the unknown label where even the nearest key is too far.

        Parameters
        ----------
        images : collection of n images
            Paths, bytes, PIL images or arrays in a list or an array.

        Returns
        -------
        ndarray of shape (n,)
            Labels as they were given.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read, unless the exported classifier had another ``on_error`` than "raise".
        ValueError
            Likewise, if the encoder makes no finite embedding of one.
        """
        return self.model.predict(self._queries(images))

    def predict_proba(self, images: Any) -> Array:
        """Return the probability of each class in the order of ``classes_``, (n, n_classes); see `predict`."""
        return self.model.predict_proba(self._queries(images))

    def nearest(self, images: Any, k: int = 1) -> tuple[NDArray[Any], Array]:
        """Return labels and similarities (n, k) of the nearest keys: prototypes, or support where it is kept as keys.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        """
        return self.model.nearest(self._queries(images), k)

    def partial_fit(self, images: Any, labels: Any) -> Self:
        """Learn images of known or of new classes in addition to what is known: no gradient, sums that grow.

        An image that is given twice counts twice. A warning names it if both are given now, or the support is kept.

        Parameters
        ----------
        images : collection of n images
            As for `predict`.
        labels : sequence of length n
            Their classes, of the kind of those that are known.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read, unless ``on_error`` was "skip": then the others are learned.
        ValueError, TypeError
            If labels do not fit, or the encoder makes no finite embedding of an image that was read. What was learned
            before then still stands.
        """
        items = image_list(images)
        y = device_labels(labels, len(items), self.classes_)
        embeddings, errors = self.encoder.embed(images)
        unread = {error.index for error in errors}
        read = np.array([i not in unread for i in range(len(y))], np.bool_)
        if errors and (self.facts["on_error"] != "skip" or not read.any()):
            raise errors[0]
        _refuse_not_finite(embeddings, read)
        if not len(y):
            raise ValueError("there are no images to learn from; give at least one")
        with lock_of(self):
            model = self.model
            news = model.learned(embeddings[read], y[read])
            self._publish(model.memory + news)
        _warn_of_same_images(model, embeddings[read], [_name(i, items[i]) for i in np.flatnonzero(read).tolist()])
        return self

    @one_at_a_time
    def remove_class(self, label: Any) -> Self:
        """Forget a class, as if it had never been learned.

        Raises
        ------
        ValueError
            If there is no such class, or no other one.
        """
        return self._publish(self.model.memory.without(label))

    @one_at_a_time
    def merge(self, other: RuntimeClassifier, base: RuntimeClassifier | None = None) -> Self:
        """Learn all that another device has learned, by addition: as if its images had been shown to this one.

        Parameters
        ----------
        other : RuntimeClassifier
            Of the same encoder and learner; it is not changed.
        base : RuntimeClassifier, optional
            The export that both began with. Without it, images that both have learned count twice. A class that the
            other has forgotten since stays, and what it has learned of it after that is added.

        Raises
        ------
        ValueError
            If encoder or learner are not the same, or the other has not begun with `base`.
        TypeError
            If the other is no such classifier, or its labels are of another kind.
        """
        for one in (other, *([] if base is None else [base])):
            self._refuse_other(one)
        news = other.model.memory if base is None else other.model.memory.since(base.model.memory)
        return self._publish(self.model.memory + news)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write everything to a folder that `load` reads, or replace the one that is there, as a whole.

        A crash leaves the old or the new. Where the folder is the one it was loaded from, only the memory is written.
        Writers of one folder, threads and processes, follow each other.

        Parameters
        ----------
        folder : path
            New, empty, or one that holds an export.
        overwrite : bool, default=False
            Whether to replace the folder also where somebody else has written it since this classifier was loaded from
            it or last saved to it. A classifier that has never been there replaces what is there in any case.

        Raises
        ------
        ArtifactError
            If the folder holds something else or has changed meanwhile, or the encoder that this was loaded with has
            gone.
        InUseError
            If somebody else is writing it for longer than a minute.
        MissingExtraError
            If the package filelock is missing.
        OSError
            If it cannot be written; what was there is untouched.
        """
        with writing(folder, "export"):  # so that of two threads the later one writes what both have learned
            encoder, memory = self.encoder, self.model.memory
            known = {} if overwrite else self._versions
            written = saving.write_folder(folder, encoder.path, encoder.preprocessing, memory, self.facts, known)
            self._versions = {**self._versions, **written}

    def _queries(self, images: Any) -> NDArray[np.float32]:
        embeddings, errors = self.encoder.embed(images)
        if self.facts["on_error"] == "raise":
            if errors:
                raise errors[0]
            _refuse_not_finite(embeddings, np.ones(len(embeddings), np.bool_))
        return embeddings

    def _refuse_other(self, other: RuntimeClassifier) -> None:
        if not isinstance(other, RuntimeClassifier):
            raise TypeError(f"cannot merge a {type(other).__name__}; give what load() returns")
        if other.fingerprint != self.fingerprint:
            raise ValueError(
                f"the other classifier has the encoder {other.fingerprint[:12]} and this one {self.fingerprint[:12]}, "
                "so their embeddings do not add; merge what was exported with one encoder"
            )
        if other.model.method != self.model.method:
            raise ValueError(
                f"what was learned by {other.model.method.name} cannot join {self.model.method.name} with other "
                "parameters; both must be the same"
            )
        device_labels(other.classes_, len(other.classes_), self.classes_)

    def _publish(self, memory: DeviceMemory) -> Self:
        """Answer with this memory from now on."""
        if self.facts["on_error"] != "raise" or self.facts["threshold"] is not None:
            check_unknown(self.facts["unknown_label"], memory.classes, self.classes_)
        self.model = replace(self.model, memory=memory)
        return self


def _name(place: int, item: Any) -> str:
    return name if is_name(name := describe(item)) else f"image {place}"


def _warn_of_same_images(model: Model, embeddings: NDArray[np.floating], names: list[str]) -> None:
    """Warn of images that the memory holds already, if it keeps its support, or that come twice now."""
    memory, x = model.memory, model.method.transform(embeddings)
    known = memory.x[:0] if memory.is_summed else memory.x
    labels = memory.classes[memory.labels[: len(known)]].tolist()
    names = [*(f"an image of {label!r} learned before" for label in labels), *names]
    warn_of_twins(earlier_twins(np.concatenate([known, x]), len(known)), len(known), names)


def _refuse_not_finite(embeddings: NDArray[np.floating], read: NDArray[np.bool_]) -> None:
    bad = np.flatnonzero(read & ~np.isfinite(embeddings).all(1))
    if len(bad):
        raise ValueError(
            f"the encoder makes no finite embedding of image {bad[0]}; leave it out, or export another network"
        )


def load(folder: str | Path, *, n_threads: int = 1) -> RuntimeClassifier:
    """Return the classifier of a folder that `fewshot.export` or `RuntimeClassifier.save` has written.

    Every byte is verified before it is used. The folder may come from a stranger: its network may have only the
    operators that an export writes, and nothing in it runs code, or reads or writes other files. It can answer wrongly,
    though, and takes memory and time: digests show damage, and are no signature.

    Parameters
    ----------
    folder : path
        The folder.
    n_threads : int, default=1
        Threads of onnxruntime.

    Raises
    ------
    ArtifactError
        If the folder is none of these, is damaged, holds what does not fit together, or was written by a newer version.
    MissingExtraError
        If onnxruntime is missing.

    Examples
    --------
    >>> import tempfile
    >>> from fewshot import Embedder, FewShotImageClassifier, digits
    >>> from fewshot import export
    >>> data, folder = digits(), tempfile.mkdtemp()
    >>> model = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=28))
    >>> export(model.fit(data.images[:10], data.labels[:10]), folder)
    >>> device = load(folder).remove_class(9).partial_fit(data.images[9:12], [10, 10, 11])
    >>> device.classes_.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    """
    while True:
        before, version = stamp(folder), version_of(folder)
        path, preprocessing, model, facts = saving.read_folder(folder)
        try:
            encoder = Encoder(path, preprocessing, n_threads)
        except ArtifactError:
            if stamp(folder) == before and path.exists():
                raise
            continue  # replaced between verifying and reading; where a file is really missing, verifying says so
        if encoder.width != (width := model.memory.x.shape[1]):
            raise ArtifactError(
                f"{path} makes embeddings of {encoder.width} numbers, and the memory has {width}; export it again"
            )
        found = RuntimeClassifier(encoder, model, facts)
        if version is not None:  # looked up before it was read: at worst older, and then save asks
            found._versions = {os.path.realpath(folder): version}
        return found
