"""The timm interface that our networks share."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import generate_default_cfgs
from torch import Tensor, nn


class BlockNet(nn.Module):
    """Blocks, a pooling step and an optional linear layer, with the interface of timm.

    Parameters
    ----------
    blocks : nn.Sequential
        Map images (n, c, s, s) to a feature map.
    num_features : int
        Length of an embedding.
    num_classes : int
        Outputs of the linear layer; 0 for no layer, so that the output is the embedding.
    """

    def __init__(self, blocks: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.num_features = self.head_hidden_size = num_features
        self.reset_classifier(num_classes)
        # With one memory layout for weights and data, kernels do not copy between blocks.
        self.to(memory_format=torch.channels_last)

    def pool(self, x: Tensor) -> Tensor:
        """Turn a feature map (n, width, h, w) into embeddings (n, num_features)."""
        raise NotImplementedError(f"{type(self).__name__} must define pool()")

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map of images."""
        return self.blocks(x.contiguous(memory_format=torch.channels_last))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a feature map; unless `pre_logits`, classify it."""
        x = self.pool(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to embeddings, or to logits if there is a linear layer."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the linear layer, or an identity."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by one with `num_classes` outputs; 0 removes it."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


def untrained_config(name: str, size: int, mean: float, std: float, first_conv: str) -> Any:
    """Return the ``default_cfgs`` with which timm registers a network without published weights."""
    config = {
        "url": "",
        "input_size": (3, size, size),
        "mean": (mean,) * 3,
        "std": (std,) * 3,
        "num_classes": 1000,
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "first_conv": first_conv,
        "classifier": "head",
    }
    return generate_default_cfgs({f"{name}.untrained": config})
