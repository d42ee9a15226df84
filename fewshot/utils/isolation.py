"""Compute inside a host program: shield computations from its settings, and its random numbers from ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ContextDecorator, ExitStack, contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from fewshot.utils.locks import lock_of

#: Kinds of devices that have an autocast setting.
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
#: numpy's default handling of floating-point errors.
NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
#: Returns the number of active modes of torch functions; private to torch, so it may disappear.
_n_modes = getattr(torch._C, "_len_torch_function_stack", lambda: 1)
#: Functions that create tensors of the default type.
_FLOATING = {
    getattr(torch, name) for name in ("empty", "ones", "zeros", "rand", "randn", "eye", "linspace", "logspace")
}
_FLOATING |= {torch.empty_strided, torch.empty_permuted, torch.fft.fftfreq, torch.fft.rfftfreq}
_FLOATING |= {getattr(torch, f"{name}_window") for name in ("bartlett", "blackman", "hamming", "hann", "kaiser")}
#: Functions that do so only for Python numbers of which one is a float.
_INFERRING = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full, torch.arange, torch.range}


class isolated(ContextDecorator):
    """Compute as in a fresh process inside the block; also a decorator.

    New tensors are float32 and on the CPU unless the code says otherwise, autocast is off, and numpy handles
    floating-point errors in its default way. All of this holds for the current thread alone, ends with the block, and
    costs next to nothing if the host program has kept the defaults.

    Parameters
    ----------
    gradients : bool, optional
        True records gradients, so that the results can be trained; False is ``torch.inference_mode``. By default the
        caller's mode applies.

    Examples
    --------
    >>> with torch.autocast("cpu", dtype=torch.bfloat16), isolated():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """

    def __init__(self, gradients: bool | None = None) -> None:
        self.gradients = gradients

    def _recreate_cm(self) -> Self:
        return type(self)(self.gradients)  # a decorated function may run in several threads, and call itself

    def __enter__(self) -> None:
        self._stack = ExitStack()
        if self.gradients is not None:
            self._stack.enter_context(torch.inference_mode(not self.gradients))
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                self._stack.enter_context(torch.autocast(kind, enabled=False))
        if _n_modes():  # one of them may set the default device; torch 2.6 does not report that of a `with` block
            self._stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() is not torch.float32:
            self._stack.enter_context(_Float32ByDefault())
        if np.geterr() != NUMPY_ERRORS:
            self._stack.enter_context(np.errstate(**NUMPY_ERRORS))  # type: ignore[arg-type]

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them after it.

    Layers draw initial weights and dropout masks from the global generators and accept no other. Only one thread at a
    time is inside the block: two would share their random numbers.

    Examples
    --------
    >>> with seeded(0):
    ...     a = torch.rand(1)
    >>> with seeded(0):
    ...     b = torch.rand(1)
    >>> bool(a == b)
    True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with lock_of(seeded), torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class _Float32ByDefault(TorchFunctionMode):
    """Creates float32 tensors when torch would use its default type.

    ``torch.set_default_dtype`` holds for the whole process: setting and restoring it would affect other threads.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") is None:
            is_plain = func in _INFERRING and all(map(_is_plain, (*args, *kwargs.values())))
            if func in _FLOATING or (is_plain and func(*args, **kwargs).is_floating_point()):
                kwargs["dtype"] = torch.float32
        return func(*args, **kwargs)


def _is_plain(value: Any) -> bool:
    """Whether a value is plain Python, without a numeric type such as tensors and numpy's numbers have."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, torch.device)
