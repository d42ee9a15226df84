"""The methods against those of easyfsl on equal episodes, where definitions agree; what differs is said."""

import numpy as np
import pytest
import torch

from fewshot import (
    BDCSPNLearner,
    FEATLearner,
    FullContextLearner,
    LaplacianShotLearner,
    MatchingLearner,
    PrototypicalLearner,
    PTMAPLearner,
    SimpleShotLearner,
)
from fewshot.utils.isolation import seeded

pytest.importorskip("easyfsl")
from easyfsl import methods
from easyfsl.modules import MultiHeadAttention

# Not compared: RelationNetworks, whose relation module reads feature maps, ours vectors.


def rows(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape))


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def episode(seed, n_way=4, n_query=8, d=6):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.permutation(np.repeat(np.arange(n_way), [1, 3, 2, 4])))
    return rows(rng, len(labels), d), labels, rows(rng, n_query, d)


def theirs(method, support, labels, queries):
    method = method.double().eval()
    with torch.no_grad():
        method.process_support_set(support, labels)
        return method(queries)


def ours(learner, support, labels, queries):
    with torch.no_grad():
        return learner.double().eval()(support, labels, queries, 4)


@pytest.fixture(params=range(4))
def seed(request):
    return request.param


def test_prototypical_networks_whose_logits_are_minus_the_distance_and_not_its_square(seed):
    data = episode(seed)
    torch.testing.assert_close(
        ours(PrototypicalLearner(), *data), -theirs(methods.PrototypicalNetworks(), *data).square()
    )


def test_simpleshot_whose_similarity_is_the_cosine_to_means_of_what_is_not_normalised(seed):
    data = episode(seed)
    found = ours(SimpleShotLearner("UN", metric="cosine", temperature=1.0), *data)
    torch.testing.assert_close(found, theirs(methods.SimpleShot(), *data))


class MatchingNetworks(methods.MatchingNetworks):
    """In double precision: theirs keeps labels in single precision, whatever the embeddings."""

    def process_support_set(self, support_images, support_labels):
        super().process_support_set(support_images, support_labels)
        self.one_hot_support_labels = self.one_hot_support_labels.double()


def test_matching_networks_without_context_for_queries_of_unit_length(seed):
    """LSTMs of zeros read nothing. Theirs takes queries as long as they are, and adds 1e-6 to probabilities."""
    support, labels, queries = episode(seed)
    with seeded(0):
        method = MatchingNetworks(feature_dimension=6)
    for weight in method.parameters():
        torch.nn.init.zeros_(weight)
    expected = theirs(method, support, labels, unit(queries)).exp() - 1e-6
    found = ours(MatchingLearner(temperature=1.0), support, labels, queries).softmax(-1)
    torch.testing.assert_close(found, expected)


def test_the_context_of_the_support_in_matching_networks(seed):
    """Only that: theirs starts to read a query from the query and not from zeros, and leaves its length as it is."""
    support, labels, _ = episode(seed)
    learner = FullContextLearner(d=6).double()
    with seeded(0):
        method = methods.MatchingNetworks(feature_dimension=6).double()
    method.support_features_encoder.load_state_dict(learner.read_support.state_dict())
    method.process_support_set(support, labels)
    keys = learner.memorize(learner.learn(support, labels, 4)).keys
    torch.testing.assert_close(keys, method.contextualized_support_features)


def test_feat_with_the_same_weights(seed):
    data, learner = episode(seed), FEATLearner(d=6)
    with seeded(0):
        attention = MultiHeadAttention(1, 6, 6, 6)
    names = {"w_qs": "query", "w_ks": "key", "w_vs": "value", "fc": "out", "layer_norm": "norm"}
    for their_name, name in names.items():
        getattr(attention, their_name).load_state_dict(getattr(learner, name).state_dict())
    expected = -theirs(methods.FEAT(attention_module=attention), *data).square() / 64
    torch.testing.assert_close(ours(learner, *data), expected)


def test_bd_cspn_of_sharpness_one_that_answers_queries_where_they_were(seed):
    """Theirs has no temperature."""
    support, labels, queries = episode(seed)
    found = ours(BDCSPNLearner(1.0, "UN", 1.0, shift="prototypes"), support, labels, queries + 3)
    torch.testing.assert_close(found, theirs(methods.BDCSPN(), support, labels, queries + 3))
    queries = queries - queries.mean(0) + support.mean(0)  # then none is moved
    found = ours(BDCSPNLearner(1.0, "UN", 1.0, shift=True), support, labels, queries)
    torch.testing.assert_close(found, theirs(methods.BDCSPN(), support, labels, queries))
    torch.testing.assert_close(ours(BDCSPNLearner(1.0, "UN", 1.0, shift=True), support, labels, queries + 3), found)


class LaplacianShot(methods.LaplacianShot):
    """In double precision: theirs makes the matrix of neighbours in single precision, whatever the embeddings."""

    def compute_pairwise_affinities(self, features):
        return super().compute_pairwise_affinities(features).double()


@pytest.mark.parametrize("n_iterations", [1, 3])
def test_laplacian_shot_with_a_neighbour_less_where_no_query_needs_a_shift(seed, n_iterations):
    """Its ``knn`` counts the query itself, and from the third round on it may stop early.

    Unit vectors that stand on a circle around the mean of the support have that mean, if they come in pairs.
    """
    support, labels, _ = episode(seed)
    support = unit(support)
    middle = support.mean(0)
    across = rows(np.random.default_rng(seed + 9), 24, 6)
    across = unit(across - (across @ unit(middle))[:, None] * unit(middle)) * (1 - middle @ middle).sqrt()
    queries = torch.cat([middle + across, middle - across])
    method = LaplacianShot(knn=4, inference_steps=n_iterations, feature_normalization=2)
    learner = LaplacianShotLearner(n_neighbors=3, n_iterations=n_iterations, sharpness=1.0, shift=True)
    found = ours(learner, support, labels, queries * torch.linspace(0.5, 4, 48).double()[:, None]).softmax(-1)
    torch.testing.assert_close(found, theirs(method, support, labels, queries))


def test_pt_map_where_the_power_leaves_unit_length(seed):
    """Theirs does not scale to unit length: here the squares of (x + 1e-6)^0.5 sum to 1 as they are.

    It ends Sinkhorn's rounds at 1e-6, after the columns, and takes a whole number of queries a class.
    """
    rng = np.random.default_rng(seed)
    labels = torch.arange(8) % 4
    support, queries = (torch.from_numpy(rng.dirichlet(np.ones(6), n)) * (1 - 6e-6) for n in (8, 12))
    found = ours(PTMAPLearner("uniform", regularization=10), support, labels, queries).exp()
    torch.testing.assert_close(found, theirs(methods.PTMAP(), support, labels, queries), atol=1e-5, rtol=0)
