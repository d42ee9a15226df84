"""Images and labels of data sets of torchvision and Hugging Face `datasets`, without importing either."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.frames import LABEL_COLUMNS
from fewshot.utils.containers import to_numpy
from fewshot.utils.labels import as_labels
from fewshot.utils.text import listed


def is_dataset(given: Any) -> bool:
    """Whether this is a data set of Hugging Face, or one of torch that has a length."""
    if isinstance(given, Mapping):
        return bool(given) and all(map(_is_of_hub, given.values()))
    sized = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(given).__mro__}
    return _is_of_hub(given) or (sized and "torch.Dataset" in kinds)


def read_dataset(dataset: Any, image: str | None, label: str | None) -> tuple[Any, NDArray[Any]]:
    """Return images and labels; see `LabeledImages.from_dataset`."""
    if isinstance(dataset, Mapping):
        first = next(iter(dataset))
        raise ValueError(f"the data set has the splits {listed(list(dataset))}; pass one, dataset[{first!r}]")
    if hasattr(dataset, "features") and not hasattr(dataset, "__len__"):
        raise TypeError("the data set is a stream; take a part of it: Dataset.from_list(list(dataset.take(100)))")
    if _is_of_hub(dataset):
        return _of_hub(dataset, image, label)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}; expected a data set of torchvision or Hugging Face, or another "
            "with a length whose items are (image, label)"
        )
    images, codes = _of_torch(dataset)
    names = _class_names(dataset)
    if names and all(isinstance(code, (int, np.integer)) and 0 <= code < len(names) for code in codes):
        codes = [names[int(code)] for code in codes]
    return images, as_labels(codes, name="the list of labels", any_type=True)


def _is_of_hub(given: Any) -> bool:
    return hasattr(given, "features") and hasattr(given, "column_names") and hasattr(given, "cast_column")


def _of_hub(dataset: Any, image: str | None, label: str | None) -> tuple[list[Any], NDArray[Any]]:
    """Return encoded images, or their paths, and labels by name."""
    features = dataset.features
    pictures = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
    named = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    named += [name for name in LABEL_COLUMNS if name in features and name not in named]
    image, label = _chosen(image, pictures, "image", features), _chosen(label, named, "label", features)
    if type(features[image]).__name__ == "Image":  # undecoded images take less memory
        dataset = dataset.cast_column(image, replace(features[image], decode=False))
    images = []
    for stored in dataset.select_columns([image]).with_format(None)[image]:
        is_file = isinstance(stored, dict)
        images.append((stored["path"] if stored["bytes"] is None else stored["bytes"]) if is_file else stored)
    labels = list(dataset.with_format(None)[label])
    if hasattr(features[label], "int2str"):
        labels = features[label].int2str(labels)
    return images, as_labels(labels, name=f"the column {label!r}", any_type=True)


def _chosen(asked: str | None, found: Sequence[str], what: str, features: Mapping[str, Any]) -> str:
    if asked is not None and asked in features:
        return asked
    if asked is not None:
        raise ValueError(f"the data set has no column {asked!r}; it has {listed(list(features))}")
    if not found:
        raise ValueError(
            f"no column of the data set holds {what}s; name it: {what}=... (it has {listed(list(features))})"
        )
    return found[0]


def _of_torch(dataset: Any) -> tuple[Any, list[Any]]:
    """Return the images as they are stored, without the transform of the data set, and the labels."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # a Subset
        images, labels = _of_torch(dataset.dataset)
        rows = [int(row) for row in dataset.indices]
        some = [images[row] for row in rows] if isinstance(images, list) else images[rows]
        return some, [labels[row] for row in rows]
    if isinstance(found := getattr(dataset, "samples", None), list) and hasattr(dataset, "loader"):  # a folder
        return [path for path, _ in found], [_target(dataset, code) for _, code in found]
    codes = next((getattr(dataset, name) for name in ("targets", "labels") if hasattr(dataset, name)), None)
    pixels = to_numpy(getattr(dataset, "data", None))
    stacked = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim in (3, 4)
    if stacked and codes is not None and len(codes) == len(pixels) == len(dataset):
        if pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[-1] not in (1, 3):
            pixels = pixels.transpose(0, 2, 3, 1)
        return pixels, [_target(dataset, code) for code in np.asarray(to_numpy(codes)).tolist()]
    raw = copy.copy(dataset)
    for name in ("transform", "transforms"):  # these would crop, scale and normalise
        if hasattr(raw, name):
            setattr(raw, name, None)
    pairs = [_pair(raw[i], i) for i in range(len(dataset))]
    return [image for image, _ in pairs], [label for _, label in pairs]


def _target(dataset: Any, code: Any) -> Any:
    change = getattr(dataset, "target_transform", None)
    return code if change is None else change(code)


def _pair(item: Any, i: int) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise ValueError(f"item {i} of the data set is a {type(item).__name__}; expected (image, label)")
    label = item[1]
    return item[0], label.item() if hasattr(label, "item") and getattr(label, "ndim", 1) == 0 else label


def _class_names(dataset: Any) -> list[str]:
    """Return the names of the classes that a data set tells, or none."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if getattr(dataset, "target_transform", None) is not None or not isinstance(names, (list, tuple)):
        return []
    return [name for name in names if isinstance(name, str)] if all(isinstance(n, str) for n in names) else []
