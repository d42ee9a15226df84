"""Predict: answers to images, and embeddings of them."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from fewshot.serve.answering import Asked, answers_to
from fewshot.serve.problems import JSON, Problem
from fewshot.serve.schemas import AnswersBody, EmbeddedBody, body, failures
from fewshot.serve.service import ServiceOf
from fewshot.serve.teaching import version_header
from fewshot.serve.uploads import read_sent

#: Most classes and neighbours that are told in one response.
MOST_TOLD = 2**19
#: Most images of a request for which is shown where they match, and most examples for each.
MOST_MATCHED, MOST_MATCHES = 16, 6
OF_MATCHES = (
    f"on how many examples to show where an image matches them, of at most {MOST_MATCHED} images in a request; only a "
    "classifier that compares places, by dn4 or mutual-nearest, can"
)

router = APIRouter(prefix="/v1", tags=["predict"])


async def asked_of(
    top: Annotated[int, Query(ge=1, le=1000, description="how many of the likeliest classes")] = 5,
    coverage: Annotated[
        float | None, Query(gt=0, lt=1, description="how often the set is to hold the right class")
    ] = None,
    neighbours: Annotated[int, Query(ge=0, le=100, description="how many of the nearest examples")] = 0,
    explain: Annotated[bool, Query(description="whether to tell margin and nearest prototypes")] = False,
    matches: Annotated[int, Query(ge=0, le=MOST_MATCHES, description=OF_MATCHES)] = 0,
) -> Asked:
    """Return what a client wants of its answers."""
    return Asked(top, coverage and round(coverage, 3), neighbours, explain, matches)


@router.post("/predict", response_model=AnswersBody, responses=failures(409, 415), openapi_extra=body())
async def predict(
    request: Request,
    service: ServiceOf,
    asked: Annotated[Asked, Depends(asked_of)],
    embeddings: Annotated[bool, Query(description="whether to tell embeddings and the embedder's fingerprint")] = False,
) -> Response:
    """Classify images. One that cannot be read has an error instead of a label."""
    sent = await read_sent(request, service.settings)
    view = service.workshop.published
    view = await service.view() if view.is_empty else view
    if asked.matches and len(sent.images if sent.embeddings is None else sent.embeddings) > MOST_MATCHED:
        raise Problem(413, "too_large", f"matches are shown for at most {MOST_MATCHED} images in a request; send fewer")
    _ = view.learned  # says that nothing was learned, before work is done
    embedded = await service.embedded(view, sent, asked.matches > 0)
    if (now := await service.view()).embedder is not view.embedder:  # another process has taken another network
        embedded = await service.embedded(now, sent, asked.matches > 0)
    names = [image.name for image in sent.images] or [f"embedding {i}" for i in range(len(embedded.embeddings))]
    if len(embedded.errors) == len(names):
        raise embedded.errors[0]
    if len(names) * (min(asked.top, len(now.classes)) + asked.neighbours) > MOST_TOLD:
        raise Problem(413, "too_large", "the answers would be too long; ask for less, or in several requests")
    if asked.matches:  # takes a while, so that others must not wait for it
        found = await service.look(answers_to, now, embedded, names, asked)
    else:
        found = await service.answerer.answer(now, embedded, names, asked)
    for one in found["answers"]:
        kind = "unreadable" if one["error"] else "unknown" if one["unknown"] else "known"
        service.metrics.answers.labels(kind).inc()
        if one["neighbours"]:
            service.metrics.similarity.observe(one["neighbours"][0]["similarity"])
    if not asked.neighbours and service.drift.is_due(now):
        service.answerer.aside(service.drift.observe, now, embedded)
    if embeddings:
        for one, row in zip(found["answers"], embedded.embeddings, strict=True):
            one["embedding"] = None if one["error"] else row.tolist()
        found["fingerprint"] = now.embedder.fingerprint
        return await to_thread.run_sync(JSON, found, 200, version_header(now))  # embeddings take a while to write
    return JSON(found, headers=version_header(now))


@router.post("/embed", response_model=EmbeddedBody, responses=failures(415), openapi_extra=body())
async def embed(request: Request, service: ServiceOf) -> Response:
    """Return the embeddings of images; null for one that cannot be read."""
    sent = await read_sent(request, service.settings)
    view = await service.view()
    found = await service.embedded(view, sent)
    unreadable = {error.index: error.reason for error in found.errors}
    rows = [None if i in unreadable else row.tolist() for i, row in enumerate(found.embeddings)]
    errors = [{"index": i, "code": "unreadable_image", "message": reason} for i, reason in sorted(unreadable.items())]
    return JSON({"fingerprint": view.embedder.fingerprint, "embeddings": rows, "errors": errors})
