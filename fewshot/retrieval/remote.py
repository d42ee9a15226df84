"""A classifier that a running service answers for: `annotate`, `retrieve` and the retrievers take it as a model."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import as_sequence, describe, is_file, read_content, reading
from fewshot.errors import ImageDecodeError, ServiceError, brief
from fewshot.retrieval.annotation import Annotation
from fewshot.utils.labels import label_of_text

#: Most images, and bytes of base64, in a request, unless the service takes fewer.
MOST_IMAGES, MOST_BYTES = 64, 16 * 2**20
#: Most numbers of embeddings in a request.
MOST_NUMBERS = 2**18
#: Most classes whose probabilities a service tells.
MOST_CLASSES = 1000
#: Seconds to wait for an answer, and most times and seconds to wait while the service is busy.
PATIENCE, TRIES, LONGEST_WAIT = 120.0, 6, 10.0
#: Refusals that concern an image of the request, not the request.
_OF_AN_IMAGE = ("too_large", "unsupported", "unreadable_image")


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would show the token to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, eq=False)
class RemoteAnswer(Annotation):
    """What a service says of an image; its `id` is its place among those that were sent.

    Attributes
    ----------
    shares : dict
        Probabilities of the likeliest classes.
    """

    shares: dict[Any, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteModel:
    """The classifier of a running ``fewshot serve``, instead of a model, for `annotate`, `retrieve` and retrievers.

    Nothing is computed here: images are sent as they are, so that the answers are those of the classifier. A store of
    its vectors is ``FaissStore("cosine", model.about()["fingerprint"])``.

    Parameters
    ----------
    url : str
        Where the service is, such as ``"http://127.0.0.1:8000"``.
    token : str, optional
        The secret that the service asks for.
    version : str, optional
        Accept answers of this version only, so that all are of one classifier.

    Raises
    ------
    ValueError
        If `url` is no address of a service, or `token` is not printable ASCII.

    Examples
    --------
    >>> RemoteModel("http://127.0.0.1:8000/", token="secret")
    RemoteModel(url='http://127.0.0.1:8000', version=None)
    """

    url: str
    token: str | None = field(default=None, repr=False)
    version: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_url(self.url))
        if self.token is not None:  # as --token FILE does with the end of a line
            object.__setattr__(self, "token", self.token.strip())
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ValueError("token is not printable ASCII, which a header can hold; give that of the service")

    def about(self) -> dict[str, Any]:
        """Return what the service says of its classifier: version, d, fingerprint, metric, label_type and so on.

        Raises
        ------
        ServiceError
            If it cannot be reached, refuses, has learned nothing, or takes no images.
        """
        found = self._ask("model")
        if not found.get("classes"):
            raise ServiceError(f"{self.url} has learned nothing yet; teach it a class first", "empty")
        if not found["takes_images"]:
            raise ServiceError(f"{self.url} takes no images, because its classifier has an embedder of its own")
        if "label_type" not in found:
            raise ServiceError(f"{self.url} is an earlier version of fewshot; update it")
        return found

    def answers(self, items: Any, top: int = 1) -> list[RemoteAnswer]:
        """Return the answers to images: paths, bytes, data URLs or open files.

        Parameters
        ----------
        items : collection of n images
            The queries.
        top : int, default=1
            Of how many classes to return probabilities.

        Raises
        ------
        ServiceError
            If the service cannot be reached, or refuses.
        TypeError
            If `items` is a single image, or an image is neither a file nor the bytes of one.
        """
        about, found = self.about(), dict[int, RemoteAnswer]()
        for part in _parts(as_sequence(items), about, found):
            for place, answer in self._answered(part, top, about):
                found[place] = answer
        return [found[i] for i in range(len(found))]

    def answers_to(self, vectors: NDArray[np.float32]) -> list[RemoteAnswer]:
        """Return the answers to embeddings (n, d) that the service has computed, such as those of a store.

        Raises
        ------
        ServiceError
            If the service cannot be reached, or refuses.
        """
        about, found = self.about(), list[RemoteAnswer]()
        step = max(1, MOST_NUMBERS // about["d"])
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step]
            told = self._told("predict?top=1&explain=true", {"embeddings": part.tolist()})
            for place, (one, vector) in enumerate(zip(told["answers"], part, strict=True), start):
                found.append(_as_answer(place, {**one, "embedding": vector}, about, about["fingerprint"]))
        return found

    def predict(self, items: Any) -> NDArray[Any]:
        """Return the labels (n,) of n images, as the classifier gives them; `answers` tells more.

        Parameters
        ----------
        items : collection of n images
            Paths, bytes, data URLs or open files.

        Raises
        ------
        ImageDecodeError
            If the service cannot read an image; the first one is named.
        ServiceError
            If it cannot be reached, or refuses.
        """
        items = as_sequence(items)
        found = self.answers(items)
        for place, one in enumerate(found):
            if one.error:
                raise ImageDecodeError(describe(items[place]), one.error, place)
        labels = [one.label for one in found]
        return np.array(labels, None if len({type(label) for label in labels}) < 2 else object)

    def _answered(self, part: list[_Sent], top: int, about: dict[str, Any]) -> Iterator[tuple[int, RemoteAnswer]]:
        """Yield answers; if one image makes the service refuse all, ask again for halves."""
        body = {"images": [{"data": data, "name": name} for _, data, name in part]}
        try:
            told = self._told(f"predict?top={top}&explain=true&embeddings=true", body)
        except ServiceError as error:
            if error.code not in _OF_AN_IMAGE:
                raise
            if len(part) == 1:
                yield part[0][0], _unread(part[0][0], error.message, about["fingerprint"])
                return
            for half in (part[: len(part) // 2], part[len(part) // 2 :]):
                yield from self._answered(half, top, about)
            return
        for (place, _, _), one in zip(part, told["answers"], strict=True):
            yield place, _as_answer(place, one, about, told["fingerprint"])

    def _told(self, path: str, body: Any) -> Any:
        """Return answers, of the version that is asked for."""
        told = self._ask(path, body)
        if self.version not in (None, told["version"]):
            raise ServiceError(
                f"the classifier of {self.url} was changed meanwhile; undo that, or start the annotation again"
            )
        return told

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        request = Request(f"{self.url}/v1/{path}", data, headers)
        opener = build_opener(_NoRedirect, *([ProxyHandler({})] if _is_here(self.url) else []))
        for left in range(TRIES)[::-1]:
            try:
                with opener.open(request, timeout=PATIENCE) as response:
                    return json.load(response)
            except HTTPError as error:
                with error:
                    if error.code != 503 or not left:
                        raise self._refusal(error) from None
                    after = error.headers.get("Retry-After", "")
                time.sleep(min(float(after) if after.isdecimal() else 1.0, LONGEST_WAIT))
            except (OSError, HTTPException, ValueError) as error:
                raise ServiceError(f"no service of fewshot answers at {self.url} ({_reason(error)}); {_CURE}") from None
        raise AssertionError("unreachable")

    def _refusal(self, error: HTTPError) -> ServiceError:
        """Return the sentence of a service, or of what stands before it."""
        if error.code == 401:
            return ServiceError(f"{self.url} wants a token, or another one; give it with token=...", "token")
        if error.code == 404 and self.url.endswith("/v1"):
            return ServiceError(f"{self.url} is not where the service is; give its address without /v1")
        try:
            told = json.load(error)["error"]
            return ServiceError(f"{self.url}: {brief(told['message'])}", str(told["code"]), str(told["message"]))
        except (OSError, HTTPException, ValueError, TypeError, KeyError):
            if error.code == 413:  # of a proxy
                return ServiceError(f"{self.url} refuses the request as too large", "too_large")
            return ServiceError(f"{self.url} answers with status {error.code}, not as a service of fewshot; {_CURE}")


#: Place, base64 text and name of an image.
_Sent = tuple[int, str, str]
_CURE = "check the address, or start one with fewshot serve"


def checked_url(url: str) -> str:
    """Return the address of a service without a slash at its end.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> checked_url("http://localhost:8000/few/")
    'http://localhost:8000/few'
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url = False
    if not is_url or parts.query or parts.fragment or parts.username is not None or not _is_plain(url):
        raise ValueError(f"{brief(repr(url), 100)} is no address of a service; expected one such as {_EXAMPLE}")
    return url.rstrip("/")


_EXAMPLE = "http://127.0.0.1:8000"


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _is_here(url: str) -> bool:
    """Whether an address is of this machine, which no proxy reaches."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(error, ValueError):
        return "it does not speak JSON"
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


def _parts(items: Sequence[Any], about: dict[str, Any], found: dict[int, RemoteAnswer]) -> Iterator[list[_Sent]]:
    """Yield images in parts that a service takes; put those that cannot be sent into `found`."""
    limits = about["limits"]
    most, most_bytes = min(MOST_IMAGES, limits["images"]), min(MOST_BYTES, limits["body_bytes"])
    part, size = list[_Sent](), 0
    for place, item in enumerate(items):
        name = describe(item)
        try:
            data = _data(item, name, limits["body_bytes"])
        except ImageDecodeError as error:
            found[place] = _unread(place, error.reason, about["fingerprint"])
            continue
        cost = len(data) + 6 * len(name) + 100
        if part and (len(part) == most or size + cost > most_bytes):
            yield part
            part, size = [], 0
        part.append((place, data, os.path.basename(name)))
        size += cost
    if part:
        yield part


def _data(item: Any, name: str, most: int) -> str:
    """Return an image file as base64."""
    if not (isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview)) or is_file(item)):
        raise TypeError(f"{name} cannot be sent to a service; pass a path, the bytes of a file, or a data URL")
    with reading(name):
        data = base64.b64encode(read_content(item, name)).decode()
    if len(data) + 1000 > most:
        raise ImageDecodeError(name, f"it has more bytes than the service takes in base64 ({most})")
    return data


def _unread(place: int, reason: str, fingerprint: str) -> RemoteAnswer:
    return RemoteAnswer(str(place), None, None, 0.0, False, None, np.nan, reason, fingerprint)


def _as_answer(place: int, one: dict[str, Any], about: dict[str, Any], fingerprint: str) -> RemoteAnswer:
    if one["error"] is not None:
        return _unread(place, one["error"]["message"], fingerprint)
    of_type = np.empty(0, about["label_type"])

    def label(text: str) -> Any:
        return label_of_text(text, of_type)

    nearest = one["prototypes"][:1]
    shares = {label(ranked["label"]): ranked["probability"] for ranked in one["top"]}
    return RemoteAnswer(
        str(place),
        np.array(one["embedding"], np.float32),
        about["unknown_label"] if one["label"] is None else label(one["label"]),
        one["probability"],
        one["unknown"],
        label(nearest[0]["label"]) if nearest else None,
        nearest[0]["similarity"] if nearest else np.nan,
        embedder=fingerprint,
        likeliest=next(iter(shares), None),
        shares=shares,
    )
