"""Say when the network sees little of long images: only their middle, or all of it, but small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.crop import seen_share
from fewshot.data.opening import describe, open_content, read_content
from fewshot.data.preprocess import Preprocessing
from fewshot.utils.warning import warn

#: Warn if the middle square is less than this share of the images: if it is all that is seen, or if all is seen small.
LITTLE = {"center": 0.7, "pad": 0.5}
#: Images whose size is read.
_LOOKED_AT = 100


def warn_of_unseen(images: Sequence[Any] | NDArray[Any], preprocessing: Preprocessing) -> None:
    """Warn if images are so long that the network sees little of them, and name the crop that shows it more.

    Parameters
    ----------
    images : sequence of n images
        Sources for `decode`. The sizes of a hundred of them are read; those that cannot be read are left out.
    preprocessing : Preprocessing
        How they are prepared.
    """
    mode = preprocessing.crop_mode
    if mode not in LITTLE or not len(images):
        return
    rows = np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(int).tolist()
    sizes = [size for row in rows if (size := _size_of(images[row])) is not None]
    shares = [seen_share(size, (preprocessing.width, preprocessing.height)) for size in sizes]
    share = float(np.mean(shares)) if shares else 1.0
    if share >= LITTLE[mode]:
        return
    if mode == "center":
        warn(f"the network sees only the middle of each image, {share:.0%} of it on average; crop='pad' shows it all")
    else:
        warn(
            f"the images are {1 / share:.1f} times as long as wide on average, so the network sees all of them, but "
            "small; crop='tiles' also shows it parts of each at full height, at up to six times the time"
        )


def _size_of(image: Any) -> tuple[int, int] | None:
    """Return the width and height of an image, from the header of its file; None if it cannot be read."""
    try:
        if not isinstance(image, Image.Image) and hasattr(image, "shape"):
            is_tensor = hasattr(image, "detach") and len(image.shape) > 2  # channels first
            height, width = image.shape[-2:] if is_tensor else image.shape[:2]
            return int(width), int(height)
        if not isinstance(image, Image.Image):
            name = describe(image)
            image = open_content(read_content(image, name), name)
        width, height = image.size
    except Exception:  # Pillow's formats and the caller's files may raise anything; decoding reports what is wrong
        return None
    return (width, height) if min(width, height) > 0 else None
