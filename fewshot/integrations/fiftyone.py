"""FiftyOne: its data set on disk for image classification, written and read as JSON.

``fiftyone.Dataset.from_dir(folder, dataset_type=fiftyone.types.LegacyFiftyOneDataset)`` loads what is written. What
FiftyOne exports as ``FiftyOneDataset`` or ``FiftyOneImageClassificationDataset`` is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.integrations.labels import ImportedLabels, Task, as_list, as_mapping, gathered
from fewshot.persistence.files import write_text
from fewshot.utils.text import as_unicode

#: Fields of a sample, and files of a data set.
TRUTH, ANSWER, SAMPLES, LABELS = "ground_truth", "predictions", "samples.json", "labels.json"


def write_fiftyone(tasks: Sequence[Task], folder: str | Path) -> None:
    """Write samples with ``filepath``, ``ground_truth`` and ``predictions``; images stay where they are."""
    samples = [
        {
            "filepath": as_unicode(os.path.abspath(task.path)),
            "tags": [],
            TRUTH: _classification(task.label),
            ANSWER: _classification(task.answer, float(task.probability)),
        }
        for task in tasks
    ]
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_text(Path(folder) / "metadata.json", json.dumps({"media_type": "image"}))
    write_text(Path(folder) / SAMPLES, json.dumps({"samples": samples}, indent=1, ensure_ascii=False) + "\n")


def _classification(label: Any, confidence: float | None = None) -> dict[str, Any] | None:
    if label is None:
        return None
    sure = {} if confidence is None else {"confidence": confidence}
    return {"_cls": "Classification", "label": as_unicode(str(label)), **sure}


def read_fiftyone(content: Mapping[str, Any], folder: str | Path, field: str | None = None) -> ImportedLabels:
    """Return the labels of a data set.

    Parameters
    ----------
    content : mapping
        The content of its ``samples.json`` or ``labels.json``.
    folder : path
        Where it lies.
    field : str, default="ground_truth"
        The field that holds the labels.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(content.get("samples"), list):
        return gathered(_of_samples(content["samples"], field or TRUTH), Path(folder))
    if isinstance(content.get("labels"), Mapping):
        return gathered(_of_labels(content, Path(folder) / "data"), Path(folder))
    raise ValueError("this is no data set of FiftyOne; expected samples.json or labels.json")


def _of_samples(samples: list[Any], field: str) -> Iterator[tuple[list[str], list[str], str]]:
    for sample in map(as_mapping, samples):
        value = as_mapping(sample.get(field))
        many = as_list(value.get("classifications")) if "classifications" in value else [value]
        labels = [as_mapping(one).get("label") for one in many]
        yield [str(sample.get("filepath", ""))], [str(label) for label in labels if label not in (None, "")], ""


def _of_labels(content: Mapping[str, Any], data: Path) -> Iterator[tuple[list[str], list[str], str]]:
    files = {path.relative_to(data).with_suffix("").as_posix(): path for path in sorted(data.rglob("*")) if path.suffix}
    classes = content.get("classes")
    for name, target in content["labels"].items():
        labels, problem = [], ""
        for one in target if isinstance(target, list) else [target]:
            label = one.get("label") if isinstance(one, Mapping) else one
            if isinstance(classes, list) and isinstance(label, int) and not isinstance(label, bool):
                if 0 <= label < len(classes):
                    label = classes[label]
                else:
                    problem = f"its class {label} is not among the {len(classes)} classes"
            labels += [] if label in (None, "") else [str(label)]
        yield [str(files.get(name, data / name))], labels, problem
