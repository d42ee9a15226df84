"""Health and figures, for whatever runs the service."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from starlette.responses import Response

from fewshot.serve.problems import JSON
from fewshot.serve.schemas import HealthBody, refusals
from fewshot.serve.service import ServiceOf

router = APIRouter(tags=["health"])
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.head("/health/live", include_in_schema=False)  # some monitors ask so
@router.get("/health/live", response_model=HealthBody, responses=refusals(403))
async def live() -> Response:
    """Tell that the process runs."""
    return JSON({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", response_model=HealthBody, responses={**refusals(403), 503: {"model": HealthBody}})
async def ready(service: ServiceOf) -> Response:
    """Tell whether the folder can be read, and so whether answers are those of what it holds (503 if not)."""
    await service.view()
    trouble = service.workshop.trouble
    if trouble is None:
        return JSON({"status": "ready"})
    return JSON({"status": "not ready"}, 503)  # GET /v1/model tells why, to those who may know


@router.get("/metrics", response_class=Response, responses={**_TEXT, **refusals(401, 403)})
async def metrics(service: ServiceOf) -> Response:
    """Return figures in the text format of Prometheus."""
    view = await service.view()
    content = await to_thread.run_sync(service.metrics.render, view)
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")
