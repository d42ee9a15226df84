"""The default embedder and the default learner of a backbone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sklearn.base import clone
from torch import nn

from fewshot.embedding.backbones import is_path
from fewshot.embedding.checkpoint import Checkpoint, load_learner
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.own import OwnEmbedder
from fewshot.embedding.sources import spelled
from fewshot.learners.base import Learner
from fewshot.learners.cosine_prototypical import CosinePrototypicalLearner


def make_embedder(backbone: str | Path | nn.Module | Embedder | OwnEmbedder, **params: Any) -> Embedder | OwnEmbedder:
    """Return an embedder for a backbone, with these parameters, or a clone of a given embedder.

    Raises
    ------
    ValueError
        If `backbone` is an embedder and one of its parameters is given too.
    """
    if not isinstance(backbone, (Embedder, OwnEmbedder)):
        return Embedder(backbone, **params)
    for name, value in params.items():
        if value and name not in ("device", "progress"):
            raise ValueError(f"{name} belongs to the Embedder that is given as backbone; set it there")
    return clone(backbone)


def default_learner(embedder: Embedder | OwnEmbedder) -> Learner:
    """Return the learner that a checkpoint was trained with; for other backbones, cosine prototypes."""
    backbone = embedder.backbone
    path = spelled(backbone) if isinstance(backbone, (str, os.PathLike)) else ""
    if is_path(path) and Path(path).is_file() and Checkpoint.is_one(path):
        return load_learner(path)
    return CosinePrototypicalLearner()
