"""Conv4, the four-block network of Matching and Prototypical Networks."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.embedding.backbones.base import BlockNet, untrained_config


class ConvBlock(nn.Module):
    """3x3 convolution, batch norm, 2x2 max-pool, ReLU.

    The papers apply ReLU before pooling. Both are monotone, so the order does not change the function, but pooling
    first leaves only a quarter of the values to ReLU and its backward pass.

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


class Conv4(BlockNet):
    """Four blocks of convolution, then flatten: (n, c, s, s) -> (n, width * (s // 16) ** 2).

    Parameters
    ----------
    num_classes : int, default=1000
        Outputs of the linear layer; 0 for no layer, so that the output is the embedding.
    in_chans : int, default=3
        Channels of the images.
    width : int, default=64
        Filters per block.
    img_size : int, default=28
        Side of the images, at least 16.

    References
    ----------
    O. Vinyals et al. (2016). Matching Networks for One Shot Learning. arXiv:1606.04080.
    J. Snell et al. (2017). Prototypical Networks for Few-shot Learning. arXiv:1703.05175.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, width: int = 64, img_size: int = 28) -> None:
        if img_size < 16:
            raise ValueError(f"img_size is {img_size}; expected at least 16 for four pooling layers")
        blocks = nn.Sequential(*(ConvBlock(c, width) for c in (in_chans, width, width, width)))
        super().__init__(blocks, width * (img_size // 16) ** 2, num_classes)

    def pool(self, x: Tensor) -> Tensor:
        """Flatten the feature map, which keeps positions in the embedding."""
        return x.flatten(1)


default_cfgs = untrained_config("conv4", 28, 0.0, 1.0, "blocks.0.conv")


@register_model
def conv4(pretrained: bool = False, **kwargs: Any) -> Conv4:
    """Create a `Conv4`; ``width`` sets the number of filters, 64 by default."""
    return build_model_with_cfg(Conv4, "conv4", pretrained, **kwargs)
