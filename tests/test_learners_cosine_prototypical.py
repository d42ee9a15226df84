import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fewshot import CosinePrototypicalLearner, FewShotClassifier, PrototypicalLearner
from fewshot.embedding.checkpoint import build_learner, describe_learner

X, Y = np.random.default_rng(0).normal(size=(30, 4)), np.repeat(["a", "b", "c"], 10)


def test_logits_are_the_cosines_of_class_means():
    labels = torch.arange(3).repeat_interleave(10)
    support, queries = torch.from_numpy(X), torch.from_numpy(X[::3] + 0.5)
    means = torch.stack([support[labels == c].mean(0) for c in range(3)])
    expected = F.cosine_similarity(queries[:, None], means[None], dim=-1) / 0.05
    torch.testing.assert_close(CosinePrototypicalLearner()(support, labels, queries, 3), expected)


def test_it_is_printed_and_saved_by_its_own_name():
    learner = CosinePrototypicalLearner()
    assert repr(learner) == "CosinePrototypicalLearner(metric='cosine', temperature=0.05)"
    assert learner.description == "cosine-prototypical, cosine, temperature 0.05"
    assert PrototypicalLearner().description == "prototypical, sqeuclidean, temperature 1"
    described = describe_learner(learner)
    assert described == {"name": "cosine-prototypical", "params": {"temperature": 0.05, "learn_temperature": False}}
    assert type(build_learner(described, learner.state_dict())) is CosinePrototypicalLearner


@pytest.mark.parametrize("new_first", [True, False])
def test_it_learns_on_and_merges_with_what_cosine_prototypes_had_learned_before(new_first):
    new, old = (FewShotClassifier(one) for one in ("cosine-prototypical", PrototypicalLearner("cosine", 0.05)))
    one, other = (new, old) if new_first else (old, new)
    expected = FewShotClassifier("cosine-prototypical").fit(X, Y).decision_function(X)
    merged = one.fit(X[::2], Y[::2]).merge(other.fit(X[1::2], Y[1::2]))
    np.testing.assert_allclose(merged.decision_function(X), expected, rtol=1e-12)
    learned = pickle.loads(pickle.dumps(other)).set_params(learner=one.learner).partial_fit(X[::2], Y[::2])
    np.testing.assert_allclose(learned.decision_function(X), expected, rtol=1e-12)


@pytest.mark.parametrize("other", [PrototypicalLearner("cosine", 0.1), PrototypicalLearner("dot", 0.05)])
def test_it_is_not_like_other_prototypes(other):
    assert not CosinePrototypicalLearner().is_like(other)
    assert not other.is_like(CosinePrototypicalLearner())


def test_a_learner_that_reads_its_memory_differently_is_not_like_it():
    class Halved(CosinePrototypicalLearner):
        def read(self, similarity, memory, candidates=None):
            return super().read(similarity / 2, memory, candidates)

    assert not CosinePrototypicalLearner().is_like(Halved())
    assert Halved().is_like(Halved())
