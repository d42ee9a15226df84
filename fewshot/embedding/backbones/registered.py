"""Networks that the user registers by name, beside those of timm."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from fewshot.embedding.backbones.limits import is_plain_name
from fewshot.errors import brief
from fewshot.learners.registry import list_learners
from fewshot.utils.carried import Carried
from fewshot.utils.own_code import own_code
from fewshot.utils.values import check_count

#: What most published networks were trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos"]
_INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


@dataclass(frozen=True, eq=False)
class Registered:
    """A network by name: what makes it, how its images are prepared, and how many were registered before it."""

    factory: Callable[..., nn.Module]
    config: dict[str, Any]
    number: int

    @property
    def is_sized(self) -> bool:
        """Whether the factory takes the side of the images as ``img_size``."""
        try:
            return "img_size" in inspect.signature(self.factory).parameters
        except ValueError:  # of a built-in
            return False

    def create(self, name: str, **kwargs: Any) -> nn.Module:
        """Build the network, as a copy, since a factory may return the same one again."""
        made = self.factory(**kwargs)
        if not isinstance(made, nn.Module):
            raise TypeError(f"the factory of {name!r} returned a {type(made).__name__}; expected a torch.nn.Module")
        network = copy.deepcopy(made)
        network.fewshot_spec = {"name": name, "kwargs": kwargs}  # type: ignore[assignment]
        network.pretrained_cfg = dict(self.config)  # type: ignore[assignment]
        return network


_REGISTERED: dict[str, Registered] = {}


def register_backbone(
    name: str,
    factory: Callable[..., nn.Module],
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
    size: int = 224,
    *,
    channels: int = 3,
    crop_pct: float = 1.0,
    interpolation: Interpolation = "bilinear",
) -> None:
    """Give a network of your own a name, by which it is embedded with, saved, and built again when it is loaded.

    The name works wherever a backbone is named: `Embedder`, `FewShotImageClassifier`, `create_backbone`,
    `MetaTrainer`. Its weights are those that the factory returns, unless ``weights=`` names a file. A saved model holds
    weights and preprocessing, but no code: register the network again, before the model is loaded in another process.
    On the command line, ``--plugin FILE.py`` runs a file that does so. A pickled estimator that holds the name brings
    the factory along if that can be pickled, so that ``n_jobs=2`` of scikit-learn needs nothing.

    If its code changes, caches of embeddings and grids compute again, and training that resumes or a saved model that
    answers differently says so. `Embedder.fingerprint` does not change, by which a store knows its vectors: embed them
    again, or give a changed network another name.

    Parameters
    ----------
    name : str
        Letters, digits, ``_`` and ``.``; not that of a network of timm or fewshot. The same name replaces the factory.
    factory : callable
        ``factory()`` returns a ``torch.nn.Module`` that maps images (n, channels, size, size) to embeddings (n, d);
        such as the class itself. If it takes ``img_size``, that of the embedder is passed on. Maps of features, for
        ``Embedder(pool=None)`` and learners such as `DN4Learner`, are what its method ``forward_features(images)``
        returns, (n, d, h, w).
    mean, std : float or sequence of float
        Normalisation of pixels in 0..1, for all channels or for each; by default that of ImageNet.
    size : int, default=224
        Side of the images.
    channels : {3, 1}, default=3
        Colour or grey images.
    crop_pct : float, default=1.0
        How much of a centre crop is kept, if images are cropped.
    interpolation : {"bilinear", "bicubic", "nearest", "lanczos"}, default="bilinear"
        How images are scaled.

    Raises
    ------
    ValueError
        If the name is not plain or that of another network, or a number is out of range.
    TypeError
        If `factory` cannot be called.

    Examples
    --------
    >>> from torch import nn
    >>> from fewshot import FewShotImageClassifier, digits, register_backbone
    >>> def tiny():
    ...     return nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    >>> register_backbone("tiny", tiny, mean=0.5, std=0.5, size=28, channels=1)
    >>> data = digits()
    >>> FewShotImageClassifier("tiny", progress=False).fit(data[:50]).embedder_.transform(data.images[:2]).shape
    (2, 32)
    """
    import timm

    from fewshot.embedding.backbones import networks as networks  # registers conv4 and resnet12 with timm

    if not is_plain_name(name):
        raise ValueError(f"name is {brief(repr(name))}; expected letters, digits, '_' and '.', such as 'my_net'")
    if timm.is_model(name):
        raise ValueError(f"{name!r} is a network of timm or fewshot; choose another name, such as 'my_net'")
    if not callable(factory):
        raise TypeError(
            f"factory is a {type(factory).__name__}; expected a function or class that makes the network, such as "
            "lambda: network"
        )
    if isinstance(factory, nn.Module):
        raise TypeError("factory is a network; pass what makes it: its class, or lambda: network")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; expected 1 (grey) or 3 (red, green, blue)")
    if interpolation not in _INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}; expected {', '.join(map(repr, _INTERPOLATIONS))}")
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct is {crop_pct!r}; expected above 0, at most 1")
    scale = _of_channels("std", std, channels)
    if not all(value > 0 for value in scale):
        raise ValueError(f"std is {std!r}; expected numbers above 0")
    config = {
        "input_size": (channels, check_count("size", size), size),
        "mean": _of_channels("mean", mean, channels),
        "std": scale,
        "crop_pct": float(crop_pct),
        "interpolation": interpolation,
        "num_classes": 0,
    }
    _add(name, factory, config)


def _add(name: str, factory: Callable[..., nn.Module], config: dict[str, Any]) -> None:
    number = max((one.number for one in _REGISTERED.values()), default=0) + 1
    _REGISTERED[name] = Registered(factory, config, number)


class CarriedBackbone(Carried):
    """The name of a backbone, pickled with the factory and the preprocessing if it was registered by hand."""

    @classmethod
    def of(cls, backbone: object) -> CarriedBackbone | None:
        """Return it for the name of a backbone; None for a network, a path or an embedder.

        Examples
        --------
        >>> CarriedBackbone.of("resnet18").name
        'resnet18'
        """
        return cls(backbone) if isinstance(backbone, str) else None

    @classmethod
    def names(cls) -> list[str]:
        """Return all names that are registered."""
        return registered_names()

    def find(self) -> Any:
        """Return the factory and the preprocessing; None if nothing is registered."""
        found = _REGISTERED.get(self.name)
        return None if found is None else (found.factory, found.config)

    def known(self) -> Registered | None:
        """Return what is registered, once plug-ins are loaded."""
        return find_registered(self.name, in_plugins=True)

    def register(self, found: Any) -> None:
        """Register the factory and the preprocessing."""
        _add(self.name, *found)


def find_registered(name: str, *, in_plugins: bool = False) -> Registered | None:
    """Return what is registered by this name; None if nothing is. Plug-ins may register it, once they are loaded."""
    if in_plugins and name not in _REGISTERED:
        list_learners()
    return _REGISTERED.get(name)


def network_code(network: nn.Module) -> str:
    """Return a digest of the own code that makes a network and computes with it; empty if there is none."""
    made = _REGISTERED.get((getattr(network, "fewshot_spec", None) or {}).get("name", ""))
    return own_code([*{type(part) for part in network.modules()}, *([] if made is None else [made.factory])])


def registered_names() -> list[str]:
    """Return all names that are registered."""
    return sorted(_REGISTERED)


def _of_channels(name: str, given: float | Sequence[float], channels: int) -> tuple[float, ...]:
    """Return a number for each channel."""
    values = tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),)
    values = values * channels if len(values) == 1 else values
    if len(values) == 3 and channels == 1:
        values = (sum(values) / 3,)  # of grey images, as timm does
    if len(values) != channels or not all(value == value and abs(value) < 1e6 for value in values):
        raise ValueError(f"{name} is {given!r}; expected one number, or {channels}")
    return values
