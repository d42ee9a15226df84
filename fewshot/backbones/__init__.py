"""Image networks that timm does not carry, registered with timm; `create_backbone` makes any of them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from torch import nn

from fewshot.errors import MissingExtraError, UnknownNameError
from fewshot.randomness import seeded


def create_backbone(name: str, *, seed: int = 0, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Create an image network without a classification layer, its output the embedding.

    Parameters
    ----------
    name : str
        ``"conv4"``, ``"resnet12"`` or any name that timm knows.
    seed : int, default=0
        Seed of the initial weights; the caller's random state is left alone.
    pretrained : bool, default=False
        Whether timm loads weights from its hub.
    **kwargs
        For the network, e.g. ``in_chans=1``, ``img_size=28``.

    Returns
    -------
    nn.Module
        In *evaluation* mode (timm returns networks in training mode).

    Raises
    ------
    UnknownNameError
        If there is no such network; the message proposes the nearest names.
    MissingExtraError
        If torch and torchvision are not of one build.

    Examples
    --------
    >>> import torch
    >>> from fewshot import create_backbone
    >>> create_backbone("conv4", in_chans=1, img_size=28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """
    timm = _import_timm()
    if not timm.is_model(name):
        raise UnknownNameError("backbone", name, timm.list_models())
    with seeded(seed):
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs)
    return model.eval()


def _import_timm() -> Any:
    try:
        import timm

        for module in pkgutil.iter_modules(__path__):  # they register themselves
            importlib.import_module(f"{__name__}.{module.name}")
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise MissingExtraError(
            "torch and torchvision are of different builds; install both together in a fresh environment: "
            "pip install --force-reinstall torch torchvision"
        ) from error
    return timm
