"""The classifier on a device: predict, learn, forget, merge, save and load."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import as_sequence, describe, is_name
from fewshot.errors import ArtifactError
from fewshot.persistence.artifact import Versions, load_artifact, writing
from fewshot.runtime import saving
from fewshot.runtime.encoder import Encoder
from fewshot.runtime.memory import Array, DeviceMemory, device_labels
from fewshot.runtime.model import DeviceModel
from fewshot.utils.labels import check_unknown
from fewshot.utils.locks import lock_of, one_at_a_time
from fewshot.utils.text import counted
from fewshot.utils.twins import earlier_twins, warn_of_twins


class RuntimeClassifier:
    """A classifier written by `fewshot.export` and read by `load`.

    It gives the answers of the exported model, computed in float64: for equal embeddings, probabilities are equal up to
    the float32 rounding of that model. Learning adds to the memory; the encoder, the calibration and the threshold of
    ``reject`` stay the same, so export again after learning many classes, since the nearest of more classes is nearer.

    Attributes
    ----------
    encoder : Encoder
        From images to embeddings.
    model : DeviceModel
        From embeddings to answers. Always replaced as a whole, so threads may predict and learn at the same time.
    facts : dict
        The rest of the manifest: ``fingerprint`` of the encoder and ``embedder``, the fingerprint of the embedder it
        was exported from; ``method`` (the learner), ``temperature``, ``threshold``, ``unknown_label``, ``on_error``,
        ``quantize``, and measurements made during the export.
    """

    def __init__(self, encoder: Encoder, model: DeviceModel, facts: dict[str, Any]) -> None:
        self.encoder, self.model, self.facts = encoder, model, facts
        self._versions: Versions = {}

    def __repr__(self) -> str:
        return f"RuntimeClassifier({self.model.method.name}, {counted(len(self.classes_), 'class')})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a RuntimeClassifier cannot be pickled or copied, because it runs a network in onnxruntime; save() it, and "
            "load() the folder where it is needed"
        )

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
        """SHA-256 of the encoder: embeddings are comparable if their fingerprints are equal."""
        return str(self.facts["fingerprint"])

    def predict(self, images: Any) -> NDArray[Any]:
        """Return the class of each image, or the unknown label if even the nearest key is too far.

        Parameters
        ----------
        images : collection of n images
            Paths, bytes, PIL images or arrays in a list or an array.

        Returns
        -------
        ndarray of shape (n,)
            Labels, of the type they were learned with.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read and ``on_error`` was "raise" at export.
        ValueError
            If the embedding of an image is not finite and ``on_error`` was "raise".
        """
        return self.model.predict(self._queries(images))

    def predict_proba(self, images: Any) -> Array:
        """Return the probability of each class in the order of ``classes_``, (n, n_classes); see `predict`."""
        return self.model.predict_proba(self._queries(images))

    def answer(self, images: Any) -> tuple[NDArray[Any], NDArray[Any], Array]:
        """Return for each image what `predict` does, its likeliest class, and the probability of that, all (n,).

        The first two differ for an unknown image.
        """
        model, queries = self.model, self._queries(images)
        shares = model.predict_proba(queries)
        return model.predict(queries), model.memory.classes[shares.argmax(1)], shares.max(1)

    def nearest(self, images: Any, k: int = 1) -> tuple[NDArray[Any], Array]:
        """Return labels and similarities (n, k) of the nearest keys: prototypes, or support images, by learner.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        """
        return self.model.nearest(self._queries(images), k)

    def partial_fit(self, images: Any, labels: Any) -> Self:
        """Learn images of known or new classes in addition to those learned before.

        An image that is given twice counts twice. A warning names it if both are in this call, or support is kept.

        Parameters
        ----------
        images : collection of n images
            As for `predict`.
        labels : sequence of length n
            Labels, of the type of the known ones.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read; with ``on_error="skip"`` only if none can.
        ValueError, TypeError
            If labels do not fit, or the embedding of a readable image is not finite. The memory is then unchanged.
        """
        items = as_sequence(images, "images")
        y = device_labels(labels, len(items), self.classes_)
        embeddings, errors = self.encoder.embed(items)
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
        _warn_of_duplicates(
            model, embeddings[read], y[read], [_name(i, items[i]) for i in np.flatnonzero(read).tolist()]
        )
        return self

    @one_at_a_time
    def remove_class(self, label: Any) -> Self:
        """Forget a class, as if it had never been learned.

        Raises
        ------
        ValueError
            If there is no such class, or it is the only one.
        """
        return self._publish(self.model.memory.without(label))

    @one_at_a_time
    def merge(self, other: RuntimeClassifier, base: RuntimeClassifier | None = None) -> Self:
        """Add what another device has learned, as if its images had been shown to this one.

        Parameters
        ----------
        other : RuntimeClassifier
            Has the same encoder and learner; it is not changed.
        base : RuntimeClassifier, optional
            The common starting point of both. Its images count once; without it, images that both have learned count
            twice. A class that the other has removed since then stays here, and what it has relearned of it is added.

        Raises
        ------
        ValueError
            If encoder or learner differ, or the other did not start from `base`.
        TypeError
            If the other is not a RuntimeClassifier, or its labels have another type.
        """
        for one in (other, *([] if base is None else [base])):
            self._refuse_other(one)
        news = other.model.memory if base is None else other.model.memory.since(base.model.memory)
        return self._publish(self.model.memory + news)

    def save(self, folder: str | Path, *, overwrite: bool = False, note: str | None = None) -> None:
        """Write everything to a folder that `load` reads, or replace the one that is there, in one step.

        A crash leaves the old or the new version. Saving to where it was loaded from writes only the memory. Threads
        and processes that write the same folder take turns.

        Parameters
        ----------
        folder : path
            New, empty, or one that holds an export.
        overwrite : bool, default=False
            Whether to replace the folder even if someone else has written it since this classifier was loaded from it
            or last saved to it. A classifier that was never saved there replaces it in any case.
        note : str, optional
            What changed. With a note, the version before is kept, and ``fewshot-runtime undo`` goes back to it.

        Raises
        ------
        ArtifactError
            If the folder holds something else or has changed meanwhile, or the encoder file of this classifier is
            missing.
        InUseError
            If someone else is writing it for longer than a minute.
        MissingExtraError
            If the package filelock is missing.
        OSError
            If it cannot be written; what was there is untouched.
        """
        with writing(folder, "export"):  # read the state inside: the later of two threads writes what both learned
            encoder, model = self.encoder, self.model
            known, parts = {} if overwrite else self._versions, (model.memory, model.background, self.facts)
            written = saving.write_folder(folder, encoder.path, encoder.preprocessing, *parts, known, note)
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
                "so their embeddings cannot be combined; merge classifiers exported with the same encoder"
            )
        if not self.model.method.is_like(other.model.method):
            raise ValueError(
                f"cannot merge what {other.model.method.name} learned into {self.model.method.name}; merge "
                "classifiers that have the same learner with the same parameters"
            )
        device_labels(other.classes_, len(other.classes_), self.classes_)

    def _publish(self, memory: DeviceMemory) -> Self:
        """Use this memory from now on."""
        if self.facts["on_error"] != "raise" or self.facts["threshold"] is not None:
            check_unknown(self.facts["unknown_label"], memory.classes, self.classes_)
        self.model = replace(self.model, memory=memory)
        return self


def _name(place: int, item: Any) -> str:
    return name if is_name(name := describe(item)) else f"image {place}"


def _warn_of_duplicates(
    model: DeviceModel, embeddings: NDArray[np.floating], y: NDArray[Any], names: list[str]
) -> None:
    """Warn of images that kept support holds already, or that occur twice in this call."""
    memory, x = model.memory, model.method.transform(embeddings)
    known = memory.x[:0] if memory.is_summed else memory.x
    labels = memory.classes[memory.labels[: len(known)]]
    names = [*(f"an image of {label!r} learned before" for label in labels.tolist()), *names]
    twins = earlier_twins(np.concatenate([known, x]), len(known))
    warn_of_twins(twins, len(known), names, np.concatenate([labels, y]))


def _refuse_not_finite(embeddings: NDArray[np.floating], read: NDArray[np.bool_]) -> None:
    bad = np.flatnonzero(read & ~np.isfinite(embeddings).all(1))
    if len(bad):
        raise ValueError(
            f"the encoder gives no finite embedding of image {bad[0]}; leave it out, or export another network"
        )


def load(folder: str | Path, *, n_threads: int = 1) -> RuntimeClassifier:
    """Load a classifier written by `fewshot.export` or `RuntimeClassifier.save`.

    Every byte is verified before use. The folder may come from a stranger: only operators that an export writes are
    allowed in its network, and nothing in it runs code, or reads or writes other files. Its answers can still be wrong,
    and it takes memory and time: digests detect damage, and are not signatures.

    Parameters
    ----------
    folder : path
        The folder.
    n_threads : int, default=1
        Threads of onnxruntime.

    Raises
    ------
    ArtifactError
        If the folder is not an export, is damaged or inconsistent, or was written by a newer version.
    MissingExtraError
        If onnxruntime is missing.
    ValueError
        If `n_threads` is below 1.

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
    if not isinstance(n_threads, int) or n_threads < 1:
        raise ValueError(f"n_threads is {n_threads!r}; expected a whole number from 1")

    def build(manifest: dict[str, Any], paths: dict[str, Path]) -> RuntimeClassifier:
        path, preprocessing, model, facts = saving.read_folder(folder, manifest, paths)
        encoder = Encoder(path, preprocessing, n_threads)
        if encoder.width != (width := model.memory.x.shape[1]):
            raise ArtifactError(
                f"{path} computes embeddings of {encoder.width} numbers, and its memory holds {width}; export it again"
            )
        found = RuntimeClassifier(encoder, model, facts)
        found._versions = {os.path.realpath(folder): manifest["digest"]}
        return found

    return load_artifact(folder, "export", build)
