"""History: what changed, undo and redo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from starlette.responses import Response

from fewshot.images.history import read_history
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.serve.problems import JSON
from fewshot.serve.schemas import Changed, HistoryBody, failures
from fewshot.serve.service import IfMatch, Service, ServiceOf
from fewshot.serve.teaching import version_header
from fewshot.serve.view import View

router = APIRouter(prefix="/v1", tags=["history"])


async def changed(
    service: Service, note: str, act: Callable[[FewShotImageClassifier, View], Any], if_match: str | None
) -> Response:
    """Make a change and return the version after it."""
    view, _ = await service.change(note, act, if_match)
    return await after(view)


async def after(view: View) -> Response:
    """Return the response to a change."""
    steps = await to_thread.run_sync(lambda: view.steps)
    body = {"version": view.version, "can_undo": steps.undo is not None, "can_redo": steps.redo is not None}
    return JSON(body, headers=version_header(view))


@router.get("/history", response_model=HistoryBody, responses=failures())
async def history(service: ServiceOf) -> Response:
    """List the versions that the folder keeps, oldest first."""
    view = await service.view()
    is_new = view.is_empty and view.steps.redo is None
    found = [] if is_new else await to_thread.run_sync(read_history, view.folder)
    body = {"version": view.version, "versions": [one.to_dict() for one in found]}
    return JSON(body, headers=version_header(view))


@router.post("/undo", response_model=Changed, responses=failures(409))
async def undo(service: ServiceOf, if_match: IfMatch) -> Response:
    """Go back to the version before."""
    return await after(await service.in_turn(service.workshop.undo, if_match))


@router.post("/redo", response_model=Changed, responses=failures(409))
async def redo(service: ServiceOf, if_match: IfMatch) -> Response:
    """Take back the last undo."""
    return await after(await service.in_turn(service.workshop.redo, if_match))
