"""Training images that stay on a GPU, so that an episode is gathered there instead of being sent."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Images stay on a GPU if they take at most this share of its free memory.
SHARE = 0.25
#: Bytes that are sent at a time: a memory-mapped file is never in memory as a whole.
PART = 2**28

Images = NDArray[np.uint8] | Tensor


def resident(images: NDArray[np.uint8], device: torch.device) -> Images:
    """Return images as a tensor on a CUDA device that has room for them; otherwise as they are."""
    if device.type != "cuda" or images.nbytes > SHARE * torch.cuda.mem_get_info(device)[0]:
        return images
    return sent(images, device)


def sent(images: NDArray[np.uint8], device: torch.device, part: int = PART) -> Tensor:
    """Return images as a tensor on a device, sent in parts of about `part` bytes.

    Examples
    --------
    >>> sent(np.arange(6, dtype=np.uint8).reshape(3, 2), torch.device("cpu"), part=2)
    tensor([[0, 1],
            [2, 3],
            [4, 5]], dtype=torch.uint8)
    """
    found = torch.empty(images.shape, dtype=torch.uint8, device=device)
    n = max(part * len(images) // max(images.nbytes, 1), 1)
    for start in range(0, len(images), n):
        found[start : start + n] = torch.from_numpy(np.array(images[start : start + n]))
    return found


def taken(images: Images, rows: NDArray[np.int64]) -> Images:
    """Return some of the images, where they are.

    Examples
    --------
    >>> images, rows = np.arange(6, dtype=np.uint8).reshape(3, 2), np.array([2, 0])
    >>> taken(images, rows).tolist(), taken(torch.from_numpy(images), rows).tolist()
    ([[4, 5], [0, 1]], [[4, 5], [0, 1]])
    """
    if isinstance(images, Tensor):
        return images[torch.from_numpy(rows).to(images.device)]
    return np.ascontiguousarray(images[rows])
