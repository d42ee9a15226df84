"""What the routes stand on: the workshop, the batcher, the metrics and the settings of one application."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Header, Request

from fewshot.embedding.network import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.serve.answering import Answerer
from fewshot.serve.batcher import Batcher
from fewshot.serve.drift import Drift
from fewshot.serve.metrics import Metrics
from fewshot.serve.problems import Problem, busy
from fewshot.serve.settings import Settings
from fewshot.serve.uploads import Image_, Sent
from fewshot.serve.view import View
from fewshot.serve.workshop import Workshop

#: Most changes that wait for their turn, and slow looks at the whole classifier that run at once.
MOST_CHANGES, MOST_LOOKS = 64, 2


class Service:
    """The parts of one application.

    Parameters
    ----------
    workshop : Workshop
        The classifier.
    settings : Settings
        Its settings.
    """

    def __init__(self, workshop: Workshop, settings: Settings) -> None:
        self.workshop, self.settings, self.metrics = workshop, settings, Metrics()
        self.answerer, self.drift = Answerer(), Drift(self.metrics)
        self.batcher = Batcher(self.metrics, settings.max_queue, settings.batch_seconds)
        #: Changes take turns on a thread of their own, so that readers find one free.
        self._changes, self._looks = CapacityLimiter(1), CapacityLimiter(MOST_LOOKS)

    async def view(self) -> View:
        """Return the present version."""
        if self.workshop.is_stale:
            return await to_thread.run_sync(self.workshop.view)
        return self.workshop.published

    async def embedded(self, view: View, sent: Sent, thumbnails: bool = False) -> Embedded:
        """Return the embeddings of what was sent.

        Raises
        ------
        Problem
            If there is nothing, or too much to do.
        """
        if sent.embeddings is not None:
            return await self._given(view, sent, thumbnails)
        if not sent.images:
            raise Problem(422, "invalid", "there is no image; send some in the field images")
        if not view.takes_images:
            message = "this classifier has an embedder of its own; send embeddings instead of images"
            raise Problem(422, "needs_embeddings", message)
        readable = [image.content for image in sent.images if image.unread is None]
        return _of_all(await self.batcher.embed(view.embedder, readable, thumbnails), sent.images)

    async def _given(self, view: View, sent: Sent, thumbnails: bool) -> Embedded:
        """Return embeddings that were sent."""
        rows = np.asarray(sent.embeddings)
        d = None if view.is_empty else view.learned.classifier.model_.d
        if d is not None and rows.shape[1] != d:
            raise Problem(422, "invalid", f"the embeddings have {rows.shape[1]} numbers; those of this classifier {d}")
        if thumbnails and view.is_empty and view.takes_images:  # what is learned first tells what others must be like
            raise Problem(422, "invalid", "a new classifier learns from images; send some in the field images")
        return Embedded(rows, [], [b""] * len(rows) if thumbnails else [])

    async def change(
        self,
        note: str | Callable[[Any], str],
        act: Callable[[FewShotImageClassifier, View], Any],
        if_match: str | None,
    ) -> tuple[View, Any]:
        """Change the classifier; see `Workshop.change`."""
        return await self.in_turn(self.workshop.change, note, act, if_match)

    async def in_turn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a change of the workshop once those before it are done."""
        if self._changes.statistics().tasks_waiting >= MOST_CHANGES:
            raise busy(f"{MOST_CHANGES} changes are waiting already")
        return await to_thread.run_sync(lambda: work(*arguments), limiter=self._changes)

    async def look(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run what reads the whole classifier and may take seconds."""
        return await to_thread.run_sync(lambda: work(*arguments), limiter=self._looks)


def _of_all(embedded: Embedded, images: Sequence[Image_]) -> Embedded:
    """Return what was embedded of the readable ones of some images as the embeddings of all; errors name the files."""
    rows = [i for i, image in enumerate(images) if image.unread is None]
    if len(rows) == len(images) and not embedded.errors:
        return embedded
    reasons = {i: image.unread for i, image in enumerate(images) if image.unread is not None}
    reasons |= {rows[error.index or 0]: error.reason for error in embedded.errors}
    x = np.full((len(images), embedded.embeddings.shape[1]), np.nan, np.float32)
    x[rows] = embedded.embeddings
    pictures = dict(zip(rows, embedded.thumbnails, strict=False))
    shown = [pictures.get(i, b"") for i in range(len(images))] if pictures else []
    return Embedded(x, [ImageDecodeError(images[i].name, reasons[i], i) for i in sorted(reasons)], shown)


async def service_of(request: Request) -> Service:  # what is not async, FastAPI runs on another thread
    """Return the parts of the application that a request came to."""
    return request.app.state.service


async def if_match_of(
    if_match: Annotated[
        str | None, Header(description="the ETag that the change is meant for; of another, 409")
    ] = None,
) -> str | None:
    """Return the version that a change is meant for, if the client says so."""
    return None if if_match is None else if_match.strip().removeprefix("W/").strip('"')


ServiceOf = Annotated[Service, Depends(service_of)]
IfMatch = Annotated[str | None, Depends(if_match_of)]
