"""Where a match is: which places of an image, and of a support image of its class, made a learner answer so."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fewshot.images.support import Support
from fewshot.learners.local import LocalLearner
from fewshot.search.similarity import to_tensor
from fewshot.utils.isolation import isolated

#: Support images of a class that are looked at, the last that were learned.
MOST_SHOWN = 64
#: Colour of places that matter, how much of it covers them, what is left of the light elsewhere, and pixels of a side.
COLOUR, COVER, DIM, SIDE = (255, 170, 0), 0.45, 0.45, 192


@dataclass(frozen=True, eq=False)
class PlaceMatch:
    """Where an image matches the class it was given, and one support image of that class.

    Attributes
    ----------
    label : object
        The class.
    id : str
        The support image.
    row : int
        Its place in the support: several images may have one name.
    query, support : ndarray of shape (h, w)
        For each place of the image, how much it speaks for the class rather than for the next likeliest; and for each
        place of the support image, how much of that it was matched with. Both are from 0 to 1, the largest.
    picture, support_picture : bytes
        Both images with bright places where these are high, as JPEG; empty if there is no thumbnail.
    """

    label: Any
    id: str
    row: int
    query: NDArray[np.float64]
    support: NDArray[np.float64]
    picture: bytes = field(default=b"", repr=False)
    support_picture: bytes = field(default=b"", repr=False)


@isolated(gradients=False)
def match_places(
    learner: LocalLearner,
    support: Support,
    shape: tuple[int, ...],
    embedding: NDArray[np.float32],
    likeliest: list[Any],
    thumbnail: bytes,
    n: int = 1,
) -> list[PlaceMatch]:
    """Return where an image matches the first of its likeliest classes; nothing if nothing of that class is kept.

    Parameters
    ----------
    learner : LocalLearner
        Of maps of the given shape.
    support : Support
        The support, with maps as embeddings.
    shape : tuple of int
        Rows, columns and features of a map.
    embedding : ndarray of shape (d,)
        The map of the image, in a row.
    likeliest : list
        Its likeliest classes, best first.
    thumbnail : bytes
        What the network saw of it.
    n : int, default=1
        On how many support images, those that match best, the best first.
    """
    asked = learner.descriptors(learner.transform(to_tensor(embedding[None])))
    shares, seen = learner.shares(asked), learner.compared(asked)
    found = []
    for label in likeliest[:2]:
        rows = [int(row) for row in support.places(label)[-MOST_SHOWN:]]
        if not rows:
            break
        own = support.rows(rows)
        keys = learner.compared(learner.descriptors(learner.transform(to_tensor(own.embeddings))))
        found.append((rows, keys, *learner.matches(seen, keys, keys.new_ones(len(keys)))))
    if not found:
        return []
    rows, keys, value, counts = found[0]
    ahead = value - found[1][2] if len(found) > 1 else value
    heat = (shares * counts * ahead).clamp(min=0)[0]
    similarity = torch.einsum("id,sjd->sij", seen[0], keys)
    best, chosen = similarity.max(-1)
    here = _unit(heat, shape)
    picture, matches = highlight(thumbnail, here), []
    for place in (best * heat).sum(-1).argsort(descending=True, stable=True)[:n].tolist():
        there = _unit(torch.zeros_like(heat).index_add(0, chosen[place], heat), shape)
        row = rows[place]
        shown = highlight(support.thumbnails[row], there)
        matches.append(PlaceMatch(likeliest[0], support.ids[row], row, here, there, picture, shown))
    return matches


def highlight(picture: bytes, heat: NDArray[np.float64]) -> bytes:
    """Return a picture as JPEG with bright, coloured places where `heat` (h, w), from 0 to 1, is high.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> held = io.BytesIO()
    >>> Image.new("L", (8, 8), 99).save(held, "PNG")
    >>> Image.open(io.BytesIO(highlight(held.getvalue(), np.eye(2)))).size
    (192, 192)
    """
    if not picture:
        return b""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    scale = SIDE / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    light = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    light = light[..., None]
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32) * (DIM + (1 - DIM) * light)
    made = pixels * (1 - COVER * light) + np.array(COLOUR, np.float32) * (COVER * light)
    held = io.BytesIO()
    Image.fromarray(made.round().astype(np.uint8)).save(held, "JPEG", quality=80)
    return held.getvalue()


def _unit(flat: torch.Tensor, shape: tuple[int, ...]) -> NDArray[np.float64]:
    heat = flat.double().numpy().reshape(shape[:2])
    return heat / most if (most := heat.max()) > 0 else heat
