"""What clients send: images, embeddings and fields, as multipart or JSON; nothing is decoded before it is checked.

An image is bytes and the name of a file without its folders. No path is opened and no URL fetched.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fewshot.data.opening import is_heif, register_heif
from fewshot.errors import pip_install
from fewshot.serve.problems import Problem
from fewshot.serve.settings import Settings
from fewshot.utils.text import closest, printable
from fewshot.utils.values import TOO_LARGE

#: What cameras and browsers write. Other formats of Pillow are not for strangers.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
#: So many images are checked at once.
FEW = 2
#: Most characters of a name of a file that are kept, most fields, and most bytes of one.
_LONGEST_NAME, _MOST_FIELDS, _LONGEST_FIELD = 80, 20, 2**16
#: Most lists and objects of JSON, and most numbers: in memory, a value takes up to 30 times the space of its text.
_MOST_LISTS, _MOST_NUMBERS = 2**17, 2**22


class _Parser(MultiPartParser):
    """Keep files in memory, which the limit of a body bounds: nothing is written to a disk."""

    spool_max_size = 2**40


@dataclass(frozen=True, eq=False)
class Image_:
    """An image that was sent: its bytes, the name of its file, and why it is not to be decoded, if so."""

    content: bytes
    name: str
    unread: str | None = None

    @property
    def digest(self) -> str:
        """A short digest of the bytes."""
        return hashlib.sha256(self.content).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Sent:
    """What a request held.

    Attributes
    ----------
    fields : mapping
        Values by name.
    images : list of Image_
        Images of an allowed format and size, and files that are none, which say so; at least one image.
    embeddings : ndarray of shape (n, d), float32, or None
        Embeddings instead of images.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    images: list[Image_] = field(default_factory=list)
    embeddings: NDArray[np.float32] | None = None

    def text(self, name: str) -> str:
        """Return a field that must be text.

        Raises
        ------
        Problem
            If it is missing, empty or not text.
        """
        return require_text(self.fields.get(name), name)


def require_text(value: Any, name: str) -> str:
    """Return a value if it is text that can name a class.

    Raises
    ------
    Problem
        If it is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise Problem(422, "invalid", f"{name} is missing or empty; expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Problem(422, "invalid", f"{name} is not valid Unicode; send it as UTF-8") from None
    return value


async def read_sent(request: Request, settings: Settings, *fields: str) -> Sent:
    """Return what a request holds: images or embeddings, and the `fields` of its route.

    Raises
    ------
    Problem
        If it is neither multipart nor JSON, holds a field that is not known, or an image that is too large, or if
        nothing is an image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        sent = await _read_form(request, settings)
    elif kind == "application/json":
        sent = await run_in_threadpool(_read_json, await request.body(), settings)
    else:
        said = "the body must be multipart/form-data, as curl sends it with -F images=@FILE, or application/json"
        raise Problem(415, "unsupported", said)
    _refuse_unknown(sent.fields, fields, request)
    if len(sent.images) > FEW:  # the head of one takes less time than changing threads
        images = await run_in_threadpool(_checked, sent.images, settings)
    else:
        images = _checked(sent.images, settings)
    return replace(sent, images=images)


def _refuse_unknown(given: Iterable[str], fields: Sequence[str], request: Request) -> None:
    for name in given:
        if name == "images":  # text in a form
            raise Problem(422, "invalid", "the field images holds text; send files, with curl as -F images=@FILE")
        if name == "embeddings":
            raise Problem(422, "invalid", "embeddings are sent as JSON, with the header Content-Type: application/json")
        if name not in fields:
            raise unknown_field(name, [*fields, "images", "embeddings"], request)


def unknown_field(name: str, known: Sequence[str], request: Request) -> Problem:
    """Return the problem that a body holds a field that its route does not know: ignored, it would mislead."""
    if name in parameters_of(request):
        where = f"{request.url.path}?{name}=..."
        return Problem(422, "invalid", f"{name} is no field of the body; send it in the address, as in {where}")
    return Problem(422, "invalid", f"there is no field {name!r:.60}{closest(name, known) or expected(known)}")


def expected(known: Sequence[str]) -> str:
    """Return the end of a sentence about a name that is not known."""
    return f"; expected {', '.join(known) or 'none'}"


def parameters_of(request: Request) -> list[str]:
    """Return the names of the parameters that the route of a request takes in its address."""
    return _parameters(request.scope["route"].dependant)


def _parameters(dependant: Any) -> list[str]:
    shared = [name for one in dependant.dependencies for name in _parameters(one)]
    return shared + [parameter.alias for parameter in dependant.query_params]


def _too_many(settings: Settings) -> Problem:
    return Problem(413, "too_large", f"there are more than {settings.max_images} images; send them in several requests")


async def _read_form(request: Request, settings: Settings) -> Sent:
    parser = _Parser(
        request.headers, request.stream(), max_files=settings.max_images, max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )  # fmt: skip
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        if "Too many files" in str(error):
            raise _too_many(settings) from None
        raise Problem(400, "malformed", "the body is not valid multipart/form-data") from None
    images, fields = list[Image_](), dict[str, Any]()
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            if name in fields:
                raise Problem(422, "invalid", f"the field {name!r:.60} is sent twice; send it once")
            fields[name] = value
        elif name == "images":
            images.append(Image_(await value.read(), plain_name(value.filename)))
        else:
            raise Problem(422, "invalid", f"there is a file in the field {name!r:.60}; expected images")
    return Sent(fields, images)


def _read_json(body: bytes, settings: Settings) -> Sent:
    given = parse_json(body)
    if not isinstance(given, dict):
        raise Problem(422, "invalid", "the body must be a JSON object")
    if "images" in given and "embeddings" in given:
        raise Problem(422, "invalid", "there are images and embeddings; send one of them")
    listed = given.pop("images", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise Problem(422, "invalid", 'images must be a list such as [{"data": "..."}]')
    if len(listed) > settings.max_images:
        raise _too_many(settings)
    for name in (name for one in listed for name in one if name not in ("data", "name")):
        raise Problem(422, "invalid", f"an image has a field {name!r:.60}; expected data and name")
    images = [Image_(_from_base64(one.get("data")), plain_name(one.get("name"))) for one in listed]
    embeddings = as_embeddings(given.pop("embeddings")) if "embeddings" in given else None
    return Sent(given, images, embeddings)


def parse_json(body: bytes) -> Any:
    """Return the value of JSON.

    Raises
    ------
    Problem
        If it is not valid, nested too deeply, or has too many values.
    """
    if body.count(b"{") + body.count(b"[") > _MOST_LISTS or body.count(b",") > _MOST_NUMBERS:
        raise Problem(413, "too_large", f"the body has more than {_MOST_NUMBERS} values; send less in one request")
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Problem(400, "malformed", "the body is not valid JSON") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _from_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise Problem(422, "invalid", "an image has no data; expected text in base64")
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, "invalid", "the data of an image is not valid base64") from None


def as_embeddings(rows: Any) -> NDArray[np.float32]:
    """Return embeddings (n, d) from lists of numbers.

    Raises
    ------
    Problem
        If they are anything else, or not finite.
    """
    wrong = Problem(422, "invalid", "embeddings must be a list of lists of finite numbers, each as long as the others")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise wrong
    if len({len(row) for row in rows}) > 1:
        raise wrong
    if not all(type(x) in (int, float) for row in rows for x in row):
        raise wrong
    try:
        found = np.array(rows, np.float64)
    except (OverflowError, ValueError):
        raise wrong from None
    if not (np.abs(found) <= TOO_LARGE).all():
        raise wrong
    return found.astype(np.float32)


def plain_name(filename: Any) -> str:
    """Return the name of a file without folders and control characters, of at most 80 characters.

    Examples
    --------
    >>> plain_name("../../etc/passwd"), plain_name(None)
    ('passwd', 'image')
    """
    if not isinstance(filename, str):
        return "image"
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if c.isprintable()).strip().encode("utf-8", "ignore").decode()
    return name[-_LONGEST_NAME:] or "image"


def _readable() -> tuple[str, ...]:
    """Return the formats that are read here: HEIF only with the package of the extra ``heif``."""
    Image.init()
    register_heif()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def _checked(images: list[Image_], settings: Settings) -> list[Image_]:
    """Return the images, with the reason of each that cannot be read.

    Raises
    ------
    Problem
        If one is too large, or none can be read.
    """
    found, problems = list[Image_](), list[Problem]()
    for place, image in enumerate(images):
        try:
            _check(image.content, settings.max_pixels)
        except Problem as problem:
            message = f"image {place}, {printable(image.name)}, {problem.message}"
            problems.append(Problem(problem.status, problem.code, message))
            if problem.status == 413:
                raise problems[-1] from None
            image = replace(image, unread=problem.message)
        found.append(image)
    if problems and len(problems) == len(images):
        raise problems[0]
    return found


def _check(content: bytes, most: int) -> None:
    """Raise Problem unless bytes begin as an image of an allowed format and size; no pixel is decoded."""
    if not content:
        raise Problem(422, "unreadable_image", "is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_readable()) as opened:
            width, height = opened.size
    except Image.DecompressionBombError:
        raise Problem(413, "too_large", f"has more than {most} pixels; shrink it") from None
    except Exception:  # whatever Pillow's readers raise of damage
        raise Problem(415, "unsupported", _why_not(content)) from None
    if width * height > most:
        raise Problem(413, "too_large", f"has {width} x {height} pixels, above the limit of {most}; shrink it")


def _why_not(content: bytes) -> str:
    """Say why no image can be opened, and what can."""
    kinds = _readable()
    if is_heif(content[:64]) and "HEIF" not in kinds:
        why = f"is a HEIC photograph, which this service reads once it has an extra ({pip_install('heif')})"
        return f"{why}; or send {', '.join(kinds)}"
    return f"is damaged, or not an image that can be read; send {', '.join(kinds)}"
