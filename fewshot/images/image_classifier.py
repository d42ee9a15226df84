"""The few-shot model for images: it creates its embedder from the name of a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from sklearn.base import clone
from sklearn.utils import Tags
from torch import nn

from fewshot.data.crop import AUTO, Crop
from fewshot.embedding.backbones.registered import CarriedBackbone
from fewshot.embedding.domain import Domain
from fewshot.embedding.embedder import Embedder, Pool
from fewshot.embedding.own import OwnEmbedder
from fewshot.images.model import FewShotModel
from fewshot.images.saving import Saved
from fewshot.learners.base import Learner
from fewshot.search.snapshot import Index
from fewshot.utils.carried import carrying
from fewshot.utils.values import OnError


class FewShotImageClassifier(FewShotModel):
    """Learn classes from a few images each, classify, keep learning, and save everything in one folder.

    A `FewShotModel` that takes the parameters of an `Embedder` instead of an embedder.

    Parameters
    ----------
    backbone : str, path, nn.Module, Embedder or OwnEmbedder, default="tf_efficientnet_lite0"
        A timm name, a checkpoint of `MetaTrainer`, a network, or an embedder. A network without ``pretrained_cfg`` sees
        pixels from 0 to 1, with a warning; see `Embedder`.
    learner : str, Learner or None, default=None
        A registered name or a learner. By default the learner that a checkpoint was trained with; for other backbones
        `DiscriminantLearner`.
    weights, pretrained, img_size, device, cache, bits, max_pixels, crop, views, pool, domain
        As for `Embedder`; omit if `backbone` is one.
    on_error, reject, unknown_label, index, keep_support
        As for `FewShotModel`.
    progress : bool, default=True
        Whether to show a progress bar on standard error.

    Attributes
    ----------
    classes_, n_support_, embedder_, classifier_, support_, calibration_
        As for `FewShotModel`.

    Examples
    --------
    >>> from fewshot import FewShotImageClassifier, digits
    >>> data = digits()
    >>> model = FewShotImageClassifier("conv4", weights="random", img_size=28, progress=False)
    >>> model = model.fit(data.images[:50], data.labels[:50])
    >>> model.predict(data.images[50:53]).shape
    (3,)
    """

    def __init__(
        self,
        backbone: str | Path | nn.Module | Embedder | OwnEmbedder = "tf_efficientnet_lite0",
        learner: str | Learner | None = None,
        *,
        weights: str | Path | None = None,
        pretrained: bool = False,
        img_size: int | None = None,
        device: str = "auto",
        on_error: OnError = "raise",
        reject: float | str | None = None,
        unknown_label: object = None,
        index: Index = "auto",
        keep_support: bool = True,
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
        self.crop = crop
        self.views = views
        self.pool = pool
        self.progress = progress
        self.domain = domain

    def make_embedder(self) -> Embedder | OwnEmbedder:
        """Return the embedder that `fit` would use."""
        given = ("weights", "pretrained", "img_size", "device", "cache", "bits", "max_pixels")
        names = (*given, "crop", "views", "pool", "domain", "progress")
        params = {name: getattr(self, name) for name in names}
        if not isinstance(self.backbone, (Embedder, OwnEmbedder)):
            return Embedder(self.backbone, **params)
        for name, value in params.items():
            if value not in (None, False, AUTO) and name not in ("device", "progress"):
                raise ValueError(f"{name} belongs to the Embedder that is given as backbone; set it there")
        return clone(self.backbone)

    def __sklearn_tags__(self) -> Tags:
        tags = super(FewShotModel, self).__sklearn_tags__()
        embedder = self.backbone if isinstance(self.backbone, (Embedder, OwnEmbedder)) else Embedder()
        tags.input_tags = embedder.__sklearn_tags__().input_tags
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return carrying(super().__getstate__(), CarriedBackbone.of(self.backbone))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"crop": None, **state})  # older versions had no other

    @classmethod
    def _with_parameters(cls, found: Saved, device: str) -> Self:
        learner, progress = found.learned.classifier.learner, found.learned.embedder.progress
        return cls(**found.source, learner=learner, device=device, progress=progress, **found.params)
