"""A network that the caller gives: which images it takes, and whether its classification layer is still there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fewshot.data.preprocess import Preprocessing
from fewshot.utils.warning import warn

#: Names that torchvision gives its classification layers.
_HEADS = ("fc", "classifier", "head", "heads")
#: Above so many channels, a first convolution is hardly one of images.
_FEW = 16


def preprocessing_of(network: nn.Module, img_size: int | None = None) -> Preprocessing:
    """Return the preprocessing of a network: that of its configuration, for as many channels as it takes.

    Parameters
    ----------
    network : nn.Module
        With timm's ``pretrained_cfg``, if it is one of timm's.
    img_size : int, optional
        Side of the images; its own by default.

    Raises
    ------
    ValueError
        If it takes images of other channels than 1 or 3.

    Warns
    -----
    UserWarning
        If its classification layer is still there.
    """
    config = getattr(network, "pretrained_cfg", None) or {}
    channels = _channels(network, config)
    if channels not in (None, 1, 3):
        raise ValueError(
            f"the network takes images of {channels} channels; expected 1 (grey) or 3 (red, green, blue), as "
            "in_chans=1 and in_chans=3 of timm make them"
        )
    if (cure := _head(network)) is not None:
        warn(
            "the network still has its classification layer, so its embeddings are the scores of classes that it was "
            f"trained on; take it off: {cure}"
        )
    if channels is not None:
        _, height, width = config.get("input_size", (3, 224, 224))
        config = {**config, "input_size": (channels, height, width)}
    return Preprocessing.of(config, img_size)


def _channels(network: nn.Module, config: Mapping[str, Any]) -> int | None:
    """Return the channels of the images that a network takes; None where that cannot be seen."""
    named = config.get("first_conv")
    for name in named if isinstance(named, (tuple, list)) else [named] if named else []:
        try:
            first = network.get_submodule(str(name))
        except AttributeError:
            continue
        if isinstance(first, nn.Conv2d):
            return first.in_channels
    first_of_all = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    return first_of_all.in_channels if first_of_all is not None and first_of_all.in_channels <= _FEW else None


def _head(network: nn.Module) -> str | None:
    """Return how the classification layer of a network is taken off; None where there is none to be seen."""
    get = getattr(network, "get_classifier", None)
    if callable(get) and getattr(network, "num_classes", False):
        head = get()
        return None if head is None or isinstance(head, nn.Identity) else "network.reset_classifier(0)"
    if type(network).__module__.startswith("torchvision.models."):
        name, last = list(network.named_children())[-1]
        if name in _HEADS and any(isinstance(part, nn.Linear) for part in last.modules()):
            return f"network.{name} = torch.nn.Identity()"
    return None
