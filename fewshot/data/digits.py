"""Real handwritten digits, from scikit-learn: no download."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from fewshot.data.images import LabeledImages

#: Share of the side that the 8 x 8 field of a digit takes; the rest is margin, as around the glyphs.
_EXTENT = 0.86


def digits(*, size: int = 28) -> LabeledImages:
    """Return scikit-learn's 1797 handwritten digits, enlarged from 8 x 8 pixels, ink = 255.

    Parameters
    ----------
    size : int, default=28
        Side of the images, at least 8.

    Returns
    -------
    LabeledImages
        Images (1797, size, size) and labels 0..9.

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
    from sklearn.datasets import load_digits

    if size < 8:
        raise ValueError(f"size is {size}; the originals have 8 pixels a side, so expected at least 8")
    raw = load_digits()
    inner = round(size * _EXTENT)
    x = torch.from_numpy(raw.images).unsqueeze(1) / 16
    x = F.interpolate(x, size=(inner, inner), mode="bicubic", align_corners=False).clamp(0, 1)
    before = (size - inner) // 2
    x = F.pad(x, [before, size - inner - before] * 2)
    return LabeledImages((x[:, 0] * 255).round().to(torch.uint8).numpy(), raw.target.astype(np.int64))
