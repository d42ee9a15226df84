"""Whether a network that the user has registered begins with random weights, or may have been trained before."""

from __future__ import annotations

from typing import Any

import torch

from fewshot.embedding.backbones import create_backbone


def draws_weights(name: str, **kwargs: Any) -> bool:
    """Whether the factory of a registered network draws its weights, rather than loading them.

    Two networks of other seeds tell: what was drawn differs, and what was trained does not. Tensors of one value, such
    as zeros and ones, say nothing. A factory that seeds itself, or holds constants such as codes of positions, counts
    as one that loads its weights, because nobody can tell.

    Parameters
    ----------
    name : str
        A name of `register_backbone`.
    **kwargs
        Arguments for `create_backbone`.

    Examples
    --------
    >>> from torch import nn
    >>> from fewshot import register_backbone
    >>> register_backbone("drawn", lambda: nn.Linear(2, 3))
    >>> register_backbone("loaded", lambda: nn.Embedding.from_pretrained(torch.eye(3)))
    >>> draws_weights("drawn"), draws_weights("loaded")
    (True, False)
    """
    one, other = (create_backbone(name, seed=seed, **kwargs).state_dict() for seed in (0, 1))
    drawn = False
    for key, value in one.items():
        if not value.is_floating_point() or (value == value.flatten()[:1]).all():
            continue
        if value.shape == other[key].shape and torch.equal(value, other[key]):
            return False
        drawn = True
    return drawn
