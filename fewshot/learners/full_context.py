"""Matching Networks with full-context embeddings (FCE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric, prepare_keys
from fewshot.utils.values import check_count


@register_learner("matching-fce", "fce")
class FullContextLearner(SupportLearner):
    r"""Answer like Matching Networks, with support and queries embedded in the context of the whole support.

    Use it meta-trained: its weights are learned from the episodes of many classes.

    A bidirectional LSTM reads the support x[1..n] in its order: :math:`g_i = x_i + \overrightarrow{h}_i +
    \overleftarrow{h}_i`. An LSTM reads each query q in K steps, from :math:`h_0 = r_0 = 0`, and attends to the support:

    .. math:: h_k = q + \mathrm{LSTM}(q, [h_{k-1}, r_{k-1}]), \qquad
              r_k = \sum_i \operatorname{softmax}_i(h_k^\top g_i) \, g_i

    .. math:: p(c \mid q) = \sum_{i:\, y_i = c} \operatorname{softmax}_i \frac{\cos(h_K, g_i)}{\tau}

    for the labels y and the temperature τ. Sample weights count only in the last sum.

    **Answers depend on the order of the support**, as in the paper; shuffle it, or average over orders, to see how
    much. O(n d) to store, O(n d^2) to learn, O(K (d^2 + n d)) per query. Each change of a classifier reads the whole
    support again.

    Parameters
    ----------
    metric : {"cosine", "sqeuclidean", "dot"}, default="cosine"
        The paper uses the cosine.
    temperature : float, default=0.1
        Logits are similarity / temperature; the paper has no temperature, which means 1.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    n_steps : int, default=5
        K, the number of LSTM steps per query.
    d : int, optional
        Embedding length; by default that of the first embeddings seen.

    References
    ----------
    O. Vinyals, C. Blundell, T. Lillicrap, K. Kavukcuoglu, D. Wierstra (2016). Matching Networks for One Shot Learning.
    NeurIPS. arXiv:1606.04080, appendix A, which does not state K.

    Examples
    --------
    >>> import torch
    >>> from fewshot import FullContextLearner
    >>> learner = FullContextLearner(d=2)
    >>> learner(torch.eye(2), torch.tensor([0, 1]), torch.ones(3, 2), n_way=2).shape
    torch.Size([3, 2])
    """

    indexable = False
    learned = True
    ordered = True

    def __init__(
        self,
        metric: Metric = "cosine",
        temperature: float = 0.1,
        learn_temperature: bool = False,
        n_steps: int = 5,
        d: int | None = None,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.n_steps = check_count("n_steps", n_steps)
        if d is not None:
            self.sized(d)

    def build(self, d: int) -> None:
        """Create both LSTMs."""
        self.read_support = nn.LSTM(d, d, batch_first=True, bidirectional=True)
        # The attention read-out joins the input; the paper joins it to the state, which is equivalent.
        self.read_query = nn.LSTMCell(2 * d, d)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per support embedding, in the context of the others."""
        x, labels, weight = (statistics.support[name] for name in ("x", "labels", "weight"))
        order = (weight == 0).int().argsort(dim=-1, stable=True)  # padding last, where it is not read
        x, labels, weight = _take(x, order), labels.gather(-1, order), weight.gather(-1, order)
        flat, lengths = x.reshape(-1, *x.shape[-2:]), (weight > 0).sum(-1).flatten().clamp(min=1).cpu()
        packed = pack_padded_sequence(flat, lengths, batch_first=True, enforce_sorted=False)
        both, _ = pad_packed_sequence(self.read_support(packed)[0], batch_first=True, total_length=x.shape[-2])
        forward, backward = both.reshape(*x.shape[:-1], 2 * x.shape[-1]).chunk(2, -1)
        return Memory.of_keys(x + forward + backward, labels, weight, statistics.n_way)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of queries, read in the context of the support."""
        absent = ~torch.isfinite(memory.log_weight).unsqueeze(-2)
        hidden, cell, flat = queries, None, queries.reshape(-1, queries.shape[-1])
        read_out = torch.zeros_like(queries)
        for _ in range(self.n_steps):
            state = None if cell is None else (hidden.reshape(flat.shape), cell)
            new, cell = self.read_query(torch.cat([flat, read_out.reshape(flat.shape)], -1), state)
            hidden = queries + new.reshape(queries.shape)
            attention = (hidden @ memory.keys.mT).masked_fill(absent, -torch.inf).softmax(-1)
            read_out = attention @ memory.keys
        return self.read(prepare_keys(memory.keys, self.metric).similarity(hidden), memory)


def _take(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(-2, order.unsqueeze(-1).expand(x.shape))
