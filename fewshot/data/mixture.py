"""Join several data sets, for training across domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.images import LabeledImages
from fewshot.utils.labels import as_labels


def mix(sources: Mapping[str, LabeledImages]) -> tuple[LabeledImages, NDArray[Any]]:
    """Join data sets into one, with classes named ``source/label``.

    Parameters
    ----------
    sources : mapping of str to LabeledImages
        Decoded images of one size and number of channels; see `LabeledImages.decoded`.

    Returns
    -------
    data : LabeledImages
        All images, one source after the other.
    groups : ndarray of shape (n,)
        The source of each image, for `GroupedEpisodeSampler`, which draws each episode from one source.

    Raises
    ------
    ValueError
        If there is no source, or the sizes of images differ.

    Examples
    --------
    >>> from functools import partial
    >>> from fewshot import EpisodeSampler, GroupedEpisodeSampler, digits, glyphs, mix
    >>> data, groups = mix({"digits": digits(), "glyphs": glyphs("val")})
    >>> sampler = GroupedEpisodeSampler(data.labels, groups, partial(EpisodeSampler, n_way=10, n_query=5))
    >>> len({label.partition("/")[0] for label in sampler[0].classes})
    1
    """
    if not sources:
        raise ValueError("there are no sources; pass e.g. mix({'photos': photos, 'drawings': drawings})")
    shapes = {name: data.images.shape[1:] if data.is_decoded else () for name, data in sources.items()}
    first, *others = shapes
    for name in others:
        if shapes[name] != shapes[first] or not shapes[name]:
            raise ValueError(
                f"images of {first!r} are {_size(shapes[first])} and those of {name!r} {_size(shapes[name])}; decode "
                "all to one size, e.g. data.decoded(size=84)"
            )
    labels = [f"{name}/{label}" for name, data in sources.items() for label in data.labels.tolist()]
    images = np.concatenate([data.images for data in sources.values()])
    return LabeledImages(images, as_labels(labels)), np.repeat(list(sources), [len(data) for data in sources.values()])


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "files"
