import json

import torch

from fewshot.persistence.provenance import PACKAGES, manifest


def test_it_says_what_a_rerun_needs_and_nothing_of_this_machines_folders():
    found = json.loads(json.dumps(manifest("fewshot demo --seed 3", 3)))
    assert manifest("fewshot annotate", 0, ["joblib"])["versions"]["joblib"]
    assert found["command"] == "fewshot demo --seed 3"
    assert found["seed"] == 3
    assert found["threads"] == torch.get_num_threads()
    assert set(found["versions"]) == {"fewshot", *PACKAGES}
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert "/" not in json.dumps(found)
