"""What programs get of every command: JSON alone on standard output, and an exit status."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fewshot import FewShotImageClassifier
from fewshot.cli import main
from fewshot.cli.commands import COMMANDS
from tests.photographs import quick_embedder, write_photos
from tests.test_docs_commands import GRID as PLUGIN_GRID

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"
#: The commands whose output is no data: a service, and a script for a shell. The demonstration has a slow test.
NO_DATA, DEMO = {"serve", "completion"}, "demo --train-episodes 1 --episodes 1"
QUICK = "--backbone conv4 --weights random --size 28"
#: Commands that succeed one after the other, and between them name every command that has data.
STORY = (
    f"fit photos --out made {QUICK} --reject 20",
    "show model", "history model", "learners", "backbones",
    "predict model new.png", "test model others", "check model", "audit model", "suggest model others -k 2",
    "add model heron new.png", "rename model heron egret", "remove model egret", "undo model", "merge model second",
    "calibrate model --reject 20", "annotate others --model model --out a.parquet",
    "search a.parquet new.png --model model", "export model --out device",
    "export-labels others --model model --format csv --out tasks.csv", "import-labels photos --out table.csv",
    f"adapt five --out domain.safetensors {QUICK}",
    "data folder five --out five.csv --val 0 --test 0.4",
    "train five.csv --out run --size 28 --way 2 --query 1 --episodes 1",
    "evaluate five.csv --from run/best.safetensors --way 2 --query 1 --shot 1 --episodes 2",
    "bench grid.toml --executor serial",
)  # fmt: skip
GRID = PLUGIN_GRID.replace("shrunken", "prototypical")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photographs, two classifiers, data of five classes and a grid; the working directory."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("outputs")
    os.chdir(folder)
    _write()
    yield folder
    os.chdir(before)


def _write():
    write_photos(Path("photos"), 3)
    write_photos(Path("others"), 2, seed=2)
    for i in range(5):
        Path("five", f"{i}").mkdir(parents=True)
        for j in range(4):
            Image.effect_noise((32, 32), 20 + 20 * i + j).convert("RGB").save(Path("five", f"{i}", f"{j}.png"))
    Image.effect_noise((64, 64), 80).convert("RGB").save("new.png")
    paths = write_photos(Path("learned"), 8)
    labels = ["flower", *(Path(path).parent.name for path in paths[1:])]  # the first is wrong, for audit
    for name in ("model", "second"):
        FewShotImageClassifier(quick_embedder()).fit(paths, labels).save(name)
    Path("grid.toml").write_text(GRID)
    Path("broken.png").write_text("no image")
    for name in ("damaged/manifest.json", "bad/broken.png"):
        Path(name).parent.mkdir()
        Path(name).write_text("{")
    Path("bad.csv").write_text("path,label\nnew.png,x\ngone.png,y\n")


def documented():
    """Return the keys of the JSON of each command that the page lists."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: re.findall(r"`([^`]+)`", keys) for name, keys in rows}


def check(words, capfd):
    """Run a command, and compare the keys of its JSON with those of the page."""
    assert main([*words.split(), "--json", "-"]) == 0, capfd.readouterr().err
    found = json.loads(capfd.readouterr().out)
    assert list(found[0] if isinstance(found, list) else found) == documented()[words.split()[0]], words


def test_every_command_gives_the_json_that_is_documented_alone_on_standard_output(place, tmp_path, monkeypatch, capfd):
    shutil.copytree(place, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    named = {words.split()[0] for words in (*STORY, DEMO)}
    assert named == COMMANDS.keys() - NO_DATA == documented().keys()
    for words in STORY:
        check(words, capfd)


@pytest.mark.slow
def test_the_demonstration_does_so_too(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    check(DEMO, capfd)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("predict model new.png", 0),
        ("predict model new.png broken.png", 1),  # one image got no answer
        ("annotate bad --model model --out a.csv", 1),
        ("show damaged", 1),
        ("show model --json /dev/full", 1),
        ("import-labels bad.csv --out x.csv", 1),
        ("show gone", 2),
        ("show photos", 2),
        ("history gone", 2),
        ("undo model --to 99", 2),
        ("merge model gone", 2),
        ("predict model gone.png", 2),
        ("predict model", 2),
        ("predict model new.png --tpo 3", 2),
        ("fit gone --out m", 2),
        ("fit photos --out model", 2),
        ("fit photos --out photos", 2),
        ("add model x broken.png", 2),
        ("remove model nosuch", 2),
        ("test model gone", 2),
        ("calibrate model", 2),
        ("search gone.parquet new.png --model model", 2),
        ("annotate gone --model model --out a.csv", 2),
        ("bench gone.toml", 2),
        ("import-labels gone --out x.csv", 2),
    ],
)
def test_exit_statuses_say_whether_a_command_is_wrong_or_has_failed(words, status, place, capfd):
    before = sorted(Path("model").rglob("*"))
    try:
        found = main(words.split())
    except SystemExit as left:  # of argparse
        found = left.code
    assert found == status
    error = capfd.readouterr().err
    assert bool(error) == bool(status)
    assert "Traceback" not in error
    assert sorted(Path("model").rglob("*")) == before
