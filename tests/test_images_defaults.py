import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from fewshot import (
    CosinePrototypicalLearner,
    DiscriminantLearner,
    Domain,
    Embedder,
    FewShotImageClassifier,
    MatchingLearner,
    OwnEmbedder,
    create_backbone,
)
from fewshot.embedding.checkpoint import save_weights
from fewshot.images.learned import default_learner, suited

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results"
RESULTS, COMPARED = FOLDER / "temperature.json", FOLDER / "defaults.json"


def test_the_default_is_the_one_that_the_benchmark_favours():
    found = json.loads(COMPARED.read_text(encoding="utf-8"))
    for role in ("choose", "report"):
        accuracy = found["summary"][role]["accuracy"]
        assert max(accuracy, key=accuracy.get) == DiscriminantLearner.name
    for cell in found["cells"]:
        change, half = cell["rows"]["discriminant"]["change"]
        assert cell["styled"] or change + half > 0, cell


def test_the_temperature_is_the_one_that_the_benchmark_chose():
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    total = {
        t: sum(row["negative log-likelihood"][t] for row in rows if row["pixels"] >= 96)
        for t in map(str, (0.03, 0.04, 0.05, 0.06, 0.08))
    }
    assert float(min(total, key=total.get)) == CosinePrototypicalLearner().temperature.item()


def test_a_backbone_without_a_learner_gets_discriminant_analysis_and_a_checkpoint_its_own(tmp_path):
    for backbone in ("resnet18", create_backbone("conv4")):
        learner = default_learner(Embedder(backbone))
        assert (type(learner), learner.power) == (DiscriminantLearner, 0.5)
    assert default_learner(OwnEmbedder(lambda items: [[1.0, -1.0]] * len(items), "own 1")).power == 1
    save_weights(tmp_path / "best.safetensors", create_backbone("conv4"), MatchingLearner(temperature=0.3))
    learner = default_learner(Embedder(tmp_path / "best.safetensors"))
    assert (type(learner), learner.temperature.item()) == (MatchingLearner, pytest.approx(0.3))


def test_the_name_of_the_default_learner_is_the_default_one():
    own, plain = OwnEmbedder(lambda items: [[1.0, -1.0]] * len(items), "own 1"), Embedder("resnet18")
    in_domain = clone(plain).set_params(domain=Domain.fit(np.eye(4), None, embedder="any"))
    for embedder, power in ((own, 1.0), (plain, 0.5), (in_domain, 1.0)):
        found = suited("discriminant", embedder)
        assert (type(found), found.power) == (DiscriminantLearner, power)
    given = DiscriminantLearner(power=0.7)
    assert suited(given, own) is given
    assert suited("matching", own) == "matching"


def test_an_embedder_is_cloned_and_takes_no_second_settings():
    given = Embedder("resnet18", weights="random", batch_size=3)
    made = FewShotImageClassifier(given).make_embedder()
    assert made is not given
    assert made.get_params() == given.get_params()
    for name, value in {"weights": "w.pth", "pretrained": True, "img_size": 64, "cache": "folder", "bits": 12}.items():
        with pytest.raises(ValueError, match=f"{name} belongs to the Embedder"):
            FewShotImageClassifier(given, **{name: value}).make_embedder()
