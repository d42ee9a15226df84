"""Take it away: download the classifier or its form for devices, and load one."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import IO, Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from fewshot.errors import ArtifactError
from fewshot.images.exporting.folder import export
from fewshot.serve.archives import parts_of, unzip, zip_artifact, zip_folder
from fewshot.serve.problems import Problem
from fewshot.serve.routes.history import after
from fewshot.serve.schemas import Changed, failures
from fewshot.serve.service import IfMatch, Service, ServiceOf
from fewshot.serve.view import View
from fewshot.serve.workshop import load_any

router = APIRouter(prefix="/v1", tags=["model"])
_ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/model/download", response_class=Response, responses={**_ZIP, **failures(409)})
async def download(service: ServiceOf) -> Response:
    """Download the classifier as a zip file of its folder, without its history; all commands read the folder."""
    view = await service.view()
    _ = view.learned
    return _sent(await service.look(zip_artifact, view.folder, "classifier"), view, "")


@router.get("/model/device", response_class=Response, responses={**_ZIP, **failures(409, 501)})
async def download_for_devices(service: ServiceOf) -> Response:
    """Download the classifier for devices without torch, as a zip file of what ``fewshot.export`` writes."""
    view = await service.view()
    _ = view.learned
    return _sent(await service.look(_exported, view), view, "-device")


def _exported(view: View) -> IO[bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "device")
        try:
            export(view.model, folder)
        except (TypeError, ArtifactError) as error:
            raise Problem(409, "no_export", str(error)) from None
        return zip_folder(folder)


def _sent(file: IO[bytes], view: View, suffix: str) -> Response:
    size = file.seek(0, 2)
    file.seek(0)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(view.folder).resolve().name) or "classifier"
    headers = {"Content-Disposition": f'attachment; filename="{name}{suffix}.zip"', "Content-Length": str(size)}
    return StreamingResponse(parts_of(file), media_type="application/zip", headers=headers)


@router.post("/model/load", response_model=Changed, responses=failures(409, 415), openapi_extra=_BODY)
async def load(request: Request, service: ServiceOf, if_match: IfMatch) -> Response:
    """Replace the classifier by an uploaded one, a zip file of its folder; undo returns to the one before.

    The upload is checked like any stranger's: loading it runs no code and opens no other file.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/zip":
        raise Problem(415, "unsupported", "the body must be a zip file, sent as application/zip")
    if service.workshop.read_only:
        raise Problem(403, "read_only", "this service is read-only; start it without --read-only to change it")
    with tempfile.TemporaryFile() as file:
        async for part in request.stream():
            file.write(part)
        file.seek(0)
        view = await service.in_turn(_replaced, service, file, if_match)
    return await after(view)


def _replaced(service: Service, file: IO[bytes], if_match: str | None) -> View:
    with tempfile.TemporaryDirectory() as folder:
        unzip(file, folder, service.settings.max_archive)
        try:
            model = load_any(folder, service.settings.device)
        except ArtifactError as error:
            raise Problem(422, "invalid", str(error).replace(folder, "the upload")) from None
        return service.workshop.replace(model, "load a classifier", if_match)
