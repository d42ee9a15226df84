"""Trust: how good the classifier will be, which examples are suspect, and what is answered as unknown."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from starlette.responses import Response

from fewshot.classifiers.rejection import Rejection
from fewshot.images.audit import suspects
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.serve.problems import JSON, Problem, without_parameter
from fewshot.serve.routes.history import after
from fewshot.serve.schemas import RULE, Changed, CheckBody, Reject, RejectionBody, SuspectsBody, failures
from fewshot.serve.service import IfMatch, ServiceOf
from fewshot.serve.teaching import version_header
from fewshot.serve.view import View
from fewshot.utils.labels import unknown_mark
from fewshot.utils.text import as_unicode

router = APIRouter(prefix="/v1", tags=["trust"])
#: Most pairs of classes, mistakes and suspects that are told.
MOST = 100


@router.get("/check", response_model=CheckBody, responses=failures(409))
async def check(service: ServiceOf) -> Response:
    """Estimate the accuracy on new images from the examples alone, each answered as if it had not been learned."""
    view = await service.view()
    return JSON(await service.look(_checked, view), headers=version_header(view))


def _checked(view: View) -> dict[str, Any]:
    _ = view.learned
    try:
        found = view.model.check(n_shown=MOST)
    except ValueError as error:  # one class, or one example of each
        raise Problem(409, "too_few", str(error)) from None
    confused = [
        {**row, "class": str(row["class"]), "other": str(row["other"])}
        for row in found.confused.head(MOST).to_dict("records")
    ]
    gains = [
        {"class": str(label), **{name: number(value) for name, value in row.items()}}
        for label, row in zip(found.gains.index, found.gains.to_dict("records"), strict=True)
    ]
    mistakes = [
        {
            "example": view.ids_of[answer.id, str(truth)],
            "class": str(truth),
            "answer": str(answer.label),
            "probability": answer.probability,
            "neighbours": [view.ids_of[near.id, str(near.label)] for near in answer.neighbours],
        }
        for truth, answer in found.left_out.mistakes
    ]
    return {
        "version": view.version,
        "text": str(found),
        "accuracy": found.accuracy,
        "balanced_accuracy": found.balanced_accuracy if found.is_uneven else None,
        "interval": list(found.interval),
        "images": len(found.n_taught),
        "alone": [str(label) for label in found.alone],
        "refused": number(found.refused),
        "confused": confused,
        "classes": gains,
        "mistakes": mistakes,
        "duplicates": [[view.example_ids[row] for row in pair] for pair in found.near_duplicates[:MOST]],
    }


@router.get("/suspects", response_model=SuspectsBody, responses=failures(409))
async def list_suspects(service: ServiceOf) -> Response:
    """List the examples that may do harm, the most suspect first, with the neighbour that makes each suspect."""
    view = await service.view()
    return JSON(await service.look(_suspects, view), headers=version_header(view))


def _suspects(view: View) -> dict[str, Any]:
    if view.learned.support is None:
        raise Problem(409, "no_examples", "the examples were not kept, so there is nothing to look at")
    frame, ids, found = view.model.audit(), view.example_ids, []
    rows_of, embeddings = defaultdict[str, list[int]](list), view.support.embeddings
    for row, name in enumerate(frame["id"].tolist()):
        rows_of[name].append(row)
    for row, reason in suspects(frame)[:MOST]:
        one = frame.iloc[row]
        near = int(one["neighbour_row"])
        alike = (i for i in rows_of[one["duplicate_of"]] if i != row)
        # Copies may have one name, and so may images of an array, which differ.
        copies = (i for i in alike if np.array_equal(embeddings[i], embeddings[row]))
        shown = near if near >= 0 else next(copies, -1)
        found.append(
            {
                "id": ids[row],
                "name": as_unicode(view.support.ids[row]),
                "class": str(view.support.labels[row]),
                "reason": as_unicode(reason),
                "taken_for": None if near < 0 else str(one["taken_for"]),
                "neighbour": None if shown < 0 else ids[shown],
                "neighbour_class": None if shown < 0 else str(view.support.labels[shown]),
                "false_alarm": number(one["false_alarm"]),
            }
        )
    return {"version": view.version, "suspects": found}


Rule = Annotated[
    str,
    Query(
        description='"auto", "balanced", or the share of unknown images to accept, such as 0.05',
        json_schema_extra={"pattern": RULE},
    ),
]


@router.get("/rejection", response_model=RejectionBody, responses=failures(409))
async def show_rejection(service: ServiceOf, reject: Rule = "auto") -> Response:
    """Tell what answering some images as unknown would cost, without setting it."""
    view = await service.view()
    rule = rule_of(reject)
    costs = None if rule is None else await service.look(_cost, view.model if view.learned else None, rule)
    body = {"version": view.version, "rejection": view.model.reject, "costs": costs}
    return JSON(body, headers=version_header(view))


@router.put("/rejection", response_model=Changed, responses=failures(409))
async def set_rejection(given: Reject, service: ServiceOf, if_match: IfMatch) -> Response:
    """Set what is answered as unknown."""
    rule = rule_of(given.reject)

    def act(model: FewShotImageClassifier, view: View) -> None:
        _ = view.learned
        if rule is not None:
            _cost(model, rule)
        model.set_params(reject=rule)

    view, _ = await service.change(f"reject {rule or 'none'}", act, if_match)
    return await after(view)


def rule_of(given: str | float) -> str | None:
    """Return the value of `reject` that a client means.

    Examples
    --------
    >>> rule_of("off"), rule_of("auto"), rule_of(0.05), rule_of("0.1")
    (None, 'auto', '5%', '10%')
    """
    if given == "off":
        return None
    if given in ("auto", "balanced"):
        return str(given)
    try:
        rate = float(given)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 0.999:
        raise Problem(422, "invalid", "reject must be off, auto, balanced or a share of unknown images, 0 to 0.999")
    return f"{100 * rate:.6g}%"


def _cost(model: FewShotImageClassifier, rule: str) -> dict[str, Any]:
    try:
        found: Rejection = model.rejection(rule)
        mark = unknown_mark(model.unknown_label, model.classes_)
    except ValueError as error:  # one class, or a class of the name of the unknown
        raise Problem(409, "no_rejection", without_parameter(str(error), "rename the class")) from None
    return {
        "text": str(found),
        "threshold": found.threshold,
        "unknown_accepted": found.false_accept_rate,
        "unknown_accepted_interval": list(found.false_accept_interval),
        "known_refused": number(found.false_reject_rate),
        "known_refused_interval": [number(end) for end in found.false_reject_interval],
        "unknown_label": str(mark),
    }


def number(value: Any) -> float | int | None:
    """Return a number that JSON can hold; None for NaN and what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and not isinstance(value, float) else float(value)
