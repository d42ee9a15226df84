"""From image files to answers: an embedder and a classifier in one, saved and loaded as one folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from fewshot.artifact import Versions, version_of, writing
from fewshot.classifier import FewShotClassifier
from fewshot.embedding.batches import Embedded
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.own import OwnEmbedder
from fewshot.errors import UnknownNameError
from fewshot.learners.base import Learner
from fewshot.locks import lock_of, one_at_a_time
from fewshot.model import saving
from fewshot.model.content import ON_ERROR
from fewshot.model.defaults import default_learner, make_embedder
from fewshot.model.editing import ImageEditingMixin
from fewshot.model.inputs import labelled, leave_out_unread, names_of, on_invalid, on_unread
from fewshot.model.insight import InsightMixin
from fewshot.model.learned import Learned, Prepared
from fewshot.pickling import VersionedPickle
from fewshot.support import Support


class FewShotImageClassifier(InsightMixin, ImageEditingMixin, VersionedPickle, ClassifierMixin, BaseEstimator):
    """Learn classes from a few images each, answer, grow, and be saved with all of it in one folder.

    Equal embeddings get equal answers, to the last bit, whatever other images are asked about in the same call (unless
    the learner is transductive) and on every processor. The embeddings themselves are those of the network, which on
    some processors rounds differently for batches of different sizes.

    Of parameters that are set later, ``on_error``, ``reject``, ``unknown_label`` and ``index`` act at once,
    ``keep_support=False`` when more is learned, and all others at the next `fit`.

    Parameters
    ----------
    backbone : str, path, nn.Module, Embedder or OwnEmbedder, default="tf_efficientnet_lite0"
        A timm name, a checkpoint of `MetaTrainer`, a network, or an embedder, also one for other things than images.
    learner : str, Learner or None, default=None
        A registered name or a learner. By default the learner that a checkpoint was trained with, and for other
        backbones cosine prototypes: ``PrototypicalLearner("cosine", temperature=0.05)``.
    weights, pretrained, img_size, device, cache, bits, max_pixels
        Of the `Embedder`; left out where `backbone` is one.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        What an image that cannot be read is: an error; left out of the support, with a warning, and as a query
        answered with `unknown_label`; or an error in the support and unknown as a query.
    reject : float or "auto", optional
        Below which similarity to the nearest key an image is answered `unknown_label`; "auto" takes the threshold that
        `calibrate` has found. By default every image is answered with a class.
    unknown_label : object, optional
        The answer for such queries; by default ``"unknown"`` for labels of text and -1 for integers.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How the nearest keys are found; see `PrototypeIndex`.
    keep_support : bool, default=True
        Whether names, embeddings and small pictures of the support images are kept, and saved, for `nearest_support`
        and for reports. About 8 KB an image.
    progress : bool, default=True
        Whether long work shows a progress bar on standard error.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    n_support_ : ndarray of shape (n_classes,)
        Support images of each class.
    embedder_ : Embedder
        From images to embeddings.
    classifier_ : FewShotClassifier
        From embeddings to answers.
    support_ : Support or None
        The support images, if kept.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import Embedder, FewShotImageClassifier, digits
    >>> data = digits()
    >>> model = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=28))
    >>> model = model.fit(data.images[:50], data.labels[:50])
    >>> model.predict(data.images[50:53]).shape
    (3,)
    """

    #: How its weights are written unless `save` is told.
    _stored = "embed"
    #: All that was learned, replaced as a whole: whoever reads it once sees one moment.
    _learned: Learned | None = None
    #: Which versions of which folders it was loaded from, or saved to.
    _versions: Versions = {}  # noqa: RUF012

    def __init__(
        self,
        backbone: str | Path | nn.Module | Embedder = "tf_efficientnet_lite0",
        learner: str | Learner | None = None,
        *,
        weights: str | Path | None = None,
        pretrained: bool = False,
        img_size: int | None = None,
        device: str = "auto",
        on_error: str = "raise",
        reject: float | str | None = None,
        unknown_label: object = None,
        index: str = "auto",
        keep_support: bool = True,
        cache: str | Path | None = None,
        bits: int | None = None,
        max_pixels: int | None = None,
        progress: bool = True,
    ) -> None:
        self.backbone = backbone
        self.learner = learner
        self.weights = weights
        self.pretrained = pretrained
        self.img_size = img_size
        self.device = device
        self.on_error = on_error
        self.reject = reject
        self.unknown_label = unknown_label
        self.index = index
        self.keep_support = keep_support
        self.cache = cache
        self.bits = bits
        self.max_pixels = max_pixels
        self.progress = progress

    def fit(self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None) -> Self:
        """Learn classes from labelled images, forgetting what was learned before.

        An image that is given twice counts twice, with a warning that names it.

        Parameters
        ----------
        X : collection of n images, or LabeledImages
            As `Embedder.transform` takes them.
        y : array-like of shape (n,), optional
            Labels: text of at most 10,000 characters, integers or booleans, in any container with an order. Left out
            where X is `LabeledImages`.
        ids : sequence of n str, optional
            Names of the images, no two alike, by which kept support knows them; by default their paths.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read, unless ``on_error="skip"``.
        ValueError
            If there are no images, a label is missing, a name is in use, or a parameter is out of range.
        """
        embedder = self._make_embedder()
        classifier = FewShotClassifier(
            default_learner(embedder) if self.learner is None else self.learner,
            index=self.index,
            on_invalid=on_invalid(self.on_error),
            reject=self.reject,
            unknown_label=self.unknown_label,
        )
        classifier.check_parameters()
        nothing = Learned(embedder, classifier, Support.none() if self.keep_support else None)
        return self._publish(nothing.grown(self._prepare(nothing, X, y, ids)))

    def partial_fit(self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None) -> Self:
        """Learn more images, of known or of new classes, in addition to what is known.

        An image that is given twice counts twice. A warning names it if both are given now, or the support is kept.

        Parameters
        ----------
        X, y, ids
            As for `fit`.

        Raises
        ------
        ImageDecodeError, ValueError
            As for `fit`. The classifier is then unchanged.
        """
        if self._learned is None:
            return self.fit(X, y, ids=ids)
        while True:
            prepared = self.prepare(X, y, ids=ids)
            with lock_of(self):
                if self._moment().takes(prepared):  # else another thread has called fit while these were embedded
                    return self.learn(prepared)

    def prepare(self, X: Any, y: ArrayLike | None = None, *, ids: Sequence[str] | None = None) -> Prepared:
        """Embed labelled images: all of `partial_fit` that takes long. `learn` does the rest.

        Parameters
        ----------
        X, y, ids
            As for `fit`.

        Raises
        ------
        ImageDecodeError, ValueError
            As for `fit`.
        """
        return self._prepare(self._moment(), X, y, ids)

    @one_at_a_time
    def learn(self, prepared: Prepared) -> Self:
        """Learn what `prepare` has embedded, here or by another classifier of the same network.

        Raises
        ------
        ValueError
            If the network is another, or as for `fit`. The classifier is then unchanged.
        """
        return self._publish(self._moment(prepared).grown(prepared))

    def _prepare(self, learned: Learned, X: Any, y: Any, ids: Sequence[str] | None) -> Prepared:
        items, labels = labelled(X, y, learned.embedder.as_items, getattr(learned.classifier, "classes_", None))
        support = learned.support
        names = names_of(items, ids, () if support is None else support.ids)
        embedded = learned.embedder.embed(items, thumbnails=support is not None, on_error=on_unread(self.on_error))
        if embedded.errors:
            if self.on_error != "skip":
                raise embedded.errors[0]
            embedded.warn(stacklevel=4)
            names, labels, embedded = leave_out_unread(names, labels, embedded)
        return Prepared(names, ids is not None, labels, embedded, learned.embedder)

    def publish(self, embedder: Embedder, classifier: FewShotClassifier, support: Support | None) -> Self:
        """Answer with these from now on."""
        return self._publish(Learned(embedder, classifier, support))

    @one_at_a_time
    def _publish(self, learned: Learned) -> Self:
        # At the end and all at once: where anything before fails, what was learned earlier still stands.
        # Beside embedding it costs nothing, and tables made in other batches can be compared.
        learned.classifier.steady = True
        self._learned = learned
        return self

    def _moment(self, prepared: Prepared | None = None) -> Learned:
        """Return what is known now, with a copy of the classifier that may be changed and has the parameters of now.

        Raises
        ------
        ValueError
            If images were `prepared` with another network.
        """
        check_is_fitted(self)
        now = copy.copy(self)
        learned = Learned(now.embedder_, now.answering(), now.support_ if now.keep_support else None)
        if prepared is not None and not learned.takes(prepared):
            raise ValueError(
                "the images were embedded with another network than that of this classifier, which was replaced "
                "meanwhile; give them again"
            )
        return learned

    def __setstate__(self, state: dict[str, Any]) -> None:
        results = ("embedder_", "classifier_", "support_", "classes_", "n_support_")
        super().__setstate__({name: value for name, value in state.items() if name not in results})
        if "classifier_" in state:  # of a version whose results were attributes
            self.publish(*(state[name] for name in results[:3]))

    def _known(self, name: str) -> Learned:
        if self._learned is None:
            raise AttributeError(f"this {type(self).__name__} has no {name}: it is not fitted; call fit first")
        return self._learned

    def __sklearn_is_fitted__(self) -> bool:
        return self._learned is not None

    @property
    def embedder_(self) -> Embedder:
        """From images to embeddings."""
        return self._known("embedder_").embedder

    @property
    def classifier_(self) -> FewShotClassifier:
        """From embeddings to answers."""
        return self._known("classifier_").classifier

    @property
    def support_(self) -> Support | None:
        """The support images, if kept."""
        return self._known("support_").support

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted labels, (n_classes,)."""
        return self._known("classes_").classifier.classes_

    @property
    def n_support_(self) -> NDArray[np.int64]:
        """Support images of each class, (n_classes,)."""
        return self._known("n_support_").classifier.n_support_

    def _make_embedder(self) -> Embedder:
        if self.on_error not in ON_ERROR:
            raise UnknownNameError("on_error", self.on_error, ON_ERROR)
        made = make_embedder(
            self.backbone,
            self.weights,
            self.pretrained,
            self.img_size,
            self.device,
            self.cache,
            self.progress,
            self.bits,
            self.max_pixels,
        )
        return made.set_params(on_error=on_unread(self.on_error))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        embedder = self.backbone if isinstance(self.backbone, (Embedder, OwnEmbedder)) else Embedder()
        tags.input_tags = embedder.__sklearn_tags__().input_tags
        return tags

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class of each image; `unknown_label` for one that cannot be read, unless ``on_error="raise"``.

        Parameters
        ----------
        X : collection of n images
            Queries.

        Returns
        -------
        ndarray of shape (n,)
            Labels as they were given.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read and ``on_error="raise"``.
        """
        now = copy.copy(self)  # of this moment, whatever is learned while images are embedded
        return now.answering().predict(now.embed_queries(X).embeddings)

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the probability of each class in the order of ``classes_``, (n, n_classes); see `predict`."""
        now = copy.copy(self)
        return now.answering().predict_proba(now.embed_queries(X).embeddings)

    def nearest(self, X: Any, k: int = 1) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return labels and similarities (n, k) of the nearest keys: prototypes, or support where it is kept as keys.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        """
        now = copy.copy(self)
        return now.answering().nearest(now.embed_queries(X).embeddings, k)

    def score(self, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of images, or of `LabeledImages`, that are answered with their labels."""
        items, labels = labelled(X, y, self.embedder_.as_items)
        return super().score(items, labels, sample_weight)

    def answering(self, on_error: str | None = None) -> FewShotClassifier:
        """Return a copy of the classifier with the parameters of now, which may have been set since it was fitted."""
        check_is_fitted(self)
        return self.classifier_.view(
            index=self.index,
            on_invalid=on_invalid(on_error or self.on_error),
            reject=self.reject,
            unknown_label=self.unknown_label,
        )

    def embed_queries(self, X: Any, on_error: str | None = None, thumbnails: bool = False) -> Embedded:
        """Return the embeddings of queries; unreadable ones are treated as `on_error`, or the model's own, says."""
        check_is_fitted(self)
        # Without a warning: each unreadable query is answered "unknown", which is what was asked for.
        return self.embedder_.embed(X, thumbnails=thumbnails, on_error=on_unread(on_error or self.on_error))

    def save(self, folder: str | Path, *, weights: str | None = None, overwrite: bool = False) -> None:
        """Write the classifier to a folder of JSON and safetensors, or replace the one that is there.

        Weights, preprocessing, statistics, labels and kept support are all in it. The folder is replaced in one step:
        a failure leaves what was there. Writers of one folder, threads and processes, follow each other.

        Parameters
        ----------
        folder : path
            New, empty, or one that `save` has written.
        weights : {"embed", "reference"}, optional
            Whether the network's weights are written, or only the name of the pretrained backbone and the hash of its
            weights, which must then be found where the folder is loaded; a custom embedder is given to `load`. By
            default as it was loaded, else ``embed``, and of an `OwnEmbedder`, which has none, ``reference``.
        overwrite : bool, default=False
            Whether to replace the folder also where somebody else has written it since this classifier was loaded from
            it or last saved to it. A classifier that has never been there replaces what is there in any case.

        Raises
        ------
        ArtifactError
            If the folder holds something else, or has changed meanwhile.
        InUseError
            If somebody else is writing it for longer than a minute.
        ValueError
            If the network was made by hand, so that no file can say how to build it, or its weights are to be found
            by a name that they have not.

        Examples
        --------
        >>> import tempfile
        >>> from fewshot import Embedder, FewShotImageClassifier, digits
        >>> data, folder = digits(), tempfile.mkdtemp()
        >>> model = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=28))
        >>> model.fit(data.images[:5], data.labels[:5]).save(folder)
        >>> FewShotImageClassifier.load(folder).partial_fit(data.images[5:9], data.labels[5:9]).save(folder)
        >>> model.is_saved_in(folder)
        False
        >>> model.save(folder, overwrite=True)
        """
        check_is_fitted(self)
        with writing(folder, "classifier"):  # so that of two threads the later one writes what both have learned
            now = copy.copy(self)
            stored = weights or ("reference" if isinstance(now.embedder_, OwnEmbedder) else now._stored)
            known = {} if overwrite else now._versions
            self._versions = {**now._versions, **saving.save(now, folder, stored, known)}
            self._stored = stored

    def is_saved_in(self, folder: str | Path) -> bool:
        """Whether a folder still holds what this classifier was loaded from there, or last saved there."""
        version = self._versions.get(os.path.realpath(folder))
        return version is not None and version == version_of(folder)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", embedder: Any = None) -> Self:
        """Return a classifier that `save` has written; it answers as it did, up to float32 rounding on other machines.

        The folder may come from a stranger: whatever it holds, loading it runs none of its code, fetches nothing, and
        reads and writes no other files. It can answer wrongly, though, and takes memory and time as its size: digests
        show damage, and are no signature. All of it is read into memory, so the folder may change afterwards.

        Parameters
        ----------
        folder : path
            The folder.
        device : str, default="auto"
            Where to embed.
        embedder : Embedder or OwnEmbedder, optional
            The one that it was fitted with, where no file can say how to make that.

        Raises
        ------
        ArtifactError
            If the folder is none of these, damaged, holds what no classifier has, or was written by a newer version;
            if the embedder is another, or the weights that it only names are not on this machine.
        """
        return saving.load(cls, folder, device, embedder)
