"""Handwritten digits from scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewshot.data.images import LabeledImages

#: Side of the digit relative to the image; the rest is margin, as in `glyphs`.
_INK = 20 / 28


def digits(*, size: int = 28) -> LabeledImages:
    """Return 1797 handwritten digits by 43 writers, without a download.

    The 8 x 8 images of ``sklearn.datasets.load_digits`` are enlarged by bicubic interpolation to 20/28 of the side,
    with a black margin like `glyphs`; ink is 255. Since `glyphs` contains no digits, this data set tests how embeddings
    that were trained on print transfer to handwriting.

    Parameters
    ----------
    size : int, default=28
        Side of the images in pixels, at least 8.

    Returns
    -------
    LabeledImages
        Images of shape (1797, size, size), labels 0..9, 174 to 183 images per class.

    Raises
    ------
    ValueError
        If `size` is below 8.

    References
    ----------
    E. Alpaydin, C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning Repository.

    Examples
    --------
    >>> from fewshot import digits
    >>> digits()
    LabeledImages(1797 images of 28 x 28, 10 classes)
    """
    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8 pixels, the side of the originals")
    from sklearn.datasets import load_digits

    data = load_digits()
    return LabeledImages(np.stack([_frame(image, size) for image in data.images]), data.target)


def _frame(image: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    from PIL import Image

    # The margin is added before interpolation, so that strokes at the border fade out.
    padded = Image.fromarray(np.pad(image * (255 / 16), 4).astype(np.float32))
    half = 4 / _INK
    large = padded.resize((size, size), Image.Resampling.BICUBIC, box=(8 - half, 8 - half, 8 + half, 8 + half))
    return np.asarray(large).round().clip(0, 255).astype(np.uint8)
