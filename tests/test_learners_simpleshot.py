"""SimpleShot against loops written from the paper."""

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier, SimpleShotClassifier, SimpleShotLearner, create_backbone
from fewshot.embedding.checkpoint import load_learner, save_weights
from tests.test_contract import episode

CENTER = np.linspace(-1.0, 2.0, 8)
CASES = [("UN", None), ("L2N", None), ("CL2N", CENTER)]


def oracle(support, labels, weight, queries, n_way, center, normalization, metric, temperature):
    def f(x):
        x = x - center if normalization == "CL2N" else x
        return x if normalization == "UN" else x / np.sqrt((x**2).sum())

    logits = np.zeros((len(queries), n_way))
    for c in range(n_way):
        prototype, total = np.zeros(support.shape[1]), 0.0
        for x, label, w in zip(support, labels, weight, strict=True):
            if label == c:
                prototype, total = prototype + w * f(x), total + w
        prototype = prototype / total
        for q, query in enumerate(queries):
            z = f(query)
            similarity = {
                "sqeuclidean": -((z - prototype) ** 2).sum(),
                "dot": (z * prototype).sum(),
                "cosine": (z * prototype).sum() / np.sqrt((z**2).sum() * (prototype**2).sum()),
            }[metric]
            logits[q, c] = similarity / temperature
    return logits


@pytest.mark.parametrize(("normalization", "center"), CASES)
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
@pytest.mark.parametrize("shots", [(1, 3, 2, 5), (30, 2, 11, 7)])
def test_it_is_its_formula(normalization, center, metric, shots):
    support, labels, queries = episode(shots=shots)
    weight = np.random.default_rng(3).uniform(0.2, 3, len(labels))
    learner = SimpleShotLearner(normalization, center, metric, 0.3)
    got = learner(support, labels, queries, 4, torch.from_numpy(weight))
    arrays = (support.numpy(), labels.numpy(), weight, queries.numpy())
    expected = oracle(*arrays, 4, center, normalization, metric, 0.3)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10)


def test_unnormalised_it_is_the_prototypical_learner_and_unit_length_undoes_scale():
    support, labels, queries = (t.numpy() for t in episode())
    plain = FewShotClassifier("prototypical").fit(support, labels).decision_function(queries)
    model = SimpleShotClassifier("UN", temperature=1.0).fit(support, labels)
    np.testing.assert_allclose(model.decision_function(queries), plain)
    scales = np.random.default_rng(0).uniform(0.1, 9, (len(queries), 1))
    model = SimpleShotClassifier().fit(support, labels)
    np.testing.assert_allclose(model.decision_function(queries * scales), model.decision_function(queries))


def test_the_center_decides_where_all_embeddings_share_an_offset():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 20)).repeat(100, 0) + rng.normal(size=(200, 20)) + 1e7
    y = np.repeat([0, 1], 100)
    model = SimpleShotClassifier("CL2N", np.full(20, 1e7)).fit(x[::20], y[::20])
    assert model.score(x, y) > 0.95
    assert model.score(x.astype(np.float32), y) > 0.9


def test_the_center_survives_a_checkpoint_and_growing(tmp_path):
    support, labels, queries = episode()
    learner = SimpleShotLearner("CL2N", CENTER)
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    loaded = load_learner(tmp_path / "w.safetensors")
    assert torch.equal(loaded.center, torch.from_numpy(CENTER))
    assert torch.equal(loaded(support, labels, queries, 4), learner(support, labels, queries, 4))
    grown = FewShotClassifier(learner).fit(support, labels).set_params(learner=loaded).partial_fit(support, labels)
    assert grown.n_support_.sum() == 2 * len(labels)
    with pytest.raises(ValueError, match="cannot continue what"):
        grown.set_params(learner=SimpleShotLearner("CL2N", CENTER + 1)).partial_fit(support, labels)


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="CL2N needs center, the mean embedding of the base classes"):
        SimpleShotLearner("CL2N")
    with pytest.raises(ValueError, match="center is for CL2N, and normalization is 'L2N'; leave one of the two out"):
        SimpleShotLearner("L2N", [0.0])
    with pytest.raises(ValueError, match="no normalization is called 'CL2'; did you mean 'CL2N'"):
        SimpleShotLearner("CL2", [0.0])
    with pytest.raises(ValueError, match="center has 3 numbers and the embeddings 8 dimensions"):
        SimpleShotLearner("CL2N", [0.0, 1.0, 2.0])(*episode(), 4)
    with pytest.raises(ValueError, match="temperature is 0; it divides the similarities"):
        SimpleShotLearner(temperature=0)
