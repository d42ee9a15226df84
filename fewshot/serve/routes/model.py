"""The classifier as a whole: what it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from starlette.responses import Response

from fewshot._version import __version__
from fewshot.images.stored import described
from fewshot.serve.problems import JSON
from fewshot.serve.schemas import ModelBody, failures
from fewshot.serve.service import Service, ServiceOf
from fewshot.serve.teaching import version_header
from fewshot.serve.view import View
from fewshot.utils.labels import unknown_mark

router = APIRouter(prefix="/v1", tags=["model"])


@router.get("/model", response_model=ModelBody, responses=failures())
async def show_model(service: ServiceOf) -> Response:
    """Show what the classifier is, its version, and the limits of the service."""
    view = await service.view()
    return JSON(await to_thread.run_sync(_shown, service, view), headers=version_header(view))


def _for_stores(view: View) -> dict[str, Any]:
    """Return what tables and stores of its embeddings need to know."""
    classes, unknown = view.model.classes_, None
    with suppress(ValueError):  # labels of this type have no default
        unknown = unknown_mark(view.model.unknown_label, classes)
    return {
        "fingerprint": view.embedder.fingerprint,
        "metric": view.learned.classifier.learner_.item_metric,
        "label_type": type(classes.tolist()[0]).__name__,
        "unknown_label": unknown,
    }


def _shown(service: Service, view: View) -> dict[str, Any]:
    settings, embedder = service.settings, view.embedder
    facts = {} if view.is_empty else described(view.learned)
    backbone = getattr(embedder, "name", None) or facts.get("backbone") or getattr(embedder, "backbone", "")
    return {
        "name": Path(view.folder).resolve().name,
        "fewshot": __version__,
        "version": view.version,
        "classes": len(view.classes),
        "examples": sum(view.classes.values()),
        "keeps_examples": view.is_empty or view.learned.support is not None,
        "takes_images": view.takes_images,
        "compares_places": view.compares_places,
        "backbone": str(backbone),
        "d": None if view.is_empty else view.learned.classifier.model_.d,
        "described": facts,
        **({} if view.is_empty else _for_stores(view)),
        "can_undo": view.steps.undo is not None,
        "can_redo": view.steps.redo is not None,
        "read_only": service.workshop.read_only,
        "rejection": view.model.reject,
        "trouble": service.workshop.trouble,
        "limits": {
            "body_bytes": settings.max_body,
            "archive_bytes": settings.max_archive,
            "pixels": settings.max_pixels,
            "images": settings.max_images,
        },
    }
