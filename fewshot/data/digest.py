"""Identify data by the SHA-256 of images and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from fewshot.data.images import LabeledImages


def hash_contents(contents: Iterable[bytes]) -> list[str]:
    """Return the SHA-256 of each content."""
    return [hashlib.sha256(content).hexdigest() for content in contents]


def digest_images(data: LabeledImages) -> str:
    """Return the SHA-256 of decoded images and their labels, in order.

    Examples
    --------
    >>> from fewshot import digits
    >>> len(digest_images(digits()))
    64
    """
    found = hashlib.sha256(f"{data.images.dtype} {data.images.shape}\n".encode())
    for start in range(0, len(data), 4096):  # do not read a memory-mapped file at once
        found.update(data.images[start : start + 4096].tobytes())
    found.update("\n".join(map(repr, data.labels.tolist())).encode())
    return found.hexdigest()


def digest_classes(data: LabeledImages) -> dict[Any, str]:
    """Return the SHA-256 of the decoded images of each class, which depends on neither their order nor their label.

    Examples
    --------
    >>> from fewshot import digits
    >>> len(set(digest_classes(digits()).values()))
    10
    """
    contents: dict[Any, set[str]] = {}
    hashes = hash_contents(image.tobytes() for image in data.images)
    for label, content in zip(data.labels.tolist(), hashes, strict=True):
        contents.setdefault(label, set()).add(content)
    return {label: hashlib.sha256("".join(sorted(own)).encode()).hexdigest() for label, own in contents.items()}
