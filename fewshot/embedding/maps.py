"""Maps of features: what a network knows of each place of an image, and ways to pool it that are not its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.data.preprocess import MAPS, SALIENT
from fewshot.learners.base import Learner
from fewshot.learners.local import LocalLearner

#: Rows, columns and features.
Shape = tuple[int, int, int]
#: How much places that differ from the rest of the image outweigh it. Chosen among 4, 8, 16, 32 and 64 on characters of
#: Omniglot's background set and CIFAR-FS validation classes, pasted into photographs and gravel.
SALIENCE = 16


def feature_map(network: nn.Module, x: Tensor) -> Tensor:
    """Return the last feature map of a network, (n, h, w, d): places in rows and columns, features last.

    Parameters
    ----------
    network : nn.Module
        A timm network, convolutional or a vision transformer, or another with ``forward_features``. Class and register
        tokens are left out.
    x : Tensor of shape (n, c, height, width)
        Input images; their proportions tell rows and columns of tokens.

    Raises
    ------
    ValueError
        If the network has no such map.

    Examples
    --------
    >>> import torch
    >>> from fewshot import create_backbone
    >>> network = create_backbone("conv4", img_size=32)
    >>> feature_map(network, torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 2, 2, 64])
    """
    forward: Any = getattr(network, "forward_features", None)
    found = forward(x) if callable(forward) else None
    made = _as_map(network, found, x.shape[2] / x.shape[3]) if isinstance(found, Tensor) else None
    if made is None:
        raise ValueError(
            f"{type(network).__name__} has no map of features that could be kept or weighted; take a network with a "
            "method forward_features(images) that returns one (n, d, h, w), as most of timm have, or pool='auto' and a "
            "learner that compares whole images"
        )
    return made


def _as_map(network: nn.Module, found: Tensor, ratio: float) -> Tensor | None:
    d = getattr(network, "num_features", None)
    if found.dim() == 4:
        is_last = d == found.shape[3] and d != found.shape[1]  # such as Swin
        return found if is_last else found.permute(0, 2, 3, 1)
    if found.dim() != 3:
        return None
    tokens = found[:, getattr(network, "num_prefix_tokens", 0) :]
    norm = getattr(network, "fc_norm", None)  # where pooling comes before the last normalisation
    tokens = norm(tokens) if isinstance(norm, nn.Module) else tokens
    rows = round((tokens.shape[1] * ratio) ** 0.5)
    return tokens.unflatten(1, (rows, -1)) if rows and tokens.shape[1] % rows == 0 else None


def salient_mean(places: Tensor) -> Tensor:
    r"""Return the mean (n, d) of the features (n, L, d) of places, weighted by how much each differs from the others.

    The weight of a place is :math:`(1 - \cos(x_i, m))^{16}` for the mean m of its image's features, scaled to unit
    length. So the background of a scene hardly counts if something small stands out of it.

    Examples
    --------
    >>> import torch
    >>> salient_mean(torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])).round(decimals=2)
    tensor([[0., 2.]])
    """
    unit = F.normalize(places.float(), dim=-1)
    differs = (1 - (unit * F.normalize(unit.mean(1, keepdim=True), dim=-1)).sum(-1, keepdim=True)).clamp(min=1e-6)
    weight = (differs / differs.amax(1, keepdim=True)) ** SALIENCE
    return (places * weight).sum(1) / weight.sum(1)


class Pooling(nn.Module):
    """A network whose embeddings are its maps in a row (n, h * w * d), or their salient means (n, d).

    Parameters
    ----------
    network : nn.Module
        See `feature_map`.
    pool : {"maps", "salient"}
        What becomes of the map.
    """

    def __init__(self, network: nn.Module, pool: str) -> None:
        super().__init__()
        self.network, self.pool = network, pool
        self.pretrained_cfg = getattr(network, "pretrained_cfg", None)  # how images become its input

    def forward(self, x: Tensor) -> Tensor:
        """Embed images (n, c, height, width)."""
        places = feature_map(self.network, x).flatten(1, 2)
        return places.flatten(1) if self.pool == MAPS else salient_mean(places)


def pooling(network: nn.Module, pool: str | None) -> nn.Module:
    """Return a network that pools as `Preprocessing` says; `network` itself for its own way."""
    return network if pool not in (MAPS, SALIENT) else Pooling(network, pool)


def network_for(learner: Learner, network: nn.Module) -> nn.Module:
    """Return a network whose embeddings suit a learner: maps in a row for one of local descriptors."""
    return pooling(network, MAPS if isinstance(learner, LocalLearner) else None)
