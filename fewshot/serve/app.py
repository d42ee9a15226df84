"""The application: routes, errors and the page behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

from fewshot._version import __version__
from fewshot.errors import FewshotError
from fewshot.serve.bodies import Bodies
from fewshot.serve.description import complete_description
from fewshot.serve.guard import Guard, route_path
from fewshot.serve.logs import Logs
from fewshot.serve.problems import JSON, Problem, problem_of, without_place
from fewshot.serve.routes import archive, classes, examples, health, history, model, predict, session, suggest, trust
from fewshot.serve.service import Service
from fewshot.serve.settings import Settings
from fewshot.serve.uploads import expected, parameters_of, unknown_field
from fewshot.serve.workshop import Workshop
from fewshot.utils.text import closest

ROUTERS = (
    predict.router,  # first, as it is asked most
    model.router,
    classes.router,
    examples.router,
    history.router,
    session.router,
    trust.router,
    suggest.router,
    archive.router,
)
#: Media types of the files of the page.
KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".json": "application/json", ".webmanifest": "application/json",
    ".woff2": "font/woff2",
}  # fmt: skip


def create_app(workshop: Workshop, settings: Settings) -> FastAPI:
    """Return the application of a service.

    Parameters
    ----------
    workshop : Workshop
        The classifier.
    settings : Settings
        Who may use it, and how much it takes.
    """
    app = FastAPI(
        title="fewshot",
        summary="Teach classes by example, classify images, correct answers.",
        version=__version__,
        docs_url=None,  # their scripts would be fetched from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,  # redirects would repeat what Host says
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
        lifespan=_lifespan,
    )
    app.state.service = Service(workshop, settings)
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(_refuse_unknown)])
    app.include_router(health.router)
    complete_description(app, settings.token is not None)
    _add_page(app)
    app.add_middleware(Bodies, settings=settings)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Logs, metrics=app.state.service.metrics)  # the last one added comes first
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _of_http)
    for kind in (Problem, FewshotError, ValueError, TypeError, OSError, MemoryError, RuntimeError):
        app.add_exception_handler(kind, _failed)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service = app.state.service
    running = asyncio.create_task(service.batcher.run())
    yield
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    service.batcher.close()
    service.answerer.close()


def _add_page(app: FastAPI) -> None:
    """Serve the files of the page, which are read once: no path comes from a client."""
    found: dict[str, tuple[bytes, str]] = {}

    def collect(folder: Any, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                collect(entry, f"{prefix}{entry.name}/")
            elif (kind := KINDS.get("." + entry.name.rpartition(".")[2])) is not None:
                found[f"{prefix}{entry.name}"] = entry.read_bytes(), kind

    collect(files("fewshot.serve") / "page", "")

    def shown(name: str) -> Callable[[], Any]:
        async def show() -> Response:
            content, kind = found[name]
            return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

        return show

    for name in found:
        app.add_api_route(
            "/" if name == "index.html" else f"/page/{name}",
            shown(name),
            methods=["GET", "HEAD"],
            include_in_schema=False,
        )


async def _refuse_unknown(request: Request) -> None:
    """Raise Problem for a parameter that the route does not know: ignored, it would mislead."""
    if not request.query_params:
        return
    known = parameters_of(request)
    for name in request.query_params:
        if name not in known:
            raise Problem(
                422, "invalid", f"there is no parameter {name!r:.60}{closest(name, known) or expected(known)}"
            )


async def _not_valid(request: Request, error: Exception) -> JSON:
    said = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    if said.get("type") == "json_invalid":
        return Problem(400, "malformed", "the body is not valid JSON").response()
    if tuple(said.get("loc", ())) == ("body",):  # curl -d, for example, says that it sends a form
        cure = "send a JSON object, and with it the header Content-Type: application/json"
        return Problem(422, "invalid", f"the body is not the JSON that is expected here; {cure}").response()
    if said.get("type") == "extra_forbidden":
        (body,) = request.scope["route"].dependant.body_params
        known = [one.alias or name for name, one in body.field_info.annotation.model_fields.items()]
        return unknown_field(str(said["loc"][-1]), known, request).response()
    where = ".".join(str(part) for part in said.get("loc", ())[1:]) or "the request"
    return Problem(422, "invalid", f"{where}: {said.get('msg', 'is not valid')}"[:500]).response()


async def _of_http(request: Request, error: Exception) -> JSON:
    if isinstance(error.__cause__, (Problem, ClientDisconnect)):  # while the framework has read the body
        return problem_of(error.__cause__).response()
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    code, message = "http", "the request cannot be answered"
    if status == 404:
        where = f"{request.scope.get('root_path', '')}/v1/openapi.json"
        code, message = "not_found", f"there is nothing here; {where} describes what there is"
    elif status == 405:
        headers["Allow"] = ", ".join(_methods(request))
        code, message = "not_allowed", f"this method is not allowed here; expected {headers['Allow']}"
    return Problem(status, code, message).response(headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of a path; the framework tells those of one route."""
    described = request.app.openapi()["paths"]
    path = route_path(request.scope)
    found: dict[str, Any] = described.get(path) or next((described[one] for one in described if _fits(one, path)), {})
    return sorted(method.upper() for method in found) or ["GET"]  # those of the page are not described


def _fits(template: str, path: str) -> bool:
    return compile_path(template.replace("{name}", "{name:path}"))[0].match(path) is not None


async def _failed(request: Request, error: Exception) -> JSON:
    found = problem_of(error)
    if found.status == 500:
        raise error  # `Logs` logs it, and answers without a trace
    found.message = without_place(found.message, request.app.state.service.workshop.folder)
    return found.response()
