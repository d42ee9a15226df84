"""What an untrusted file may ask for when a network or learner is built from it: names, arguments and memory."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot.persistence.content import is_number, is_whole, is_word

#: Names in timm, which can fetch, read or write nothing: with or without a tag, but no URLs, paths or repositories.
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?")
#: Longest side of the images of a network from a file, and the most elements of a tuple.
MOST_SIDE, MOST_PARTS = 4096, 64
#: Bytes allowed in addition to the weights, for masks, position tables and initialisation.
ALLOWANCE = 256 * 2**20

_RATES = (
    "drop_rate drop_path_rate drop_block drop_block_rate proj_drop_rate attn_drop_rate pos_drop_rate patch_drop_rate"
)
_FACTORS = "mlp_ratio init_values ls_init_value layer_scale_init_value head_init_scale norm_eps"
_WHOLE = (
    "in_chans width widths depth depths dims embed_dim embed_dims num_heads layers channels num_features patch_size "
    "window_size stem_width base_width cardinality output_stride block_size"
)
_SWITCHES = (
    "qkv_bias qk_norm class_token no_embed_class pre_norm final_norm fc_norm dynamic_img_size dynamic_img_pad "
    "strict_img_size fix_init fix_stem zero_init_last avg_down always_partition head_norm_first conv_bias"
)
_WORDS = "global_pool act_layer pos_embed"


def _wholes(least: int, most: int) -> Callable[[Any], bool]:
    """Return a check for an integer, or for a sequence of integers."""

    def check(value: Any) -> bool:
        parts = value if isinstance(value, (list, tuple)) else [value]
        return 1 <= len(parts) <= MOST_PARTS and all(is_whole(part, least, most) for part in parts)

    return check


#: Checks of type and range by argument name.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "img_size": _wholes(1, MOST_SIDE),
    "reg_tokens": _wholes(0, 1 << 16),
    **dict.fromkeys(_WHOLE.split(), _wholes(1, 1 << 16)),
    **dict.fromkeys(_RATES.split(), lambda value: is_number(value, 0, 1)),
    **dict.fromkeys(_FACTORS.split(), lambda value: value is None or is_number(value, 0, 1e4)),
    **dict.fromkeys(_SWITCHES.split(), lambda value: isinstance(value, bool)),
    **dict.fromkeys(_WORDS.split(), lambda value: value == "" or is_word(value)),
}


def is_plain_name(name: object) -> bool:
    """Whether a name can only denote a network that is registered with timm.

    Examples
    --------
    >>> is_plain_name("resnet18.a1_in1k"), is_plain_name("hf-hub:timm/resnet18"), is_plain_name("./conv4")
    (True, False, False)
    """
    return isinstance(name, str) and bool(_NAME.fullmatch(name))


def fault_of(described: object) -> str | None:
    """Return why a description of a network is refused; None if it is accepted.

    Parameters
    ----------
    described : object
        Expected to be a mapping of ``name`` and ``kwargs``.

    Examples
    --------
    >>> fault_of({"name": "conv4", "kwargs": {"in_chans": 1}})
    >>> fault_of({"name": "conv4", "kwargs": {"pretrained": True}})
    'its argument pretrained=True is not one that a file may give to a network'
    """
    if not isinstance(described, Mapping) or set(described) != {"name", "kwargs"}:
        return f"{described!r:.60} describes no network by name and kwargs"
    name, kwargs = described["name"], described["kwargs"]
    if not is_plain_name(name):
        return f"{name!r:.60} is not the name of a network in timm"
    if not isinstance(kwargs, Mapping):
        return f"its arguments are {kwargs!r:.60} instead of a mapping"
    for key, value in kwargs.items():
        if key not in _CHECKS or not _CHECKS[key](value):
            return f"its argument {key!s:.40}={value!r:.60} is not one that a file may give to a network"
    return None


def arguments_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a described network, with tuples for the lists of JSON.

    Raises
    ------
    ValueError
        If the description is refused; see `fault_of`.
    """
    if fault := fault_of(described):
        raise ValueError(fault)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in described["kwargs"].items()}


class _Counting(TorchDispatchMode):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], (list, tuple)) and all(isinstance(n, int) for n in args[0]):
            self._check(math.prod(args[0]))  # torch.empty and the like: check before allocating
        made = func(*args, **(kwargs or {}))
        # Views and in-place operations allocate nothing.
        if isinstance(made, Tensor) and not func.is_view and not func._schema.is_mutable:
            self.left -= made.numel() * made.element_size()
            self._check(0)
        return made

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self.left:
            raise ValueError("it is far larger than its weights")


@contextmanager
def within_budget(n_bytes: int) -> Iterator[None]:
    """Raise as soon as the total allocation far exceeds `n_bytes`, the size of the weights in the file.

    Raises
    ------
    ValueError
        When the budget is exceeded.

    Examples
    --------
    >>> from torch import nn
    >>> with within_budget(0):
    ...     _ = nn.Linear(100_000, 100_000)
    Traceback (most recent call last):
    ValueError: it is far larger than its weights
    """
    with _Counting(4 * n_bytes + ALLOWANCE):
        yield
