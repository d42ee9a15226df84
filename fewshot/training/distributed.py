"""Several processes that train one network; with a single process everything here is an identity."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def n_processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; process 0 writes files and shows the progress bar."""
    return dist.get_rank() if n_processes() > 1 else 0


@contextmanager
def process_group(device: torch.device | str = "cpu") -> Iterator[None]:
    """Join the processes that ``torchrun`` has started, for the length of the block; alone, do nothing.

    Parameters
    ----------
    device : torch.device or str, default="cpu"
        Where they train: NCCL serves CUDA, gloo everything else.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Its functions take the group that there is when it is imported as a default, and optimisers import it: imported
    # inside the block, it would keep our group and its threads until Python has ended, which can abort the process.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one message."""
    if n_processes() == 1 or not tensors:
        return
    place = _place()
    flat = torch.cat([tensor.detach().reshape(-1).to(place, torch.float64) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


def take_from_first(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by that of process 0."""
    if n_processes() > 1:
        for tensor in tensors:
            message = tensor.detach().to(_place()).contiguous()
            dist.broadcast(message, 0)
            tensor.copy_(message)


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if n_processes() > 1:
        dist.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let process 0 through the block before the others: they find done what one has to do."""
    if rank() > 0:
        wait_for_all()
    yield
    if rank() == 0:
        wait_for_all()


def _place() -> torch.device:
    """Return where messages must lie."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
