"""Fold batch normalisation into the preceding convolutions: the same function with fewer passes over memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

#: Largest difference that rounding may cause, relative to the largest value. A larger one means folding went wrong.
TOLERANCE = 1e-3
_READS = {
    getattr(Tensor, name) for name in ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy")
}


class _Uses(TorchFunctionMode):
    """Count how often each tensor is used, in this thread only (torch.fx patches methods of all modules)."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()
        self.is_paused = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise ValueError(f"the network reads tensor values ({func.__name__}), so its path depends on the image")
        if not self.is_paused:
            self.of.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def fold_batch_norm(network: nn.Module, example: Tensor) -> nn.Module:
    """Return a network with each batch norm folded into its convolution; in evaluation mode it computes the same.

    In evaluation mode batch normalisation scales by constants, which can be multiplied into the weights of the
    preceding convolution (Jacob et al. 2018, arXiv:1712.05877, section 3.2). This saves a pass over the activations in
    each layer: on a CPU about a fifth of the time of a small network.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode. It is not changed; the result shares the weights that are not folded.
    example : Tensor of shape (n, c, h, w)
        Images on which both networks must agree.

    Returns
    -------
    nn.Module
        `network` itself if nothing can be folded: no convolution is followed by a batch norm, the network reads tensor
        values, or the outputs disagree.

    Examples
    --------
    >>> import torch
    >>> from fewshot import create_backbone
    >>> network = create_backbone("resnet18").eval()
    >>> fold_batch_norm(network, torch.ones(1, 3, 32, 32)).bn1
    Identity()
    """
    if not any(_after_norm(part) is not None for part in network.modules()):
        return network
    try:
        folded = _copy_structure(network, {})
        pairs, expected = _find_pairs(folded, example)
    except Exception:  # the network's own code may raise anything when it is watched
        return network
    for conv, norm in pairs:
        before, after = folded.get_submodule(conv), folded.get_submodule(norm)
        folded.set_submodule(conv, fuse_conv_bn_eval(before, after))  # type: ignore[type-var, arg-type]
        folded.set_submodule(norm, _after_norm(after))  # type: ignore[arg-type]
    folded.requires_grad_(False).eval()
    agrees = pairs and bool((folded(example) - expected).abs().max() <= TOLERANCE * expected.abs().max())
    return folded if agrees else network


def _copy_structure(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """Copy a module and its submodules but share their weights; far faster than `deepcopy`."""
    if module not in copies:
        copies[module] = copy = module.__new__(type(module))
        copy.__dict__ = {key: value.copy() if isinstance(value, dict) else value for key, value in vars(module).items()}
        for name, child in module._modules.items():
            copy._modules[name] = child and _copy_structure(child, copies)
    return copies[module]


def _find_pairs(network: nn.Module, example: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Return the names of each convolution and the batch norm that alone uses its output, both called once.

    Also return the output of the network.
    """
    uses, calls = _Uses(), Counter[str]()
    made: dict[int, tuple[str, Tensor]] = {}  # keeps the tensors alive, so that ids stay unique
    taken: list[tuple[str, str, int]] = []

    def make(name: str, output: Tensor) -> None:
        calls[name] += 1
        made[id(output)] = name, output
        uses.of[id(output)] = 0  # an earlier tensor, now freed, may have had this id

    def take(name: str, x: Tensor) -> None:
        calls[name] += 1
        uses.of[id(x)] += 1
        uses.is_paused = True
        if id(x) in made:
            taken.append((made[id(x)][0], name, id(x)))

    def resume(*_: Any) -> None:
        uses.is_paused = False

    hooks = []
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d):
            hooks += [part.register_forward_hook(lambda _, __, output, name=name: make(name, output))]
        elif _after_norm(part) is not None:
            hooks += [part.register_forward_pre_hook(lambda _, inputs, name=name: take(name, inputs[0]))]
            hooks += [part.register_forward_hook(resume)]
    with uses:
        output = network(example)
    for hook in hooks:
        hook.remove()
    return [(conv, norm) for conv, norm, x in taken if uses.of[x] == calls[conv] == calls[norm] == 1], output


def _after_norm(module: nn.Module) -> nn.Module | None:
    """Return what a batch norm does after normalising; None if the module is not a batch norm."""
    from timm.layers import BatchNormAct2d

    if type(module) is nn.BatchNorm2d and module.track_running_stats:
        return nn.Identity()
    if type(module) is BatchNormAct2d and module.track_running_stats:
        return nn.Sequential(*(part for name, part in module.named_children() if name in ("drop", "act")))
    return None
