"""The `Embedder`: a scikit-learn transformer from images to embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from operator import is_
from pathlib import Path
from typing import Any, Literal, Self, get_args
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import InputTags, Tags
from torch import nn

from fewshot.data.crop import AUTO, CROP_NAMES, Crop
from fewshot.data.images import LabeledImages
from fewshot.data.opening import as_sequence, check_paths
from fewshot.data.preprocess import MAPS, Preprocessing, check_bits
from fewshot.data.views import check_views
from fewshot.embedding.backbones.presets import located
from fewshot.embedding.backbones.registered import CarriedBackbone
from fewshot.embedding.base import BaseEmbedder
from fewshot.embedding.cache import EmbeddingCache, embed_through
from fewshot.embedding.checkpoint import Checkpoint
from fewshot.embedding.domain import Domain
from fewshot.embedding.maps import Shape
from fewshot.embedding.network import Embedded, Loaded, choose_device, draw_items, embed_items, prepare_items
from fewshot.embedding.sources import Source, is_trained_here, preprocessing_of, spelled, warn_of_pixels
from fewshot.errors import ArtifactError, ImageDecodeError, brief
from fewshot.utils.carried import carrying, unloaded
from fewshot.utils.isolation import isolated
from fewshot.utils.pickling import with_new_parameters
from fewshot.utils.values import ON_ERROR, OnError, check_name

Pool = Literal["auto", "salient"]
POOLS: tuple[Pool, ...] = get_args(Pool)
#: The largest values of parameters.
_MOST = {"batch_size": 2**20, "n_jobs": 1024, "img_size": 2**14, "max_pixels": 2**40}
#: Loaded networks by source and device. Clones and copies of an embedder share one while any of them is alive.
_LOADED: WeakValueDictionary[Any, Loaded] = WeakValueDictionary()


class Embedder(BaseEmbedder):
    """Embed images of any kind with any timm backbone and its own preprocessing.

    The network is loaded when the first image is embedded. Clones share it. It is not pickled: a copy in another
    process loads the weights again and raises if they differ. Only a network passed as `backbone` is pickled with its
    weights, and a name that was given to `register_backbone` with its factory.

    Parameters
    ----------
    backbone : str, path or nn.Module, default="tf_efficientnet_lite0"
        A timm name (or ``conv4``, ``resnet12``); ``clip-base``, ``siglip2-base``, ``dinov2-small``, ``dinov3-small``
        or another of `fewshot.embedding.backbones.presets`, whose weights come from the hub; a repository of the
        Hugging Face hub (``hf-hub:OWNER/NAME``) or a folder in its layout (``local-dir:PATH``, which includes the
        weights); a checkpoint that `MetaTrainer` wrote; or a network. A string is a path if it ends in
        ``.safetensors`` or starts with ``./``, ``../``, ``~/`` or ``/``, whatever files exist. A network sees images as
        its ``pretrained_cfg`` says, which those of timm have: ``mean``, ``std``, ``crop_pct``, ``interpolation``. If
        that names no mean, its pixels are numbers from 0 to 1, and a warning tells how to have them normalised, unless
        `MetaTrainer` has trained it.
    weights : path, {"offline", "random"} or None, default=None
        A local file (safetensors, or a torch state dict); "offline" for the package of the extra `offline`, the default
        of ``tf_efficientnet_lite0``, ``1`` and ``2``; or "random" for an untrained network.
    pretrained : bool, default=False
        Whether timm loads the weights from the hub, or from its local cache.
    img_size : int, optional
        Side of the network's input images; by default the network's own.
    device : str, default="auto"
        ``auto`` uses a GPU if there is one. A network passed as `backbone` stays on its device.
    batch_size : int, optional
        Images per forward pass; by default 4 of 224 x 224 pixels on a CPU, 64 elsewhere, and proportionally more
        smaller ones. Embeddings do not depend on it, up to float32 rounding.
    n_jobs : int, optional
        Decoding threads; by default two per core, at most 16.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        "raise" raises if an image cannot be read; the other two return a row of NaN, with a warning.
    cache : path, optional
        A folder of embeddings by image content and fingerprint, which several processes may share. An image is embedded
        once, whatever its name.
    bits : int, optional
        The range of 16-bit images, 0..2**bits - 1, if the files do not specify it; see `fewshot.data.decode`. The
        default guesses it for each image separately, with a warning. It is part of the fingerprint and saved with
        classifiers.
    max_pixels : int, optional
        Larger images are refused; by default ``$FEWSHOT_MAX_PIXELS``, or 268435456, enough for photographs of 200
        megapixels.
    crop : {"auto", "adaptive", "center", "pad", "squash", "tiles"} or None, default="auto"
        What the network sees of an image that is not square. ``center`` is its middle; ``pad`` is all of it, between
        grey borders; ``squash`` is all of it, out of proportion. ``tiles`` are all of it and up to five overlapping
        squares along it: the embedding is the mean of that of the whole and of the largest numbers of the squares,
        each of which takes the time of an image. ``adaptive`` is ``tiles`` for images that are over twice as long as
        wide, and ``pad`` for others. None is what the network was trained or published with. "auto" is the same for
        networks that `MetaTrainer` trained and those that are not published for the middle, and ``adaptive`` for all
        others. Square images have the same embedding under every crop. The crop is part of the fingerprint and saved
        with classifiers.
    views : str, optional
        More than one look at each image, averaged. ``mirror`` adds its mirror image (twice the time), ``scales`` all of
        it or, if that is seen anyway, its middle (twice), and ``shifts`` four small ones (five times); "+" joins them,
        as in "mirror+scales", and multiplies their time. Tiles are mirrored and shifted too. They are part of the
        fingerprint and saved with classifiers.
    pool : {"auto", "salient"} or None, default="auto"
        How the features of places become an embedding. "auto" is the network's own way, for most their mean. "salient"
        is a mean in which the places count that differ from the rest of the image: for small objects in large scenes
        only, since it costs much accuracy where objects fill the image (`benchmarks/small_objects.py`).
        None keeps the map of features, for learners of local descriptors such as `DN4Learner`, which set it themselves:
        of convolutional networks of timm the last map, of vision transformers the patch tokens. A map takes as many
        times the memory as it has places, 49 at 224 pixels: 250 KB an image for the default network, also in the cache,
        and twice that in what a classifier has learned. It allows no views and no tiles, and "auto" as crop is ``pad``
        then. `pool` is part of the fingerprint and saved with classifiers.
    progress : bool, default=True
        Whether work that takes more than two seconds shows a progress bar on standard error.
    domain : Domain or path, optional
        Maps the embeddings of the network; see `adapt`. It is part of the fingerprint and saved with classifiers.

    Attributes
    ----------
    fingerprint : str
        SHA-256 of weights, preprocessing and domain. Embeddings with equal fingerprints are comparable.
    map_shape : tuple of int or None
        Rows, columns and features of a map; None unless it is kept.

    Raises
    ------
    ValueError
        At first use, as in scikit-learn, if a parameter is out of range or the source of the weights is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import Embedder
    >>> embedder = Embedder("conv4", weights="random", img_size=28)
    >>> embedder.transform([np.zeros((60, 40, 3), np.uint8), np.zeros((9, 9), np.uint8)]).shape
    (2, 64)
    >>> Embedder("conv4", weights="random", img_size=32, pool=None).transform([np.zeros((60, 40, 3), np.uint8)]).shape
    (1, 4, 64)
    """

    _shared = ("_ready", "_expected", "_found")
    #: The parameters for which the network was loaded, then its source and device, then the network.
    _ready: tuple[tuple[Any, ...], tuple[Source, torch.device] | None, Loaded | None] = ((), None, None)

    def __init__(
        self,
        backbone: str | Path | nn.Module = "tf_efficientnet_lite0",
        *,
        weights: str | Path | None = None,
        pretrained: bool = False,
        img_size: int | None = None,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        n_jobs: int | None = None,
        on_error: OnError = "raise",
        cache: str | Path | None = None,
        bits: int | None = None,
        max_pixels: int | None = None,
        crop: Crop | None = AUTO,
        views: str | None = None,
        pool: Pool | None = AUTO,
        progress: bool = True,
        domain: Domain | str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.pretrained = pretrained
        self.img_size = img_size
        self.device = device
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.cache = cache
        self.bits = bits
        self.max_pixels = max_pixels
        self.crop = crop
        self.views = views
        self.pool = pool
        self.progress = progress
        self.domain = domain

    def embed(self, X: Any, *, thumbnails: bool = False, on_error: OnError | None = None) -> Embedded:
        """Return the embeddings of images, the errors of unreadable ones, and thumbnails on request.

        Parameters
        ----------
        X : collection of n images
            A list, array or Series of paths, bytes, data URLs, open files, PIL images, arrays and tensors; one uint8
            array (n, h, w) or (n, h, w, c); or `LabeledImages`.
        thumbnails : bool, default=False
            Whether to make thumbnails of the network's input.
        on_error : {"raise", "skip", "unknown"}, optional
            Overrides the parameter for this call. Then no warning is issued; check ``errors``.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read and `on_error` is "raise". All paths are checked before any image is decoded.
        OutOfMemoryError, ReadError
            If memory, file handles or the disk fail, whatever `on_error` is, because the image may be intact.
        TypeError
            If X is a single image, or not a collection of images.
        """
        self._check_parameters()
        items, action = self.as_items(X), check_name("on_error", on_error or self.on_error, ON_ERROR)
        try:
            if action == "raise":
                for error in check_paths(items):
                    raise error
            embedded = self._embed(items, thumbnails, action)
            if self.domain is not None:
                embedded = self._mapped(embedded, self._load().fingerprint)
        except ImageDecodeError as error:
            if error.can_skip:
                error.add_note('on_error="skip" continues without such images')
            raise
        if on_error is None:
            embedded.warn()
        return embedded

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embeddings (n, d) of a collection of n images, or their maps (n, h * w, d) if these are kept."""
        rows, shape = super().transform(X), self.map_shape
        return rows if shape is None else rows.reshape(len(rows), shape[0] * shape[1], shape[2])

    def prepare(self, X: Any, *, thumbnails: bool = False) -> Sequence[Any]:
        """Return images, decoded and scaled, to embed in place of `X`, perhaps on another thread, by ``embed``.

        Errors of unreadable images are told there, and thumbnails are made here. With a cache, which knows images by
        their bytes, nothing is decoded.

        Examples
        --------
        >>> embedder = Embedder("conv4", weights="random", img_size=28)
        >>> embedder.embed(embedder.prepare([np.zeros((9, 9), np.uint8)])).embeddings.shape
        (1, 64)
        """
        items = self.as_items(X)
        return (
            items if self.cache is not None else prepare_items(self._load(), items, self.n_jobs, thumbnails=thumbnails)
        )

    @staticmethod
    def as_items(X: Any) -> Sequence[Any]:
        """Return a collection of images as a sequence of sources for `decode`.

        Raises
        ------
        TypeError
            If it is a single image, or not a collection of images.
        """
        return X.images if isinstance(X, LabeledImages) else as_sequence(X)  # type: ignore[return-value]

    def load(self, checkpoint: Checkpoint | None = None) -> Self:
        """Load the network now; `checkpoint` is the backbone's checkpoint if it is already open."""
        self._load(checkpoint)
        return self

    def probe(self) -> NDArray[np.float32]:
        """Return the embedding of an image of one pixel, below any limit, to see whether the network works."""
        loaded = self._load()
        # Folding batch norms, as for the user's images, takes longer than this forward pass.
        unfolded = Loaded(loaded.network, loaded.preprocessing)
        found = embed_items(unfolded, [np.array([[[10, 100, 200]]], np.uint8)])
        return (found if self.domain is None else self._mapped(found, loaded.fingerprint)).embeddings[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, preprocessing and domain."""
        return self._extended(self._load().fingerprint)

    @property
    def code(self) -> str:
        """Digest of the network's code, as far as it is somebody's own; empty text if it is of packages."""
        return self._load().code

    @property
    def identity(self) -> str:
        """SHA-256 of architecture, own code, weights, preprocessing and domain."""
        return self._extended(self._load().identity)

    @property
    def network(self) -> nn.Module:
        """The network, which is loaded if necessary. Clones share it: to change it, pass a changed copy as backbone."""
        return self._load().network

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for the network."""
        return self._load().preprocessing

    @property
    def map_shape(self) -> Shape | None:
        """Rows, columns and features of a map; None unless it is kept."""
        return self._load().map_shape

    @property
    def _n_features_out(self) -> int:
        return self._embed([], False, "raise").embeddings.shape[1]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # Paths, or stacked or listed images of three dimensions.
        tags.input_tags = InputTags(one_d_array=True, two_d_array=False, three_d_array=True, string=True)
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in super().__getstate__().items() if k != "_ready"}
        _, found_at, loaded = self._ready
        if found_at is not None and loaded is not None:
            state["_expected"] = found_at[0], loaded.fingerprint
        return carrying(state, CarriedBackbone.of(self.backbone))

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {"crop": None, **unloaded(state)}  # older versions had no other
        super().__setstate__(with_new_parameters(type(self), state))

    def _source(self) -> Source:
        weights = None if self.weights is None else spelled(self.weights)
        backbone = spelled(self.backbone)  # type: ignore[arg-type]
        own = self.img_size, self.bits, self.max_pixels, self.crop, check_views(self.views), self._pool
        name, pretrained = located(backbone, self.pretrained, weights)
        return Source(name, weights, pretrained, *own)

    def _check_parameters(self) -> tuple[Any, ...]:
        """Return the parameters; raise if one is invalid, unless the network was loaded for exactly these."""
        known, given = self._ready[0], tuple(v for k, v in vars(self).items() if not k.startswith("_"))
        if known and all(map(is_, known, given)):
            return known
        check_name("on_error", self.on_error, ON_ERROR)
        check_bits(self.bits)
        if self.crop is not None:
            check_name("crop", self.crop, CROP_NAMES)
        check_views(self.views)
        self._check_pool()
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, (int, np.integer)) or not 1 <= value <= most):
                raise ValueError(f"{name} is {brief(repr(value))}; expected a whole number from 1, at most {most}")
        if isinstance(self.backbone, nn.Module):
            if self.weights is not None or self.pretrained:
                raise ValueError("a network passed as backbone already has weights; omit weights and pretrained")
        elif not isinstance(self.backbone, (str, os.PathLike)):
            raise TypeError(
                f"backbone is {brief(repr(self.backbone))}; expected a timm name, the path of a checkpoint or a network"
            )
        else:
            self._source().check()
        return given

    @property
    def _pool(self) -> str | None:
        """The parameter as `Preprocessing` takes it."""
        return MAPS if self.pool is None else None if self.pool == AUTO else self.pool

    def _check_pool(self) -> None:
        if self.pool is not None:
            check_name("pool", self.pool, POOLS)
        elif self.domain is not None:
            raise ValueError(
                "domain maps embeddings of whole images, and pool=None, which learners of local descriptors such as "
                "dn4 set, keeps those of places; give one of them"
            )
        elif self.views is not None or self.crop in ("tiles", "adaptive"):
            given = f"views={self.views!r}" if self.views is not None else f"crop={self.crop!r}"
            raise ValueError(
                f"{given} would average different places of an image, which pool=None keeps apart; leave it out"
            )

    def _load(self, checkpoint: Checkpoint | None = None) -> Loaded:
        given, (known, known_at, loaded) = self._check_parameters(), self._ready
        if isinstance(self.backbone, nn.Module):
            seen = preprocessing_of(self.backbone, self.img_size)
            crop = None if self.crop == AUTO and is_trained_here(self.backbone) else self.crop
            return Loaded(
                self.backbone,
                seen.changed(
                    bits=self.bits,
                    max_pixels=self.max_pixels,
                    crop=crop,
                    views=self.views,
                    pool=self._pool,
                ),
            )
        if loaded is None or known is not given:
            source, device = self._source(), choose_device(self.device)
            # The network stays until its source or device changes, even if the file is replaced.
            if loaded is None or known_at != (source, device):
                loaded = self._find(source, device, checkpoint)
            self._ready = given, (source, device), loaded
        return loaded

    def _find(self, source: Source, device: torch.device, checkpoint: Checkpoint | None) -> Loaded:
        stamps = source.stamps() if checkpoint is None else (checkpoint.stamp, None, (source.registration(), 0))
        key = (source, device, stamps)
        loaded = _LOADED.get(key)
        if loaded is None:
            with isolated(gradients=True):  # inference tensors could never be trained
                network, preprocessing = source.load(checkpoint)
                loaded = _LOADED[key] = Loaded(network.requires_grad_(False).to(device), preprocessing, True)
        saved_source, expected = self.__dict__.get("_expected", (None, ""))
        if saved_source == source and loaded.fingerprint != expected:
            raise ArtifactError(
                f"the weights or preprocessing of {self.backbone!r} differ from those that this embedder was saved "
                f"with ({loaded.fingerprint[:12]}, expected {expected[:12]}); install the same weights"
            )
        return loaded

    def _embed(self, items: Any, thumbnails: bool, on_error: OnError) -> Embedded:
        loaded = self._load()
        if len(items) and isinstance(self.backbone, nn.Module):
            warn_of_pixels(self.backbone)
        embed = partial(
            embed_items,
            loaded,
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            on_error=on_error if self.cache is None else "skip",  # embed and cache the readable images first
            progress=self.progress,
            thumbnails=thumbnails,
        )
        if self.cache is None:
            return embed(items)
        cache, draw = EmbeddingCache(self.cache, loaded.cache_key), partial(draw_items, loaded, n_jobs=self.n_jobs)
        embedded = embed_through(cache, items, embed, draw if thumbnails else None, self.n_jobs)
        if embedded.errors and on_error == "raise":
            raise embedded.errors[0]
        return embedded
