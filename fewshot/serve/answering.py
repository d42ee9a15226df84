"""Answers to embedded images, as a client sees them: labels are text."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.embedding.network import Embedded
from fewshot.images.answer import Answer, answer_embedded
from fewshot.images.places import PlaceMatch
from fewshot.serve.batcher import joined
from fewshot.serve.problems import without_parameter
from fewshot.serve.view import View
from fewshot.utils.threads import compute_on

#: Threads that answer. Each computes alone: a product is small, so that it would only wait for others to begin.
THREADS = 4
#: Said if no match can be shown.
NO_PLACES = "where images match is known to learners that compare places, dn4 and mutual-nearest, with kept examples"
#: Embeddings of a request, their names, and where its answers go.
_Waiting = tuple[Embedded, Sequence[str], asyncio.Future[dict[str, Any]]]


@dataclass(frozen=True)
class Asked:
    """What a client wants of an answer.

    Attributes
    ----------
    top : int
        How many of the likeliest classes.
    coverage : float or None
        How often the set is to hold the right class.
    neighbours : int
        How many of the nearest examples.
    explain : bool
        Whether to tell the nearest prototypes and the margin, too.
    matches : int
        On how many examples to show where an image matches them.
    """

    top: int = 5
    coverage: float | None = None
    neighbours: int = 0
    explain: bool = False
    matches: int = 0


class Answerer:
    """Answer requests that were embedded together at once, which takes about as long as one of them."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[View, Asked], list[_Waiting]] = {}
        self._tasks = set[asyncio.Task[None]]()  # the loop itself does not keep them
        self._threads = ThreadPoolExecutor(THREADS, "answering", compute_on, (1,))

    async def answer(self, view: View, embedded: Embedded, names: Sequence[str], asked: Asked) -> dict[str, Any]:
        """Return what `answers_to` does."""
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        key = view, asked
        others = self._waiting.setdefault(key, [])
        others.append((embedded, names, done))
        if len(others) == 1:  # a task of its own: the others must not wait for a client that has gone
            task = asyncio.create_task(self._answer(key))  # begins after those of the same batch have come
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await done

    async def _answer(self, key: tuple[View, Asked]) -> None:
        waiting = self._waiting.pop(key)
        together = joined([embedded for embedded, _, _ in waiting])
        names = [name for _, some, _ in waiting for name in some]
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._threads, answers_to, key[0], together, names, key[1])
        except BaseException as error:
            for _, _, done in waiting:
                if not done.done():
                    done.set_exception(error)
            return
        answers = iter(found["answers"])
        for _, some, done in waiting:
            own = [next(answers) for _ in some]
            if not done.done():
                done.set_result({**found, "answers": own})

    def aside(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run what no client waits for."""
        self._threads.submit(work, *arguments)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)


def answers_to(view: View, embedded: Embedded, names: Sequence[str], asked: Asked) -> dict[str, Any]:
    """Return the answers to images, and notes about what could not be told."""
    now, why_not = view.answering
    notes, promise = [] if why_not is None else [f"nothing is answered as unknown: {why_not}"], None
    if asked.coverage is not None:
        try:
            promise = view.promise(asked.coverage)
        except ValueError as error:  # too few examples
            notes.append(without_parameter(str(error)))
    if asked.matches and not view.compares_places:
        notes.append(NO_PLACES)
    nearby = view.nearby if asked.neighbours else None
    if not embedded.thumbnails:
        embedded = Embedded(embedded.embeddings, embedded.errors, [b""] * len(names))
    wanted = asked.top, asked.neighbours, promise, nearby, asked.explain, asked.matches
    found = answer_embedded(now, embedded, names, *wanted)
    return {"version": view.version, "answers": [_as_sent(view, one, asked) for one in found], "notes": notes}


def _as_sent(view: View, one: Answer, asked: Asked) -> dict[str, Any]:
    given = one.to_dict()
    given["name"] = given.pop("id")
    for part in (given, *given["top"], *given["prototypes"], *given["neighbours"]):
        part["label"] = None if part["label"] is None else str(part["label"])
    given["likeliest"] = None if one.likeliest is None else str(one.likeliest)
    given["set"] = None if one.label_set is None else [str(label) for label in one.label_set]
    if given["error"] is not None:
        given["error"] = {"code": "unreadable_image", "message": given["error"]}
    for near, neighbour in zip(given["neighbours"], one.neighbours, strict=True):
        near["name"], near["id"] = near["id"], view.example_ids[neighbour.row]
    if not asked.explain:
        del given["prototypes"], given["margin"]
    if asked.matches:
        given["match"] = None if one.match is None else _match(view, one.matches, one.match)
    return given


def _match(view: View, matches: Sequence[PlaceMatch], best: PlaceMatch) -> dict[str, Any]:
    examples = [
        {"id": view.example_ids[one.row], "name": one.id, **_placed(one.support, one.support_picture)}
        for one in matches
    ]
    return {"label": str(best.label), **_placed(best.query, best.picture), "examples": examples}


def _placed(heat: NDArray[np.float64], picture: bytes) -> dict[str, Any]:
    return {"places": heat.round(4).tolist(), "picture": base64.b64encode(picture).decode() if picture else None}
