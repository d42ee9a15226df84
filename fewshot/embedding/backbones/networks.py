"""Conv4 and ResNet-12, the networks of the few-shot literature, registered with timm."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import DropBlock2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F


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


def _untrained(size: int, mean: float, std: float, first_conv: str) -> dict[str, Any]:
    """Return the configuration with which timm registers a network without published weights."""
    return {
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


#: timm looks for this name in the module of a registered network.
default_cfgs = generate_default_cfgs(
    {
        "conv4.untrained": _untrained(28, 0.0, 1.0, "blocks.0.conv"),
        "resnet12.untrained": _untrained(32, 0.5, 0.25, "blocks.0.body.0"),
    }
)


@register_model
def conv4(pretrained: bool = False, **kwargs: Any) -> Conv4:
    """Create a `Conv4`; ``width`` sets the number of filters, 64 by default."""
    return build_model_with_cfg(Conv4, "conv4", pretrained, **kwargs)


@register_model
def resnet12(pretrained: bool = False, **kwargs: Any) -> ResNet12:
    """Create a `ResNet12`."""
    return build_model_with_cfg(ResNet12, "resnet12", pretrained, **kwargs)
