"""Whether a network can be trained on images: told in a sentence, before anything is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import spec_of
from fewshot.embedding.network import Loaded, evaluating, to_input
from fewshot.embedding.sources import channels_of
from fewshot.learners.base import Learner
from fewshot.learners.local import LocalLearner
from fewshot.utils.text import counted


def check_channels(network: nn.Module, images: NDArray[np.uint8]) -> None:
    """Raise unless a network that `create_backbone` built takes the channels of images (n, h, w) or (n, h, w, c).

    Raises
    ------
    ValueError
        If it is known to take another number of channels.
    """
    channels, config = (*images.shape[1:], 1)[2], getattr(network, "pretrained_cfg", None) or {}
    if spec_of(network) and (wanted := config["input_size"][0]) != channels:
        raise ValueError(_of_channels(channels, wanted))


def check_network(network: nn.Module, learner: Learner, images: NDArray[np.uint8]) -> None:
    """Embed two images, and raise unless there is one embedding of each, and something to train.

    Parameters
    ----------
    network : nn.Module
        The network, on its device.
    learner : Learner
        The learner; one of local descriptors needs the network's maps of features instead, see `map_width`.
    images : uint8 array of shape (n, h, w) or (n, h, w, c)
        The training images.

    Raises
    ------
    ValueError
        If the network fails on the images, returns anything but one vector for each, or neither it nor the learner has
        weights with a gradient.
    """
    height, width, channels = (*images.shape[1:], 1)[:3]
    is_local = isinstance(learner, LocalLearner)
    told = _Told(network, getattr(network, "forward_features", None) if is_local else network)
    with evaluating(network):
        if not is_local:
            Loaded(told, Preprocessing(channels, height, width)).embed(list(images[:2]))
        elif callable(told.function):  # otherwise `map_width` says so
            told(to_input(images[:2], network))
        else:
            return
    if not told.has_gradient and not learner.learned and not any(p.requires_grad for p in learner.parameters()):
        raise ValueError(
            f"there is nothing to train: the embeddings of {type(network).__name__} depend on no weights that have a "
            f"gradient, and the learner {learner.name!r} has none; call network.requires_grad_(True) if it is frozen"
        )


class _Told(nn.Module):
    """A network whose failures are a sentence, and which notes whether its output has a gradient."""

    def __init__(self, network: nn.Module, function: Any) -> None:
        super().__init__()
        self.network, self.function, self.has_gradient = network, function, False

    def forward(self, x: Tensor) -> Any:
        try:
            y = self.function(x)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a network of the user's own may raise anything
            raise ValueError(_of_failure(self.network, x, error)) from error
        if not isinstance(y, Tensor):
            return y
        self.has_gradient = y.requires_grad
        if y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"the backbone maps {counted(len(x), 'image')} to {tuple(y.shape)}; expected (n, d), one embedding "
                "per image"
            )
        return y.detach()


def _of_failure(network: nn.Module, x: Tensor, error: Exception) -> str:
    channels, wanted = x.shape[1], channels_of(network)
    if wanted not in (None, channels):
        return _of_channels(channels, wanted)
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{type(network).__name__} fails on images (n, channels, height, width) = {tuple(x.shape)}: {reason:.200}; "
        "expected a network that maps them to embeddings (n, d)"
    )


def _of_channels(channels: int, wanted: int) -> str:
    cure = (
        "convert them, e.g. by train.decoded(size=28, grey=True)"
        if channels == 3
        else "repeat them, e.g. by LabeledImages(np.repeat(images[..., None], 3, -1), labels)"
    )
    return (
        f"the images have {counted(channels, 'channel')} and the network takes {wanted}; {cure}, or use another network"
    )
