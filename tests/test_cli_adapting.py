"""``fewshot adapt``, and the commands that take a domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot import Domain, FewShotImageClassifier, digits
from fewshot.cli import main

NETWORK = ["--backbone", "conv4", "--weights", "random", "--size", "28", "--quiet"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of digits: 0 to 4, and 5 to 9."""
    root, data = tmp_path_factory.mktemp("digits"), digits()
    for label in range(10):
        folder = root / ("domain" if label < 5 else "new") / str(label)
        folder.mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(data.labels == label)[:8]):
            Image.fromarray(data.images[row]).save(folder / f"{i}.png")
    return {"domain": root / "domain", "new": root / "new"}


def test_adapt_then_fit(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "d.safetensors"
    assert main(["adapt", str(folders["domain"]), "--out", str(out), *NETWORK]) == 0
    said = capsys.readouterr().out
    assert "adapted to 40 images of 5 classes" in said
    assert f"--domain {out}" in said
    assert main(["fit", str(folders["new"]), "--out", str(tmp_path / "m"), "--domain", str(out), *NETWORK]) == 0
    model = FewShotImageClassifier.load(tmp_path / "m")
    assert model.embedder_.domain.fingerprint == Domain.load(out).fingerprint
    out.unlink()  # the model has it
    assert main(["show", str(tmp_path / "m")]) == 0
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:10] if line)
    assert facts["domain"] == f"40 images of 5 classes, shrinkage {model.embedder_.domain.shrinkage:g}"
    assert main(["predict", str(tmp_path / "m"), str(folders["new"] / "5" / "0.png")]) == 0


def test_evaluate_in_a_domain(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "d.safetensors"
    assert main(["adapt", str(folders["domain"]), "--out", str(out), "--unlabelled", *NETWORK]) == 0
    assert Domain.load(out).n_classes == 0
    sizes = ["--shot", "1", "--query", "3", "--episodes", "5"]
    assert main(["evaluate", str(folders["new"]), "--domain", str(out), *sizes, *NETWORK]) == 0


def test_mistakes(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "d.safetensors"
    out.write_text("precious")
    assert main(["adapt", str(folders["domain"]), "--out", str(out), *NETWORK]) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert main(["adapt", str(folders["domain"]), "--out", str(tmp_path), *NETWORK]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["fit", str(folders["new"]), "--out", str(tmp_path / "m"), "--domain", str(out), *NETWORK]) == 2
    assert "d.safetensors" in capsys.readouterr().err
    assert main(["fit", str(folders["new"]), "--out", str(tmp_path / "m"), "--domain", "none", *NETWORK]) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert main(["adapt", str(folders["domain"]), "--out", str(out), "--force", "--shrinkage", "0.5", *NETWORK]) == 0
    assert Domain.load(out).shrinkage == 0.5
    assert (
        main(["fit", str(folders["new"]), "--out", str(tmp_path / "m"), "--domain", str(out), *NETWORK[:-2], "32"]) == 2
    )
    assert "adapt again" in capsys.readouterr().err
