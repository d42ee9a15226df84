"""Image networks that timm does not carry, registered with timm; `create_backbone` makes any of them."""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

from torch import nn

from fewshot.embedding.backbones.arguments import arguments_of, fault_of
from fewshot.embedding.backbones.published import (
    CONFIG,
    FOLDER,
    HUB,
    WEIGHTS,
    cached,
    check_reachable,
    folder_of,
    has_weights,
    is_path,
    no_weights,
    parse_name,
    read_config,
)
from fewshot.embedding.budget import within_budget
from fewshot.errors import DownloadError, MissingExtraError, UnknownNameError
from fewshot.utils.isolation import isolated
from fewshot.utils.randomness import seeded


@isolated(gradients=True)
def create_backbone(name: str, *, seed: int = 0, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Create an image network without a classification layer, its output the embedding.

    Parameters
    ----------
    name : str
        ``"conv4"``, ``"resnet12"`` or any name that timm knows; a repository of the Hugging Face hub
        (``hf-hub:OWNER/NAME``, or ``timm/NAME``), or a folder in its layout (``local-dir:PATH``).
    seed : int, default=0
        Seed of the initial weights; the caller's random state is left alone.
    pretrained : bool, default=False
        Whether weights are loaded, from the hub unless they were fetched before.
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
    ValueError
        If a repository or folder holds no network of timm, or one with arguments that no file may give.
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
    timm = check_backbone(name)
    asked, name, arguments = _asked(timm, name, pretrained)
    kwargs = {**arguments, **kwargs}
    overlay = {}
    # A file that is here already is read as it is: the hub is not asked whether there is a newer one.
    if asked == name and pretrained and (path := cached_file(name)) and "pretrained_cfg_overlay" not in kwargs:
        overlay = {"pretrained_cfg_overlay": {"file": path}}
    try:
        with seeded(seed):
            model: nn.Module = timm.create_model(asked, pretrained=pretrained, num_classes=0, **kwargs, **overlay)
    except OSError as error:
        raise DownloadError(no_weights(asked, str(error).partition("\n")[0])) from error
    except RuntimeError as error:
        if asked == name:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{asked} does not hold the weights of {name!r}, as it says ({reason:.200})") from error
    # Whatever it was asked by: from a plain name and these arguments a file can tell how to build it.
    model.fewshot_spec = {"name": name, "kwargs": kwargs}  # type: ignore[assignment]
    # timm leaves here what its own weights were trained on, whatever it was asked for.
    config: Any = model.pretrained_cfg
    size = kwargs.get("img_size") or config["input_size"][1:]
    seen = (kwargs.get("in_chans", config["input_size"][0]), *((size, size) if isinstance(size, int) else size))
    model.pretrained_cfg = {**config, "input_size": seen}  # type: ignore[assignment]
    return model.eval()


def check_backbone(name: str) -> Any:
    """Refuse a name that means no network, without asking the hub, and return timm.

    Raises
    ------
    UnknownNameError
        If there is no such network; the message proposes the nearest names.
    ValueError
        If it is a path, names no repository of the hub, or a folder that is not there.
    """
    timm = _import_timm()
    if is_path(name):
        raise ValueError(f"{name} is a path, and the name of a network is expected; a checkpoint goes to Embedder")
    kind, rest = _parse(timm, name)
    if kind == FOLDER:
        folder_of(kind, rest)
    elif not kind:
        if not timm.is_model(rest):
            raise UnknownNameError("backbone", name, timm.list_models())
        try:
            timm.get_pretrained_cfg(rest)
        except RuntimeError:  # the part after the dot
            raise UnknownNameError("backbone", name, timm.list_pretrained(f"{rest.partition('.')[0]}.*")) from None
    return timm


def files_of(name: str) -> list[Path]:
    """Return the files that a name stands for, whether they are there or not: those of a folder on disk."""
    kind, rest = parse_name(name)
    return [Path(rest).expanduser() / file for file in (CONFIG, *WEIGHTS)] if kind == FOLDER else []


def is_sized(name: str) -> bool:
    """Whether a network must know the size of its images."""
    timm = check_backbone(name)
    kind, rest = _parse(timm, name)
    if kind:
        return read_config(folder_of(kind, rest))[2]
    config = timm.get_pretrained_cfg(rest)
    return rest == "conv4" or (config is not None and config.fixed_input_size)


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
    found = (cached(config.hf_hub_id, file) for file in WEIGHTS)
    return next((str(path) for path in found if path is not None), None)


def _parse(timm: Any, name: str) -> tuple[str, str]:
    kind, rest = parse_name(name)
    # timm publishes networks under other names, too, and weights that are newer than what is installed.
    is_known = rest == name or rest in timm.list_models() or rest in timm.list_pretrained()
    return (kind, rest) if kind or is_known else (HUB, f"timm/{rest}")


def _asked(timm: Any, name: str, pretrained: bool) -> tuple[str, str, dict[str, Any]]:
    """Return what timm is asked for, and the plain name and the arguments of that network."""
    kind, rest = _parse(timm, name)
    if not kind:
        if pretrained:
            _check_hub(timm, rest)
        return rest, rest, {}
    try:
        folder = folder_of(kind, rest)
    except DownloadError as error:
        if (plain := rest.removeprefix("timm/")) == rest or timm.is_model(plain):
            raise
        raise UnknownNameError("backbone", plain, timm.list_models()) from error
    network, arguments, _ = read_config(folder)
    if not timm.is_model(network):
        raise UnknownNameError("backbone", network, timm.list_models())
    if fault := fault_of({"name": network, "kwargs": arguments}):
        raise ValueError(f"{name} cannot be built: {fault}")
    if kind == FOLDER or not pretrained or has_weights(folder):  # all that is wanted is here: nobody is asked
        return f"{FOLDER}:{folder}", network, arguments
    check_reachable(rest)
    return f"{kind}:{rest}", network, arguments


def _check_hub(timm: Any, name: str) -> None:
    """Refuse weights that nobody publishes, and at once those that cannot be reached."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(f"nobody publishes weights of {name!r}; train it with MetaTrainer, or give a file of weights")
    if config.hf_hub_id and not cached_file(name):  # else published elsewhere, or here already
        check_reachable(name)


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
