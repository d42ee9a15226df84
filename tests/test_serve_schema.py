"""The description of the API is true: schemathesis asks all that it allows, and some that it does not."""

import subprocess
import sys

import pytest

from fewshot import FewShotModel
from tests.serving import process, taught

#: Images and embeddings that a classifier can read are more than JSON Schema can say.
CONFIG = """
[[operations]]
include-path-regex = "/v1/(predict|embed|suggest|classes|examples)$"
include-method = "POST"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.slow
def test_answers_are_as_described(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    folder = taught(tmp_path / "model")
    with process(folder, "--log-level", "warning") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "run"]
        asked = [
            f"{server.url}v1/openapi.json",
            "--seed",
            "1",
            "--exclude-path",
            "/v1/model/load",
            "--max-examples",
            "30",
        ]
        ran = subprocess.run([*command, *asked], capture_output=True, text=True, cwd=tmp_path)
        assert ran.returncode == 0, ran.stdout[-8000:]
        assert not [line for line in server.log if '"level": "error"' in line]
    FewShotModel.load(folder)
