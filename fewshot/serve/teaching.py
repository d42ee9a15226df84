"""Learn what was sent: the examples of a class that are new, each under a name that is its own."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.responses import Response

from fewshot.embedding.network import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.images.learned import Prepared
from fewshot.serve.problems import JSON, Problem
from fewshot.serve.service import Service
from fewshot.serve.uploads import Sent
from fewshot.serve.view import View
from fewshot.utils.labels import check_length
from fewshot.utils.text import counted, shortened

#: Most characters of the name of a class in a note of the history.
_SHOWN = 80


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a request teaches: a class, and embedded images with their digests and the names of their files."""

    name: str
    embedded: Embedded
    digests: list[str]
    files: list[str]

    def learn(self, model: FewShotImageClassifier, view: View) -> tuple[list[str], list[dict[str, Any]]]:
        """Learn the images that the class does not hold yet; return their names, and which another class holds too."""
        label = view.label(check_length(self.name, "name"), new=True)
        known, own = set(view.support.ids), {view.support.ids[row] for row in view.rows_of.get(self.name, ())}
        held = {name.rpartition(" ")[2] for name in own}
        unreadable = {error.index for error in self.embedded.errors}
        holders = self._holders(view)
        rows, names = list[int](), list[str]()
        for row, (digest, file) in enumerate(zip(self.digests, self.files, strict=True)):
            if row in unreadable or holders.get(row) == self.name or digest in held:
                continue
            held.add(digest)
            rows.append(row)
            names.append(_free(f"{file} {digest}", known))
            known.add(names[-1])
        if rows:
            x, pictures = self.embedded.embeddings[rows], [self.embedded.thumbnails[row] for row in rows]
            prepared = Prepared(names, False, [label] * len(rows), Embedded(x, [], pictures), view.embedder)
            (model.fit if view.is_empty else model.partial_fit)(prepared)
        return names, [{"index": row, "name": self.files[row], "class": holders[row]} for row in rows if row in holders]

    def _holders(self, view: View) -> dict[int, str]:
        """Return the class of each image that is an example already, maybe of a file that another command has read."""
        if view.is_empty:
            return {}
        unreadable = {error.index for error in self.embedded.errors}
        rows = [row for row in range(len(self.files)) if row not in unreadable]
        twins = view.support.twins(self.embedded.embeddings[rows]).tolist()
        labels = view.support.labels
        return {row: str(labels[twin]) for row, twin in zip(rows, twins, strict=True) if 0 <= twin < len(labels)}


def _free(name: str, known: set[str]) -> str:
    """Return a name that no example has: the same image may be an example of two classes."""
    place, found = 1, name
    while found in known:
        place += 1
        found = f"{name.rpartition(' ')[0]} ({place}) {name.rpartition(' ')[2]}"
    return found


async def teach(service: Service, sent: Sent, name: str, if_match: str | None, known: bool = False) -> Response:
    """Learn images of a class; acknowledged once they are on disk.

    Parameters
    ----------
    service : Service
        The parts of the application.
    sent : Sent
        Images, or embeddings.
    name : str
        The class.
    if_match : str or None
        The version that the change is meant for.
    known : bool, default=False
        Whether the class must be known.
    """
    start, view = time.perf_counter(), await service.view()
    if service.workshop.read_only:
        raise Problem(403, "read_only", "this service is read-only; start it without --read-only to change it")
    if known:
        view.label(name)
    embedded = await service.embedded(view, sent, thumbnails=True)
    lesson = Lesson(name, embedded, *_described(sent))
    if len(embedded.errors) == len(lesson.files):
        raise embedded.errors[0]

    def act(model: FewShotImageClassifier, now: View) -> tuple[bool, list[str], list[dict[str, Any]]]:
        if known:
            now.label(name)
        return name not in now.classes, *lesson.learn(model, now)

    n = len(lesson.files) - len(embedded.errors)
    now, (is_new, names, elsewhere) = await service.change(
        lambda found: f"add {counted(len(found[1]), 'image')} of {short(name)}", act, if_match
    )
    body = {
        "class": name,
        "new": is_new,
        "learned": len(names),
        "copies": n - len(names),
        "elsewhere": elsewhere,
        "unreadable": [_unreadable(error, lesson.files) for error in embedded.errors],
        "examples": [now.ids_of[one, name] for one in names if (one, name) in now.ids_of],
        "milliseconds": round(1000 * (time.perf_counter() - start), 1),
        "version": now.version,
    }
    return JSON(body, 201 if is_new else 200, version_header(now))


def _described(sent: Sent) -> tuple[list[str], list[str]]:
    """Return digests and names of what was sent."""
    if sent.embeddings is None:
        return [image.digest for image in sent.images], [image.name for image in sent.images]
    rows = np.ascontiguousarray(sent.embeddings)
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows], ["embedding"] * len(rows)


def _unreadable(error: ImageDecodeError, files: list[str]) -> dict[str, Any]:
    place = error.index or 0
    return {"index": place, "name": files[place], "message": error.reason}


def short(name: str) -> str:
    """Return the name of a class for a note."""
    return shortened(name, _SHOWN)


def version_header(view: View) -> dict[str, str]:
    """Return the header that names a version, for ``If-Match``."""
    return {"ETag": f'"{view.version}"'}
