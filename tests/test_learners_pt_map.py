import numpy as np
import pytest
import torch

from fewshot import PTMAPLearner, SoftKMeansLearner


def gaussian_like(x, power):
    y = np.array([np.sign(v) * (abs(v) + 1e-6) ** power for v in x])
    return y / np.sqrt(sum(y * y))


def sinkhorn(scores, columns):
    """Columns to what is wanted and rows to 1 in turn, until nothing moves."""
    plan = np.exp(scores - scores.max())
    for _ in range(20_000):
        found = plan.sum(0)
        plan = plan * (columns / found)
        plan = plan / plan.sum(1, keepdims=True)
        if np.abs(found - columns).max() < 1e-12:
            break
    return plan


def oracle(support, labels, weight, queries, n_way, prior, power=0.5, regularization=None, n_iterations=10, rate=0.2):
    """Log-probabilities by loops over classes and queries, with the paper's distances as they are."""
    present = [c for c in range(n_way) if c in labels]
    support = np.array([gaussian_like(x, power) for x in support])
    queries = np.array([gaussian_like(x, power) for x in queries])
    count = np.array([sum(weight[labels == c]) for c in present])
    total = np.array([sum(weight[labels == c, None] * support[labels == c]) for c in present])
    share = {"uniform": np.ones(len(present)), "support": count}.get(prior)
    prototypes, estimated = total / count[:, None], np.ones(len(present))
    middle = prototypes.mean(0)
    distance = np.mean([sum((q - middle) ** 2) for q in queries])
    regularization = regularization or (30 if prior == "estimated" else 10) / distance

    def spread():
        scores = np.array([[-regularization * sum((q - p) ** 2) for p in prototypes] for q in queries])
        if share is None:
            e = np.exp(scores) * estimated
            return e / e.sum(1, keepdims=True)
        return sinkhorn(scores, len(queries) * share / share.sum())

    for _ in range(n_iterations):
        z = spread()
        if prior == "estimated":
            estimated = (z.sum(0) + 2) / (len(queries) + 2 * len(present))
        for i in range(len(present)):
            target = (total[i] + sum(z[j, i] * q for j, q in enumerate(queries))) / (count[i] + sum(z[:, i]))
            prototypes[i] = (1 - rate) * prototypes[i] + rate * target
    logits = np.full((len(queries), n_way), -np.inf)
    logits[:, present] = np.log(spread())
    return logits


def episode(seed, n_query, shots=(1, 4, 0, 2), d=8):
    """Uneven support in mixed order with sample weights; one class is absent, and some numbers are below 0."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    support, queries = rng.normal(1, 1, (len(labels), d)), rng.normal(1, 1, (n_query, d))
    return support, labels, rng.uniform(0.2, 3, len(labels)), queries


def answer(learner, support, labels, weight, queries, n_way=4):
    support, labels, weight, queries = map(torch.from_numpy, (support, labels, weight, queries))
    return learner(support, labels, queries, n_way, weight).numpy()


@pytest.mark.parametrize("n_query", [1, 2, 9])
@pytest.mark.parametrize("prior", ["estimated", "uniform", "support", "none"])
@pytest.mark.parametrize("seed", range(2))
def test_it_is_its_formula(seed, prior, n_query):
    data = episode(seed, n_query)
    np.testing.assert_allclose(answer(PTMAPLearner(prior), *data), oracle(*data, 4, prior), rtol=1e-6, atol=1e-12)


def test_other_parameters_are_those_of_the_formula():
    data = episode(5, 7)
    parameters = {"power": 1.3, "regularization": 3.0, "n_iterations": 4, "rate": 0.7}
    found = answer(PTMAPLearner("uniform", **parameters), *data)
    np.testing.assert_allclose(found, oracle(*data, 4, "uniform", **parameters), rtol=1e-6)


def test_a_prior_is_what_the_answers_add_up_to():
    support, labels, weight, queries = episode(2, 12)
    count = np.bincount(labels, weight, minlength=4)
    for prior, share in (("uniform", np.array([1, 1, 0, 1]) / 3), ("support", count / count.sum())):
        probabilities = np.exp(answer(PTMAPLearner(prior), support, labels, weight, queries))
        np.testing.assert_allclose(probabilities.sum(0), 12 * share, atol=1e-8, rtol=0)
        np.testing.assert_allclose(probabilities.sum(1), 1)


def test_without_a_prior_and_with_full_steps_it_is_soft_k_means():
    support, labels, weight, queries = episode(4, 6)
    prepared = [np.array([gaussian_like(x, 0.5) for x in rows]) for rows in (support, queries)]
    expected = answer(SoftKMeansLearner(temperature=0.1, n_iterations=3), prepared[0], labels, weight, prepared[1])
    learner = PTMAPLearner("none", regularization=10, n_iterations=3, rate=1.0)
    found = answer(learner, support, labels, weight, queries)
    np.testing.assert_allclose(found, torch.from_numpy(expected).log_softmax(-1).numpy(), rtol=1e-9)


def test_without_an_iteration_and_a_prior_it_is_the_nearest_prototype():
    data = episode(4, 6)
    found = answer(PTMAPLearner("none", n_iterations=0), *data)
    np.testing.assert_allclose(found, oracle(*data, 4, "none", n_iterations=0), rtol=1e-9)


def test_with_an_estimated_prior_a_single_query_gets_the_answer_of_the_nearest_mean():
    for seed in range(20):
        support, labels, _, queries = episode(seed, 1, shots=(2, 2, 2, 2))
        found, alone = (answer(PTMAPLearner("estimated", n_iterations=n), *(support, labels, np.ones(8), queries))
                        for n in (10, 0))  # fmt: skip
        assert found.argmax() == alone.argmax()


def test_bad_numbers_and_priors_are_named():
    for name in ("power", "regularization", "rate"):
        for value in (0, -1.0, float("nan"), float("inf"), "1"):
            with pytest.raises(ValueError, match=rf"{name} is {value!r}; expected a number above 0"):
                PTMAPLearner(**{name: value})
    for value in (-1, 2.0, "3"):
        with pytest.raises(ValueError, match=rf"n_iterations is {value!r}; expected a whole number of at least 0"):
            PTMAPLearner(n_iterations=value)
    with pytest.raises(ValueError, match="no prior is called 'uniforn'; did you mean 'uniform'"):
        PTMAPLearner("uniforn")


@pytest.mark.parametrize("prior", ["estimated", "uniform", "none"])
@pytest.mark.parametrize("noise", [1e-3, 0.03, 1.0])
def test_classes_are_told_apart_however_close_embeddings_lie(noise, prior):
    rng = np.random.default_rng(3)
    centres, labels = rng.normal(size=(20, 32)), np.arange(20).repeat(16)
    x = torch.from_numpy(5 + noise * (centres[labels] + 1.2 * rng.normal(size=(320, 32))))
    support, learned = torch.arange(0, 320, 16), torch.arange(20)
    asked = torch.from_numpy(np.setdiff1d(np.arange(320), support))

    def accuracy(**parameters):
        learner = PTMAPLearner(prior, **parameters)
        return float(
            (learner(x[support], learned, x[asked], 20).argmax(-1) == torch.from_numpy(labels)[asked]).float().mean()
        )

    assert accuracy() > accuracy(n_iterations=0) + 0.02


def test_each_episode_of_a_batch_has_its_own_factor():
    support, queries = (
        torch.rand(n, 6, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (3, 7)
    )
    near = 1 + 0.01 * support, 1 + 0.01 * queries
    labels = torch.arange(3).expand(2, 3)
    both = PTMAPLearner()(torch.stack([support, near[0]]), labels, torch.stack([queries, near[1]]), 3)
    alone = [PTMAPLearner()(*pair[:1], labels[0], pair[1], 3) for pair in ((support, queries), near)]
    torch.testing.assert_close(both, torch.stack(alone))


def test_embeddings_that_are_all_the_same_get_equal_answers():
    found = PTMAPLearner()(torch.full((3, 5), 0.1), torch.arange(3), torch.full((4, 5), 0.1), 3).exp()
    torch.testing.assert_close(found, torch.full((4, 3), 1 / 3))
