"""What `LabeledImages` is made of, checked once: images, labels, row numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.utils.labels import as_labels


def check_images(given: Any) -> NDArray[Any]:
    """Return images as a uint8 array (n, H, W) or (n, H, W, C), or as an array of n paths."""
    try:
        images = np.asarray(given)
    except ValueError:
        raise ValueError(
            "images are arrays of different shapes; scale them to one size and stack them in one array, or pass paths"
        ) from None
    if images.dtype.kind in "UO" or images.shape == (0,):
        return _check_paths(given, images)
    if images.dtype != np.uint8:
        raise TypeError(
            f"images are {images.dtype}; expected uint8, values 0..255 (for floats in 0..1: "
            "(255 * images).round().astype('uint8')), or paths"
        )
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise ValueError(
            f"images have shape {images.shape}; expected (n, H, W) or (n, H, W, C); stack them in one array"
        )
    if images.ndim == 4 and images.shape[-1] > 4:
        raise ValueError(
            f"images have shape {images.shape}, so {images.shape[-1]} channels; expected 1 to 4 in the last axis; "
            "for channels-first arrays pass images.transpose(0, 2, 3, 1)"
        )
    return images


def _check_paths(given: Any, images: NDArray[Any]) -> NDArray[Any]:
    if images.ndim == 1 and all(isinstance(item, (str, Path)) for item in images.tolist()):
        return np.array([str(item) for item in images.tolist()], dtype=object)
    raise TypeError(
        f"images are a {type(given).__name__} of {images.dtype}; expected one uint8 array (n, H, W) or (n, H, W, C), "
        "or a list of paths"
    )


def check_image_labels(labels: Any, n: int) -> NDArray[Any]:
    """Return labels (n,), none of them missing, that can be sorted; see `as_labels`."""
    found = as_labels(labels, name="the list of labels", any_type=True)
    if len(found) != n:
        raise ValueError(f"labels have shape {found.shape}; expected ({n},), one for each of the {n} images")
    return found


def check_rows(rows: ArrayLike, n: int) -> NDArray[Any]:
    """Return row numbers in -n..n-1, or a mask of n booleans, as an array."""
    index = np.asarray(rows)
    if index.ndim != 1:
        raise ValueError(f"rows have shape {index.shape}; expected a list of row numbers or a mask of {n} booleans")
    if index.size == 0 and index.dtype.kind == "f":  # np.asarray([]) is float
        index = index.astype(np.int64)
    if index.dtype.kind not in "biu":
        raise TypeError(f"rows are {index.dtype}; expected integers (row numbers) or {n} booleans (a mask)")
    if index.dtype.kind == "b" and len(index) != n:
        raise ValueError(f"the mask has {len(index)} entries; expected {n}, one for each image")
    if index.dtype.kind != "b" and index.size and not -n <= index.min() <= index.max() < n:
        raise ValueError(f"rows reach from {index.min()} to {index.max()}; expected row numbers in 0..{n - 1}")
    return index
