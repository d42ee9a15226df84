"""Write a network as ONNX, from uint8 pixels to embeddings, and check it against torch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.domain import Domain
from fewshot.embedding.folding import fold_batch_norm
from fewshot.embedding.network import normalize_pixels
from fewshot.errors import ArtifactError, missing
from fewshot.runtime.encoder import INPUT, OUTPUT, Encoder
from fewshot.utils.isolation import isolated
from fewshot.utils.warning import ignored_warnings

#: Version of the ONNX operators: the lowest in onnxruntime 1.20 that covers timm's networks.
OPSET = 17
#: The largest relative difference between an embedding and that of torch. Rounding in float32 causes 1e-6 to 1e-5,
#: depending on depth; a wrongly exported operation causes 1e-2 or more.
TOLERANCE = 1e-4
#: Random images for the check, in batches of two sizes.
N_IMAGES = 5


class _FromPixels(nn.Module):
    """A network preceded by the scaling of pixels, so that a device need not do it in numpy."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, preprocessing.mean, preprocessing.std

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embeddings (n, d) of pixels (n, h, w) or (n, h, w, 3)."""
        x = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)
        embeddings: Tensor = self.network(normalize_pixels(x, self.mean, self.std))
        return embeddings


class InDomain(nn.Module):
    """A network followed by the map of a `Domain`, so that a device need not do it in numpy."""

    def __init__(self, network: nn.Module, domain: Domain) -> None:
        super().__init__()
        self.network, self.domain_map = network, _Map(domain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped embeddings (n, d) of network inputs."""
        embeddings: Tensor = self.domain_map(self.network(x))
        return embeddings


class _Map(nn.Module):
    matrix: Tensor
    mean: Tensor

    def __init__(self, domain: Domain) -> None:
        super().__init__()
        self.power = domain.power
        self.register_buffer("matrix", torch.from_numpy(domain.matrix).float())
        self.register_buffer("mean", torch.from_numpy(domain.mean))

    def forward(self, x: Tensor) -> Tensor:
        # In float64 until the mean is gone, which takes most digits of a unit vector with it.
        x = _unit_length(x.double())
        if self.power != 1:
            size = x.abs()
            x = _unit_length(x.sign() * (size.sqrt() if self.power == 0.5 else size**self.power))
        return nn.functional.linear((x - self.mean).float(), self.matrix)


def _unit_length(x: Tensor) -> Tensor:
    x = x / x.abs().amax(-1, keepdim=True).clamp_min(1e-30)  # avoids overflow and underflow of squares
    return x / (x * x).sum(-1, keepdim=True).sqrt().clamp_min(1e-30)


def check_extra() -> None:
    """Raise unless the packages of the extra ``export`` are installed.

    Raises
    ------
    MissingExtraError
        With the command that installs them.
    """
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise missing(f"{name} is missing", "export") from None


@isolated(gradients=True)  # inference tensors cannot be traced
@torch.no_grad()
def write_onnx(network: nn.Module, preprocessing: Preprocessing, path: Path) -> float:
    """Write a network as ONNX with folded batch norm; return its relative difference from torch, see `TOLERANCE`.

    Parameters
    ----------
    network : nn.Module
        The network; it is not changed.
    preprocessing : Preprocessing
        Preprocessing of the network.
    path : path
        The file.

    Raises
    ------
    ArtifactError
        If onnxruntime and torch disagree.
    """
    own = copy.deepcopy(network).cpu().float().eval()
    pixels = random_pixels(preprocessing, N_IMAGES)
    expected = _FromPixels(own, preprocessing)(torch.from_numpy(pixels)).numpy()
    folded = fold_batch_norm(own, _FromPixels(nn.Identity(), preprocessing)(torch.from_numpy(pixels[:2])))
    # The exporter warns that torch has a newer one, which needs another package, and that tracing fixes sizes, which
    # are constant here.
    with ignored_warnings():
        torch.onnx.export(
            _FromPixels(folded, preprocessing).eval(),
            (torch.from_numpy(pixels[:2]),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
        )
    encoder = Encoder(path, preprocessing)
    given = np.concatenate([encoder.embed_pixels(pixels[:1]), encoder.embed_pixels(pixels[1:])])
    length = np.maximum(np.linalg.norm(expected, axis=1), np.finfo(np.float32).tiny)
    difference = float((np.linalg.norm(given - expected, axis=1) / length).max())
    if not difference <= TOLERANCE:
        raise ArtifactError(
            f"the exported network differs from torch by {difference:.2g} of an embedding's length, above {TOLERANCE}; "
            "it uses an operation that ONNX does not support, so use another backbone"
        )
    return difference


def random_pixels(preprocessing: Preprocessing, n: int) -> NDArray[np.uint8]:
    """Return `n` random images in the form that the preprocessing returns."""
    shape = (n, preprocessing.height, preprocessing.width, 3)[: 3 + (preprocessing.channels == 3)]
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
