"""Session: a page shows the token once, and holds a cookie from then on, which no script can read."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from fewshot.serve.guard import COOKIE, cookie_of
from fewshot.serve.schemas import failures
from fewshot.serve.service import ServiceOf

router = APIRouter(prefix="/v1", tags=["session"])


@router.post("/session", status_code=204, response_class=Response, responses=failures())
async def begin(request: Request, service: ServiceOf) -> Response:
    """Exchange the token, sent as ``Authorization: Bearer TOKEN``, for a cookie."""
    response = Response(status_code=204)
    if (token := service.settings.token) is not None:
        response.set_cookie(
            COOKIE, cookie_of(token), httponly=True, samesite="strict", secure=request.url.scheme == "https",
            path=service.settings.root_path or "/",
        )  # fmt: skip
    return response


@router.delete("/session", status_code=204, response_class=Response, responses=failures())
async def end(service: ServiceOf) -> Response:
    """Give the cookie back."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path=service.settings.root_path or "/", httponly=True, samesite="strict")
    return response
