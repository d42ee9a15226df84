"""Conv4, the four-block network of Matching and Prototypical Networks."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F


class ConvBlock(nn.Module):
    """3x3 convolution, batch norm, 2x2 max-pool, ReLU.

    The papers apply ReLU before the pool. Both are monotone, so the order does not change the function; pooling
    first leaves a quarter of the data to ReLU and to its backward pass.

    Parameters
    ----------
    in_chans, width : int
        Channels in and out.
    """

    def __init__(self, in_chans: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to (n, width, h // 2, w // 2)."""
        return F.relu(F.max_pool2d(self.norm(self.conv(x)), 2), inplace=True)


class Conv4(nn.Module):
    """Four blocks of convolution, then flatten: (n, c, s, s) -> (n, width * (s // 16) ** 2).

    Parameters
    ----------
    num_classes : int, default=1000
        Classes of a linear layer on top; 0 for none, so that the output is the embedding.
    in_chans : int, default=3
        Channels of the images.
    width : int, default=64
        Filters a block.
    img_size : int, default=28
        Side of the images, at least 16.

    References
    ----------
    O. Vinyals et al. (2016). Matching Networks for One Shot Learning. arXiv:1606.04080.
    J. Snell et al. (2017). Prototypical Networks for Few-shot Learning. arXiv:1703.05175.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, width: int = 64, img_size: int = 28) -> None:
        super().__init__()
        if img_size < 16:
            raise ValueError(f"img_size is {img_size}; four poolings need at least 16")
        channels = [in_chans, width, width, width]
        self.blocks = nn.Sequential(*(ConvBlock(c, width) for c in channels))
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = width * (img_size // 16) ** 2
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        # One layout for weights and data: the kernels then need no copies between blocks.
        self.to(memory_format=torch.channels_last)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (n, width, s // 16, s // 16)."""
        return self.blocks(x.contiguous(memory_format=torch.channels_last))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Flatten a feature map; unless `pre_logits`, classify it."""
        x = x.flatten(1)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, c, s, s) to embeddings, or to logits where there is a linear layer."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the linear layer, or an identity."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by one for `num_classes`; 0 removes it."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


default_cfgs = generate_default_cfgs(
    {
        "conv4.untrained": {
            "url": "",
            "input_size": (3, 28, 28),
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
            "num_classes": 1000,
            "pool_size": None,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "first_conv": "blocks.0.conv",
            "classifier": "head",
        }
    }
)


@register_model
def conv4(pretrained: bool = False, **kwargs: Any) -> Conv4:
    """Create a `Conv4` of 64 filters (``width=`` for others)."""
    return build_model_with_cfg(Conv4, "conv4", pretrained, **kwargs)
