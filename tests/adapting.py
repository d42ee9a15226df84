"""Digits, of which some classes adapt an embedder and the others are new, shared by the tests of adapting."""

from __future__ import annotations

from functools import cache

import numpy as np

from fewshot import Embedder, adapt, digits

DATA = digits()
KNOWN = np.flatnonzero(DATA.labels < 5)[:100]
NEW = np.flatnonzero(DATA.labels >= 5)[:80]
SUPPORT, QUERIES = NEW[:25], NEW[25:]


def images(rows: np.ndarray) -> np.ndarray:
    return DATA.images[rows]


@cache
def plain() -> Embedder:
    return Embedder("conv4", weights="random", img_size=28, progress=False)


@cache
def adapted() -> Embedder:
    return adapt(plain(), images(KNOWN), DATA.labels[KNOWN])
