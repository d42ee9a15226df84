"""ResNet-12, the deeper network of the few-shot literature."""

from __future__ import annotations

from typing import Any

from timm.layers import DropBlock2d
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.embedding.backbones.base import BlockNet, untrained_config


class ResBlock(nn.Module):
    """Three 3x3 convolutions with a 1x1 shortcut, leaky ReLU, 2x2 max-pool, DropBlock.

    Parameters
    ----------
    in_chans, width : int
        Channels in and out.
    drop_block : float, default=0.0
        Probability that DropBlock drops a position during training.
    block_size : int, default=1
        Side of the dropped squares.
    """

    def __init__(self, in_chans: int, width: int, drop_block: float = 0.0, block_size: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, c in enumerate((in_chans, width, width)):
            layers += [nn.Conv2d(c, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.LeakyReLU(0.1, inplace=True)] if i < 2 else []
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv2d(in_chans, width, 1, bias=False), nn.BatchNorm2d(width))
        self.drop = DropBlock2d(drop_prob=drop_block, block_size=block_size) if drop_block else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to (n, width, h // 2, w // 2)."""
        # Leaky ReLU is monotone, so it commutes with pooling; pooling first is cheaper.
        x = F.max_pool2d(self.body(x) + self.shortcut(x), 2)
        return self.drop(F.leaky_relu(x, 0.1, inplace=True))


class ResNet12(BlockNet):
    """Four residual blocks and global average pooling: (n, c, s, s) -> (n, 640).

    Parameters
    ----------
    num_classes : int, default=1000
        Outputs of the linear layer; 0 for no layer, so that the output is the embedding.
    in_chans : int, default=3
        Channels of the images.
    widths : tuple of int, default=(64, 160, 320, 640)
        Filters of each block.
    drop_block : float, default=0.1
        DropBlock probability in the last two blocks, as in the reference.

    References
    ----------
    K. Lee, S. Maji, A. Ravichandran, S. Soatto (2019). Meta-Learning with Differentiable Convex Optimization.
    CVPR. arXiv:1904.03758. The reference increases the DropBlock probability during training and uses dropout in the
    first two blocks too; here the probability is constant.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        widths: tuple[int, ...] = (64, 160, 320, 640),
        drop_block: float = 0.1,
    ) -> None:
        last = len(widths) - 2
        blocks = nn.Sequential(
            *(
                ResBlock(c, w, drop_block if i >= last else 0.0, block_size=5)
                for i, (c, w) in enumerate(zip((in_chans, *widths), widths, strict=False))
            )
        )
        super().__init__(blocks, widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")

    def pool(self, x: Tensor) -> Tensor:
        """Average over positions."""
        return x.mean((2, 3))


default_cfgs = untrained_config("resnet12", 32, 0.5, 0.25, "blocks.0.body.0")


@register_model
def resnet12(pretrained: bool = False, **kwargs: Any) -> ResNet12:
    """Create a `ResNet12`."""
    return build_model_with_cfg(ResNet12, "resnet12", pretrained, **kwargs)
