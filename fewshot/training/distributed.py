"""Training one network with several processes; with a single process every function here does nothing."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def n_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; process 0 writes files and shows the progress bar."""
    return dist.get_rank() if n_processes() > 1 else 0


@contextmanager
def process_group(device: torch.device | str = "cpu") -> Iterator[None]:
    """Join the processes that ``torchrun`` started, inside the block; do nothing if there is only one.

    Parameters
    ----------
    device : torch.device or str, default="cpu"
        The training device: NCCL serves CUDA, gloo everything else.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Functions of this module take the process group at import time as a default argument, and optimisers import it.
    # If imported inside the block, it would keep our group and its threads alive, which can abort Python at exit.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one message."""
    if n_processes() == 1 or not tensors:
        return
    device = _message_device()
    flat = torch.cat([tensor.detach().reshape(-1).to(device, torch.float64) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by that of process 0."""
    if n_processes() > 1:
        for tensor in tensors:
            message = tensor.detach().to(_message_device()).contiguous()
            dist.broadcast(message, 0)
            tensor.copy_(message)


def barrier() -> None:
    """Wait until every process has reached this point."""
    if n_processes() > 1:
        dist.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let process 0 run the block before the others, which then find its work done."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def _message_device() -> torch.device:
    """Return the device that messages must be on."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
