"""Examples: list, add, move and remove them, and show their pictures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.serve.problems import JSON, Problem
from fewshot.serve.routes.history import changed
from fewshot.serve.schemas import NAME, Changed, Examples, LearnedBody, Moved, MovedTogether, Together, body, failures
from fewshot.serve.service import IfMatch, Service, ServiceOf
from fewshot.serve.teaching import short, teach, version_header
from fewshot.serve.uploads import read_sent, require_text
from fewshot.serve.view import View
from fewshot.utils.labels import check_length
from fewshot.utils.text import as_unicode, counted

router = APIRouter(prefix="/v1", tags=["examples"])


@router.get("/examples", response_model=Examples, responses=failures(404))
async def list_examples(
    service: ServiceOf,
    of: Annotated[str | None, Query(alias="class", description="only those of this class")] = None,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """List examples, the latest first."""
    view = await service.view()
    if of is not None:
        view.label(of)
    rows = list(range(len(view.support)))[::-1] if of is None else view.rows_of.get(of, [])
    ids, support = view.example_ids, view.support
    found = [
        {"id": ids[row], "class": str(support.labels[row]), "name": as_unicode(support.ids[row])}
        for row in rows[offset : offset + limit]
    ]
    return JSON({"version": view.version, "total": len(rows), "examples": found}, headers=version_header(view))


@router.post(
    "/examples",
    response_model=LearnedBody,
    responses=failures(404, 409, 415),
    openapi_extra=body(**{"class": {**NAME, "example": "heron"}}),
)
async def add_examples(request: Request, service: ServiceOf, if_match: IfMatch) -> Response:
    """Learn more images of a known class."""
    sent = await read_sent(request, service.settings, "class")
    return await teach(service, sent, sent.text("class"), if_match, known=True)


@router.get(
    "/examples/{example}/thumbnail",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {}, "image/png": {}}},
        304: {"description": "The client has it"},
        **failures(404),
    },
)
async def thumbnail(example: str, request: Request, service: ServiceOf) -> Response:
    """Show the small picture that is kept of an example."""
    view = await service.view()
    picture = view.support.thumbnails[view.row(example)]
    if not picture:
        raise Problem(404, "no_picture", "no picture is kept of this example")
    tag = f'"{hash_of(picture)}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    kind = "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"
    return Response(picture, media_type=kind, headers=headers)


def hash_of(content: bytes) -> str:
    """Return a short digest."""
    import hashlib

    return hashlib.blake2b(content, digest_size=12).hexdigest()


@router.patch("/examples/{example}", response_model=Changed, responses=failures(404, 409))
async def move_example(example: str, to: Moved, service: ServiceOf, if_match: IfMatch) -> Response:
    """Give an example to another class, known or new."""
    return await _moved(service, [example], to.class_, if_match)


@router.post("/examples/move", response_model=Changed, responses=failures(404, 409))
async def move_examples(chosen: MovedTogether, service: ServiceOf, if_match: IfMatch) -> Response:
    """Give several examples of one class to another class, known or new: all of them, or none."""
    return await _moved(service, chosen.examples, chosen.class_, if_match)


async def _moved(service: Service, examples: list[str], to: str, if_match: str | None) -> Response:
    name = check_length(require_text(to, "class"), "class")

    def act(model: FewShotImageClassifier, view: View) -> None:
        rows, label = _rows(view, examples), view.label(name, new=True)
        if others := [row for row in rows if str(view.support.labels[row]) != name]:
            model.change(lambda now: now.moved(others, label))

    return await changed(service, f"move {counted(len(set(examples)), 'image')} to {short(name)}", act, if_match)


@router.delete("/examples/{example}", response_model=Changed, responses=failures(404, 409))
async def remove_example(example: str, service: ServiceOf, if_match: IfMatch) -> Response:
    """Remove an example; a class goes with its last one."""
    return await _removed(service, [example], if_match)


@router.post("/examples/remove", response_model=Changed, responses=failures(404, 409))
async def remove_examples(chosen: Together, service: ServiceOf, if_match: IfMatch) -> Response:
    """Remove several examples, all of them or none; a class goes with its last one."""
    return await _removed(service, chosen.examples, if_match)


async def _removed(service: Service, examples: list[str], if_match: str | None) -> Response:
    def act(model: FewShotImageClassifier, view: View) -> None:
        rows = _rows(view, examples)
        if sum(view.classes.values()) == len(rows):
            what = "this is the only example" if len(rows) == 1 else "these are all examples"
            raise Problem(409, "last_example", f"{what}, and a classifier needs one; add another first")
        model.change(lambda now: now.without_rows(rows))

    return await changed(service, f"remove {counted(len(set(examples)), 'image')}", act, if_match)


def _rows(view: View, examples: list[str]) -> list[int]:
    return sorted({view.row(example) for example in examples})
