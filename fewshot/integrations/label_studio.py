"""Label Studio: tasks with pre-annotations, the answers of its ML backend, and its exports.

Formats: labelstud.io/guide/predictions, labelstud.io/guide/export (JSON, JSON-MIN and CSV of single choices).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from fewshot.errors import brief
from fewshot.integrations.labels import LOCAL, Finder, ImportedLabels, Task, answered, as_list, as_mapping, gathered
from fewshot.persistence.files import write_text
from fewshot.utils.text import as_unicode, listed

if TYPE_CHECKING:  # it loads torch
    from fewshot.images.model import FewShotModel

#: Names of the control, the image and its field in the data of a task.
CONTROL, IMAGE, FIELD = "choice", "image", "image"
#: The field of a task that keeps the path, whatever address Label Studio gives to the image.
PATH = "path"
#: Fields of JSON-MIN and CSV that Label Studio adds.
_OWN = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}


def write_label_studio(
    tasks: Sequence[Task], path: str | Path, root: str | Path = os.sep, classes: Iterable[Any] = ()
) -> None:
    """Write tasks to import, and beside them the labelling interface, with the suffix ``.xml``.

    Parameters
    ----------
    tasks : sequence of Task
        Labels become annotations, answers become predictions.
    path : path
        The JSON file.
    root : path, default="/"
        Label Studio's ``LOCAL_FILES_DOCUMENT_ROOT``, from which it serves images.
    classes : iterable, default=()
        Classes to choose from, besides the labels and answers of the tasks.

    Raises
    ------
    ValueError
        If an image lies outside of `root`.
    """
    named = [label for task in tasks for label in (task.label, task.answer) if label is not None]
    rows = [
        {
            "data": {FIELD: _address(task.path, root), PATH: as_unicode(os.path.abspath(task.path))},
            "annotations": [] if task.label is None else [{"result": _result(task.label)}],
            "predictions": [] if task.answer is None else [_prediction(task)],
        }
        for task in tasks
    ]
    write_text(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    names = sorted({as_unicode(str(label)) for label in (*classes, *named)})
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    write_text(
        Path(path).with_suffix(".xml"),
        f'<View>\n  <Image name="{IMAGE}" value="${FIELD}"/>\n'
        f'  <Choices name="{CONTROL}" toName="{IMAGE}" choice="single">\n{choices}  </Choices>\n</View>\n',
    )


def answer_label_studio(model: FewShotModel, request: Mapping[str, Any], folder: str | Path = os.sep) -> dict[str, Any]:
    """Return what a Label Studio ML backend answers to ``POST /predict``.

    Parameters
    ----------
    model : FewShotModel
        Answers.
    request : mapping
        The JSON of the request: ``tasks``, and ``label_config``, which names control and image.
    folder : path, default="/"
        Where Label Studio serves images from.

    Returns
    -------
    dict
        ``results``, a prediction for each task, and ``model_version``. It is empty for an image that is not found or
        cannot be read, for an unknown one, and for a class that the labelling interface lacks.

    Examples
    --------
    >>> from fewshot import FewShotModel, OwnEmbedder
    >>> model = FewShotModel(OwnEmbedder(lambda paths: [[len(path), 1] for path in paths], "length"))
    >>> model = model.fit(["a", "a long path"], ["short", "long"])
    >>> answer_label_studio(model, {"tasks": [{"data": {"image": "/no/such/file.png"}}]})["results"][0]["result"]
    []
    """
    names, finder = _names_of(request.get("label_config")), Finder(Path(folder))
    version, paths, results = model.embedder_.fingerprint[:16], {}, []
    tasks = [as_mapping(as_mapping(task).get("data")) for task in as_list(request.get("tasks"))]
    for i, data in enumerate(tasks):
        try:
            paths[i] = finder.find([str(data.get(PATH, "")), str(data.get(names[2], ""))])
        except (ValueError, StopIteration):
            continue
    found = dict(zip(paths, answered(model, [Task(path) for path in paths.values()]), strict=True)) if paths else {}
    for i in range(len(tasks)):
        task = found.get(i, Task(""))
        known = task.answer is not None and (names[3] is None or str(task.answer) in names[3])
        result = _result(task.answer, names[0], names[1]) if known else []
        results.append({"model_version": version, "score": float(task.probability), "result": result})
    return {"results": results, "model_version": version}


def _names_of(config: Any) -> tuple[str, str, str, set[str] | None]:
    """Return the names of control, image and field in a labelling interface, and its choices."""
    try:
        view = ElementTree.fromstring(config) if config else None
    except ElementTree.ParseError:
        raise ValueError(f"label_config is {brief(config)}; expected the XML of a labelling interface") from None
    control = None if view is None else view.find(".//Choices")
    if view is None or control is None:
        return CONTROL, IMAGE, FIELD, None
    image = control.get("toName", IMAGE)
    fields = {tag.get("name"): tag.get("value", "").lstrip("$") for tag in view.iter("Image")}
    choices = {choice.get("value", "") for choice in control.iter("Choice")}
    return control.get("name", CONTROL), image, fields.get(image) or FIELD, choices or None


def _prediction(task: Task) -> dict[str, Any]:
    return {"model_version": "fewshot", "score": float(task.probability), "result": _result(task.answer)}


def _result(label: Any, control: str = CONTROL, image: str = IMAGE) -> list[dict[str, Any]]:
    value = {"choices": [as_unicode(str(label))]}
    return [{"from_name": control, "to_name": image, "type": "choices", "value": value}]


def _address(path: str, root: str | Path) -> str:
    inside = os.path.relpath(os.path.abspath(path), os.path.abspath(root))
    if inside.startswith(os.pardir):
        raise ValueError(f"{brief(path)} lies outside of root={str(root)!r}, from which Label Studio serves images")
    return f"{LOCAL}?d={quote(Path(inside).as_posix(), errors='surrogateescape')}"


def read_label_studio(tasks: Any, folder: str | Path, field: str | None = None) -> ImportedLabels:
    """Return the labels of an export.

    Parameters
    ----------
    tasks : list of dict
        The content of a JSON or JSON-MIN export, or the rows of a CSV export.
    folder : path
        Where the images lie.
    field : str, optional
        Name of the control that holds the labels, if there are several.

    Raises
    ------
    ValueError
        If it is none of these, or there are several controls.
    """
    if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
        raise ValueError("this is no export of Label Studio; expected a list of tasks")
    whole = any("data" in task for task in tasks)
    controls = sorted(set(_controls(tasks) if whole else _columns(tasks)))
    if field is None and len(controls) > 1:
        field = CONTROL if CONTROL in controls else None
        if field is None:
            raise ValueError(f"there are several fields with labels, {listed(controls)}; choose one with field=")
    control = field or (controls[0] if controls else CONTROL)
    if field is not None and controls and field not in controls:
        raise ValueError(f"no label is in the field {field!r}; there are {listed(controls)}")
    return gathered((_of_task if whole else _of_row)(tasks, control), Path(folder))


def _results(task: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Yield the annotations of a task that were not skipped, each with its choices; ground truth alone if there is."""
    given = as_list(task.get("annotations", task.get("completions")))
    kept = [as_mapping(one) for one in given if not as_mapping(one).get("was_cancelled")]
    truth = [one for one in kept if one.get("ground_truth")]
    for one in truth or kept:
        results = [as_mapping(result) for result in as_list(one.get("result"))]
        yield one, [result for result in results if result.get("type") == "choices"]


def _controls(tasks: list[Mapping[str, Any]]) -> Iterator[str]:
    for task in tasks:
        for _, results in _results(task):
            yield from (str(result.get("from_name", CONTROL)) for result in results)


def _of_task(tasks: list[Mapping[str, Any]], control: str) -> Iterator[tuple[list[str], list[str], str]]:
    for task in tasks:
        data = as_mapping(task.get("data"))
        labels = [
            _choices(as_mapping(result.get("value")).get("choices"))
            for _, results in _results(task)
            for result in results
            if str(result.get("from_name", CONTROL)) == control
        ]
        yield _addresses(data), sorted({label for one in labels for label in one}), ""


def _columns(tasks: list[Mapping[str, Any]]) -> Iterator[str]:
    for task in tasks:
        yield from (str(name) for name in task if name not in {*_OWN, FIELD, PATH})


def _of_row(tasks: list[Mapping[str, Any]], control: str) -> Iterator[tuple[list[str], list[str], str]]:
    for row in tasks:
        value = row.get(control)
        if isinstance(value, str) and value.startswith("{"):  # several choices in CSV
            with suppress(json.JSONDecodeError):
                value = json.loads(value)
        yield _addresses(row), _choices(value.get("choices") if isinstance(value, Mapping) else value), ""


def _choices(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if one is not None and str(one) != ""]


def _addresses(data: Mapping[str, Any]) -> list[str]:
    """Return the path that `write_label_studio` has left, and the address of the image."""
    image = data.get(FIELD)
    if image is None:  # another name, chosen in the labelling interface
        image = next((v for k, v in data.items() if k not in _OWN and isinstance(v, str) and "/" in v), "")
    return [str(data.get(PATH, "")), str(image)]
