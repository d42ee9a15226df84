"""Classes: list, learn, rename, merge and remove them."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.serve.listing import Order, list_part
from fewshot.serve.problems import JSON, Problem
from fewshot.serve.routes.history import changed
from fewshot.serve.schemas import NAME, Changed, Classes, LearnedBody, Renamed, body, failures
from fewshot.serve.service import IfMatch, Service, ServiceOf
from fewshot.serve.teaching import short, teach, version_header
from fewshot.serve.uploads import read_sent, require_text
from fewshot.serve.view import View
from fewshot.utils.labels import check_length

router = APIRouter(prefix="/v1", tags=["classes"])
Name = Annotated[str, Query(description="the class", min_length=1)]
PLACE = {"pattern": "^$|^[0-9]{1,17} "}
Merge = Annotated[bool, Query(description="whether to add its examples to the class of that name, if there is one")]


@router.get("/classes", response_model=Classes, responses=failures())
async def list_classes(
    service: ServiceOf,
    thumbnails: Annotated[int, Query(ge=0, le=100, description="how many ids of its latest examples to tell")] = 12,
    limit: Annotated[int, Query(ge=1, le=1000, description="how many classes to tell")] = 1000,
    after: Annotated[str, Query(description="next of the answer before", json_schema_extra=PLACE)] = "",
    order: Annotated[Order, Query(description="sorted as labels, or by the number of examples")] = "name",
    search: Annotated[str, Query(description="only classes with this text in their name")] = "",
    name: Annotated[str | None, Query(description="only the class of this name")] = None,
) -> Response:
    """List the classes with the number of their examples, and the ids of the latest ones; in parts if they are many.

    As long as there is a ``next``, send it as ``after`` for more, with the same order and search. Classes that are
    learned or removed meanwhile move no others.
    """
    view = await service.view()
    part = await to_thread.run_sync(list_part, view, limit, after, order, search, name)
    ids, rows = (view.example_ids, view.rows_of) if thumbnails else ([], {})
    found = [
        {"name": name, "examples": n, "thumbnails": [ids[row] for row in rows.get(name, [])[:thumbnails]]}
        for name, n in part.classes
    ]
    body = {"version": view.version, "total": part.total, "classes": found, "next": part.next}
    return JSON(body, headers=version_header(view))


@router.post(
    "/classes",
    status_code=201,
    response_model=LearnedBody,
    responses={200: {"model": LearnedBody, "description": "The class was known"}, **failures(409, 415)},
    openapi_extra=body(name={**NAME, "example": "heron"}),
)
async def learn_class(request: Request, service: ServiceOf, if_match: IfMatch) -> Response:
    """Learn a class from a few images, or more images of a known one (200); it answers in the next request.

    Images that the class holds already are not learned again, so that a request may be repeated.
    """
    sent = await read_sent(request, service.settings, "name")
    return await teach(service, sent, sent.text("name"), if_match)


@router.patch("/classes/{name:path}", response_model=Changed, responses=failures(404, 409))
async def rename_class(
    name: str, new: Renamed, service: ServiceOf, if_match: IfMatch, merge: Merge = False
) -> Response:
    """Rename a class. The name is percent-encoded."""
    return await _rename(service, name, new.name, merge, if_match)


@router.patch("/classes", response_model=Changed, responses=failures(404, 409))
async def rename_class_by_query(
    name: Name, new: Renamed, service: ServiceOf, if_match: IfMatch, merge: Merge = False
) -> Response:
    """Rename a class whose name does not survive in a path, such as ``..``."""
    return await _rename(service, name, new.name, merge, if_match)


@router.delete("/classes/{name:path}", response_model=Changed, responses=failures(404, 409))
async def remove_class(name: str, service: ServiceOf, if_match: IfMatch) -> Response:
    """Remove a class with its examples. The name is percent-encoded."""
    return await _remove(service, name, if_match)


@router.delete("/classes", response_model=Changed, responses=failures(404, 409))
async def remove_class_by_query(name: Name, service: ServiceOf, if_match: IfMatch) -> Response:
    """Remove a class whose name does not survive in a path, such as ``..``."""
    return await _remove(service, name, if_match)


async def _rename(service: Service, old: str, new: str, merge: bool, if_match: str | None) -> Response:
    check_length(require_text(new, "name"), "name")

    def act(model: FewShotImageClassifier, view: View) -> None:
        label, wanted = view.label(old), view.label(new, new=True)
        if old == new:
            return
        if new in view.classes and not merge:
            raise Problem(409, "class_exists", f"there is a class {new!r:.200} already; merge=true joins the two")
        model.rename_class(label, wanted, merge=merge)

    return await changed(service, f"rename {short(old)} to {short(new)}", act, if_match)


async def _remove(service: Service, name: str, if_match: str | None) -> Response:
    def act(model: FewShotImageClassifier, view: View) -> None:
        label = view.label(name)
        if len(view.classes) == 1:
            raise Problem(409, "last_class", "this is the only class, and a classifier needs one; teach another first")
        model.remove_class(label)

    return await changed(service, f"remove {short(name)}", act, if_match)
