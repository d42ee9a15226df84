"""Notice a classifier and images that were given in each other's place."""

from __future__ import annotations

import argparse
import os

#: Options that name a classifier, and those that name images.
_CLASSIFIER, _IMAGES = ("dir", "model"), ("images", "data", "folder")


def exchanged(options: argparse.Namespace) -> str:
    """Return a message if images were given as the classifier and the classifier as images, or nothing.

    Examples
    --------
    >>> exchanged(argparse.Namespace(dir="there is no", images=["such folder"]))
    ''
    """
    from fewshot.persistence.artifact import is_artifact

    named = (getattr(options, name, None) for name in _CLASSIFIER)
    given = next((value for value in named if isinstance(value, str)), "")
    if not os.path.exists(given) or is_artifact(given):
        return ""
    images: list[str] = []
    for name in _IMAGES:
        value = getattr(options, name, None)
        images += value if isinstance(value, list) else [] if value is None else [value]
    found = next((image for image in images if is_artifact(image)), None)
    return "" if found is None else f"{given} is not a saved classifier, but {found} is; exchange the two"
