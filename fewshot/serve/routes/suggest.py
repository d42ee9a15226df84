"""Suggest: which of a pool of images to label next."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from fewshot.embedding.network import Embedded
from fewshot.images.suggesting.suggest import suggest_embedded
from fewshot.serve.problems import JSON
from fewshot.serve.schemas import SuggestedBody, body, failures
from fewshot.serve.service import ServiceOf
from fewshot.serve.teaching import version_header
from fewshot.serve.uploads import read_sent
from fewshot.serve.view import View

router = APIRouter(prefix="/v1", tags=["suggest"])
#: How to choose unless a client says so.
USUAL = "uncertainty-herding"


@router.post("/suggest", response_model=SuggestedBody, responses=failures(415), openapi_extra=body())
async def suggest(
    request: Request,
    service: ServiceOf,
    k: Annotated[int, Query(ge=1, le=10_000, description="how many")] = 20,
    strategy: Annotated[str, Query(description="how to choose, as for fewshot suggest")] = USUAL,
    seed: Annotated[int, Query(ge=0, lt=2**32)] = 0,
) -> Response:
    """Choose the images to label next, the best first; learned ones and copies are left out.

    A large pool is embedded first, in several requests to ``/v1/embed``, and sent as embeddings.
    """
    sent = await read_sent(request, service.settings)
    view = await service.view()
    embedded = await service.embedded(view, sent)
    names = [image.name for image in sent.images] or [f"embedding {i}" for i in range(len(embedded.embeddings))]
    found = await service.look(_chosen, view, embedded, names, k, strategy, seed)
    return JSON({"version": view.version, "order": found}, headers=version_header(view))


def _chosen(view: View, embedded: Embedded, names: list[str], k: int, strategy: str, seed: int) -> list[dict[str, Any]]:
    now = view.model.empty() if view.is_empty else view.learned
    found = suggest_embedded(now, embedded, names, k, strategy, seed, lambda rows: [b""] * len(rows))
    known = set() if view.is_empty else set(now.classifier.classes_.tolist())
    return [
        {
            "index": one.row,
            "name": one.id,
            "label": str(one.label) if one.label in known else None,
            "likeliest": None if one.likeliest is None else str(one.likeliest),
            "probability": one.probability,
            "score": one.score,
            "reason": one.reason,
        }
        for one in found
    ]
