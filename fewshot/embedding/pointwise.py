"""Convolutions of 1 x 1 pixel on one thread: as fast, and with the same result, as on several."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Pointwise(nn.Conv2d):
    """A convolution of 1 x 1 pixel that takes oneDNN also on one thread.

    There torch prefers its own for batches below 16, since it was faster once; with channels last it takes twice the
    time. The choice must not depend on the number of threads for another reason: the results differ in the last bits.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        is_usual = torch.get_num_threads() > 1 or not x.is_cpu or not torch.backends.mkldnn.enabled
        if is_usual or isinstance(self.padding, str):
            return super()._conv_forward(x, weight, bias)
        return torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, self.groups)


def hasten_pointwise(network: nn.Module) -> nn.Module:
    """Return a network, changed in place, whose convolutions of 1 x 1 pixel are fast on one thread.

    Examples
    --------
    >>> layer = nn.utils.skip_init(nn.Conv2d, 8, 1, 1, bias=False).requires_grad_(False)
    >>> _ = layer.weight.fill_(0.5)
    >>> hasten_pointwise(layer)(torch.ones(1, 8, 1, 1)).item()
    4.0
    """
    for part in network.modules():
        is_plain = type(part) is nn.Conv2d and part.kernel_size == (1, 1) and part.padding_mode == "zeros"
        if is_plain and part.weight.dtype == torch.float32:
            part.__class__ = _Pointwise
    return network
