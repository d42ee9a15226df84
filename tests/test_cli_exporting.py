"""``fewshot export`` writes what ``fewshot-runtime`` reads."""

import json

import pytest
from PIL import Image

from fewshot import FewShotImageClassifier, digits
from fewshot.cli import main
from fewshot.runtime import command
from tests.photographs import quick_embedder

DATA = digits()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier of three digits from files, and a folder of five others."""
    root = tmp_path_factory.mktemp("export")
    for label in range(8):
        folder = root / ("learned" if label < 3 else "others") / f"digit {label}"
        folder.mkdir(parents=True)
        for i, image in enumerate(DATA.images[DATA.labels == label][: 2 if label < 3 else 20]):
            Image.fromarray(image).save(folder / f"{i}.png")
    FewShotImageClassifier(quick_embedder(), progress=False).fit(str(root / "learned")).save(root / "model")
    return root


def test_a_device_answers_what_was_exported_in_full_and_in_8_bits(made, capsys):
    model, images = str(made / "model"), [str(made / "learned" / f"digit {i}" / "0.png") for i in range(3)]
    exact, small = str(made / "exact"), str(made / "small")
    assert main(["export", model, "--out", exact, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["written"], told["classes"], told["quantize"]) == (exact, 3, None)
    quantized = ["export", model, "--out", small, "--quantize", "int8", "--gate", str(made / "others")]
    assert main([*quantized, "--max-loss", "1", "--quiet"]) == 0
    assert f"written to {small}" in capsys.readouterr().out
    for folder in (exact, small):
        assert command.main(["predict", folder, *images, "--json"]) == 0
        assert [row["label"] for row in json.loads(capsys.readouterr().out)] == ["digit 0", "digit 1", "digit 2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--out", "{model}", "--force"],
            "holds a saved classifier, so no export was written there; give a new folder",
        ),
        (["--out", "{out}", "--gate", "{others}"], "--gate is for --quantize int8; leave it out"),
        (["--out", "{out}", "--quantize", "int8"], "--quantize int8 needs --gate, on which its accuracy is measured"),
        (["--out", "{out}", "--quantize", "int8", "--gate", "{learned}"], "gate has classes that were learned"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(made, capsys, options, said):
    places = {name: str(made / name) for name in ("model", "others", "learned", "out")}
    assert main(["export", places["model"], *(option.format(**places) for option in options)]) == 2
    assert said in capsys.readouterr().err
    assert not (made / "out").exists()
