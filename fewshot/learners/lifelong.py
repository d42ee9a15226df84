"""A lifelong memory of fixed size: similar support refreshes keys, and new keys replace the oldest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.learners.base import IGNORE, Learner
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import normalize
from fewshot.utils.values import check_count, check_number

#: Support rows compared with all keys at once.
BLOCK = 128
#: Added and subtracted, rounds numbers up to 1 to a grid with exact inner products; see `similarity.to_grid`.
TO_GRID = 1.5 * 2.0**26


@register_learner("lifelong")
class LifelongLearner(Learner):
    r"""Answer from a memory of fixed size, which each support row updates in turn.

    Use it if the memory must not grow, however much is shown.

    For each support embedding x of class y and weight w, scaled to unit length, let k be the nearest key. If k has
    class y, it moves; otherwise x becomes a key of class y, in a free place or in place of the least recently touched
    key:

    .. math:: k \leftarrow \frac{k + w x}{\lVert k + w x \rVert},
              \qquad p(c \mid q) \propto \sum_{j:\, y_j = c} \exp \frac{\cos(q, k_j)}{\tau}

    for a query q and the temperature τ. The training loss is the margin ``max(0, wrong - right + margin)`` between the
    logits, times the temperature, of the best wrong class and the right one, which are close to the largest cosines.

    **The memory depends on the order of the support**, as in the paper. Support cannot be removed row by row, only
    class by class, and replaced keys do not come back. O(size d) to store, to learn a row and to answer a query. (An
    image classifier also keeps thumbnails of all support for its pages.)

    A class with many more images than the others gets too many answers; `DiscriminantLearner` does not mind.

    Parameters
    ----------
    size : int, default=1000
        Most keys.
    temperature : float, default=0.025
        Logits are similarity / temperature; the paper's value is 1/40.
    margin : float, default=0.1
        Margin of the loss, in cosines.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    L. Kaiser, O. Nachum, A. Roy, S. Bengio (2017). Learning to Remember Rare Events. ICLR. arXiv:1703.03129. The paper
    picks at random among the oldest keys, reads only the 256 nearest keys, and answers with the class of the nearest.

    Examples
    --------
    >>> import torch
    >>> from fewshot import LifelongLearner
    >>> support = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    >>> learner = LifelongLearner(size=2)
    >>> learner(support, torch.tensor([0, 1, 1]), torch.tensor([[2.0, 0.5]]), n_way=2).argmax(-1)
    tensor([0])
    """

    ordered = True

    def __init__(
        self, size: int = 1000, temperature: float = 0.025, margin: float = 0.1, learn_temperature: bool = False
    ) -> None:
        super().__init__("cosine", temperature, learn_temperature)
        self.size, self.margin = check_count("size", size), check_number("margin", margin)

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support, which `settle` turns into keys."""
        return _with_mark(Statistics.of_support(support, labels, n_way, weight), 0.0)

    def settle(self, statistics: Statistics) -> Statistics:
        """Replace the support by the keys it made, oldest first."""
        keys, labels, touched = self._remember(statistics)
        places = touched.argsort()[(touched < 0).sum() :]
        weight = keys.new_ones(len(places))
        return _with_mark(Statistics.of_support(keys[places], labels[places], statistics.n_way, weight), 1.0)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return the keys that remain after all support."""
        keys, labels, touched = self._remember(statistics)
        return Memory.of_keys(keys, labels, (touched >= 0).to(keys.dtype), statistics.n_way)

    def _remember(self, statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys (..., m, d), their classes (..., m) and the row that touched each last, -1 for none."""
        x = statistics.support["x"]
        if x.dim() == 2 and x.dtype == torch.float64 and x.device.type == "cpu" and not x.requires_grad:
            return self._remember_alone(statistics)
        return self._remember_together(statistics)

    def _remember_alone(self, statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
        """Do the work of `_remember_together` for support without leading dimensions, a hundred times as fast.

        A step changes one key, so the similarities of a block of rows to all keys are computed once and then corrected.
        Float64 products are exact in both methods, so ties go to the first key.
        """
        support = {name: value.numpy() for name, value in statistics.support.items()}
        label, weight, settled = support["labels"], support["weight"], support["settled"] > 0
        x, m = normalize(normalize(statistics.support["x"])).numpy(), min(self.size, len(label))
        rows = np.flatnonzero(weight > 0)
        # Settled keys take the first places.
        n = min(m, int(np.append(settled[rows], False).argmin()))
        keys, labels, touched = np.zeros((m, x.shape[1])), np.zeros(m, label.dtype), np.full(m, -1)
        keys[:n], labels[:n], touched[:n] = x[rows[:n]], label[rows[:n]], rows[:n]
        for start in range(n, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            on_grid = _on_grid(x[block])
            similarity = np.where(touched < 0, -np.inf, on_grid @ _on_grid(keys).T)
            for i, row in enumerate(block.tolist()):
                nearest = int(similarity[i].argmax())
                if labels[nearest] == label[row] and touched[nearest] >= 0 and not settled[row]:
                    place, key = nearest, keys[nearest] + weight[row] * x[row]
                    keys[place] = key / (np.sqrt(key @ key) or 1)
                else:
                    place = int(touched.argmin())
                    keys[place], labels[place] = x[row], label[row]
                touched[place] = row
                similarity[i + 1 :, place] = on_grid[i + 1 :] @ _on_grid(keys[place])
        return torch.from_numpy(keys), torch.from_numpy(labels), torch.from_numpy(touched)

    def _remember_together(self, statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, classes and last rows of many episodes, row by row; gradients flow into the keys."""
        x, label, weight, settled = (statistics.support[name] for name in ("x", "labels", "weight", "settled"))
        batch, n = x.shape[:-2], x.shape[-2]
        m = min(self.size, n)
        x, keys = normalize(x), x.new_zeros((*batch, m, x.shape[-1]))
        labels, touched = label.new_zeros((*batch, m)), label.new_full((*batch, m), -1)
        for i in range(n):
            row, y = x[..., i, :], label[..., i : i + 1]
            similarity = (_on_grid(keys.detach()) @ _on_grid(row.detach()).unsqueeze(-1)).squeeze(-1)
            similarity = similarity.masked_fill(touched < 0, -torch.inf)
            nearest = similarity.argmax(-1, keepdim=True)
            known = (
                (labels.gather(-1, nearest) == y) & (touched.gather(-1, nearest) >= 0) & ~settled[..., i : i + 1].bool()
            )
            place = torch.where(known, nearest, touched.argmin(-1, keepdim=True))
            old = keys.gather(-2, place.unsqueeze(-1).expand(*batch, 1, x.shape[-1])).squeeze(-2)
            new = normalize(torch.where(known, old + weight[..., i : i + 1] * row, row))
            here = (torch.arange(m, device=x.device) == place) & (weight[..., i : i + 1] > 0)
            keys = torch.where(here.unsqueeze(-1), new.unsqueeze(-2), keys)
            labels, touched = torch.where(here, y, labels), torch.where(here, i, touched)
        return keys, labels, touched

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean margin loss between the right class and the best wrong class, in cosines."""
        real = labels != IGNORE
        similarity, target = (logits * self.temperature.to(logits))[real], labels[real].unsqueeze(-1)
        right = similarity.gather(-1, target).clamp(min=-1)
        wrong = similarity.scatter(-1, target, -torch.inf).amax(-1, keepdim=True)
        return torch.where(torch.isfinite(wrong), wrong - right + self.margin, 0).relu().mean()


def _on_grid(x: Any) -> Any:
    """Round a float64 array or tensor; return others unchanged."""
    return (x + TO_GRID) - TO_GRID if x.dtype in (torch.float64, np.float64) else x


def _with_mark(statistics: Statistics, settled: float) -> Statistics:
    """Return statistics whose support rows are marked 1 if they are settled keys, else 0."""
    mark = torch.full_like(statistics.support["weight"], settled)
    return replace(statistics, support={**statistics.support, "settled": mark})
