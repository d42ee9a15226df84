"""Every command that README and the documentation show runs, from the wheel alone.

The environment is that of the tests, or that of the Python in ``$FEWSHOT_PYTHON``, which has the wheel.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier, LabeledImages, export, glyphs
from fewshot.data.packed import write_packed
from tests.photographs import write_photos
from tests.test_packaging import build, kept

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "gallery").glob("*.md"))]
#: Commands that are not run here, and why not. All others are, so a new line in a page is tried.
NOT_RUN = {
    r"make ": "of a checkout: .ci/run does",
    r"pip install |python3 -m venv ": "installs gigabytes",
    r"python examples/": "tests/test_examples.py does",
    r"python benchmarks/": "takes published data and hours; tests/test_benchmarks.py runs their parts",
    r"fewshot data omniglot ": "downloads; tests/test_data_preparing.py reads archives of the same form",
    r"fewshot bench (quick|methods|unbalanced|few_classes) ": "takes minutes; tests/test_benchmark.py runs a small one",
    r"fewshot .*--executor ray": "takes a cluster; tests/test_retrieval_work.py runs one of a process",
}
#: A line of a block that is a command.
SHOWN = re.compile(r"^(?:\$ )?((?:fewshot|fewshot-runtime|python3?|make|pip) .*)", re.MULTILINE)
#: What is added to commands that would take hours.
SHORTER = {
    r"fewshot train ": "--episodes 2 --query 1 --val-way 3 --set val_n_query=1 --quiet",
    r"fewshot evaluate ": "--query 2 --episodes 5",
}
GRID = """
n_way = [2]
n_shot = [1]
n_query = 1
n_episodes = 2
datasets = [{source = "digits"}]
backbones = [{backbone = "pixels"}]
learners = [{learner = "shrunken"}]
"""
#: What a person changes in a file before the command that reads it.
EDITED = {"doubtful.csv": "image,class\nphotos/temple/00.png,flower\n"}
#: Runs commands in folders in one process, since importing torch takes seconds: [[folder, [[word, ...], ...]], ...].
RUNNER = """
import contextlib, io, json, os, sys, traceback
import fewshot.cli, fewshot.runtime.command
assert os.path.realpath(fewshot.__file__).startswith(os.path.realpath(sys.argv[2])), fewshot.__file__
failed, printed = [], []
for folder, commands in json.load(open(sys.argv[1])):
    os.chdir(folder)
    for program, *words in commands:
        if program == "edit":
            open(words[0], "w").write(words[1])
            continue
        main = fewshot.cli.main if program == "fewshot" else fewshot.runtime.command.main
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = main(words)
        except SystemExit as left:
            status = left.code
        except Exception:
            status = traceback.format_exc()
        printed.append([folder, [program, *words], said.getvalue()])
        if status:
            failed.append([folder, program, *words, status, said.getvalue()[-1000:]])
print(json.dumps([failed, printed]), file=sys.__stdout__)
"""


def blocks():
    """Yield page and commands of each block of code that holds some."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"```(?:bash|text|console)\n(.*?)```", text, flags=re.DOTALL):
            if lines := SHOWN.findall(block):
                yield page.relative_to(ROOT).as_posix(), [line.partition(" | ")[0] for line in lines]


def shortened(line):
    """Return a command with the options that make it short."""
    more = [options for pattern, options in SHORTER.items() if re.match(pattern, line)]
    return " ".join([line.partition("  #")[0], *more])


def sessions():
    """Yield page, command and the lines that the page shows below it."""
    for page in PAGES:
        for block in re.findall(r"```text\n(\$ .*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for command, *lines in (part.splitlines() for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]):
                if lines:
                    yield page.relative_to(ROOT).as_posix(), command, lines


def shape(line):
    """Return a line without what differs from machine to machine and from picture to picture: its numbers."""
    return " ".join(re.sub(r"\d+(\.\d+)?( ms| s)?\b", "N", line).split())


def is_run(line):
    return not any(re.match(pattern, line) for pattern in NOT_RUN)


def test_what_is_not_run_is_still_shown():
    lines = [line for _, some in blocks() for line in some]
    assert len([line for line in lines if is_run(line)]) > 40
    unused = [pattern for pattern in (*NOT_RUN, *SHORTER) if not any(re.match(pattern, line) for line in lines)]
    assert not unused, f"no page shows these any more: {unused}"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The command of a Python that has the wheel and not the checkout, and the folder of its packages."""
    if given := os.environ.get("FEWSHOT_PYTHON"):
        where = subprocess.run([given, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                               capture_output=True, text=True, check=True)  # fmt: skip
        return given, where.stdout.strip(), {}
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in kept(ROOT):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    with zipfile.ZipFile(build(source, "wheel")) as wheel:
        wheel.extractall(place)
    return sys.executable, str(place), {"PYTHONPATH": str(place)}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A folder of what the pages name: photographs, small data sets, a classifier, a device, a grid, a plug-in."""
    place = tmp_path_factory.mktemp("stand_ins")
    for i, name in enumerate(("photos", "others", "new_photos", "archive", "pool", "day")):
        write_photos(place / name, 4, seed=i)
    shutil.move(place / "new_photos" / "temple" / "00.png", place / "new_photos" / "temple" / "temple5.jpg")
    for i, name in enumerate(("new1.jpg", "new2.jpg", "heron1.jpg", "heron2.jpg")):
        Image.effect_noise((80, 60), 30 + 20 * i).convert("RGB").save(place / name)
    Image.open(place / "photos" / "temple" / "00.png").save(place / "new1.jpg")
    for i in range(6):
        (bird := place / "other_birds" / f"{i}").mkdir(parents=True)
        for j in range(4):
            Image.effect_noise((60, 60), 10 + 20 * i + j).convert("RGB").save(bird / f"{j}.jpg")
    parts = {split: glyphs(split) for split in ("train", "val", "test")}
    table = pd.concat([pd.DataFrame({"path": "made", "label": part.labels, "split": split})
                       for split, part in parts.items()], ignore_index=True)  # fmt: skip
    write_packed(place / "data" / "omniglot", np.concatenate([part.images for part in parts.values()]), table, {})
    few = parts["test"].with_classes(parts["test"].classes[parts["test"].counts >= 8][:6])
    table = pd.DataFrame({"path": "made", "label": few.labels, "split": "test"})
    write_packed(place / "data" / "cifar_fs", np.repeat(few.images[..., None], 3, axis=-1), table, {})
    model = FewShotImageClassifier().fit(LabeledImages.from_folder(place / "photos"))
    for name in ("model", "another"):
        model.save(place / name)
    export(model, place / "device")
    rows = [f"{path.relative_to(place)};{path.parent.name}" for path in sorted((place / "photos").rglob("*.png"))]
    (place / "objects.csv").write_text("\n".join(["Datei;Klasse", *rows]), encoding="utf-8-sig")
    labelled = {"image": f"/data/local-files/?d={place}/heron1.jpg".replace("?d=/", "?d="), "choice": "heron"}
    (place / "export.json").write_text(json.dumps([labelled]))
    kinds = ("flower", "temple")
    shown = [sorted(path.relative_to(place) for path in (place / "photos" / kind).iterdir()) for kind in kinds]
    boxes = {
        "images": [{"id": i, "file_name": str(some[0])} for i, some in enumerate(shown)],
        "annotations": [{"image_id": i, "category_id": i, "bbox": [0, 0, 40 + j, 40]} for i in (0, 1) for j in (0, 9)],
        "categories": [{"id": i, "name": kind} for i, kind in enumerate(kinds)],
    }
    (place / "boxes.json").write_text(json.dumps(boxes))
    (place / "asked.csv").write_text(f"path,x,y,w,h\n{shown[0][1]},2,2,40,40\n")
    Image.effect_noise((600, 400), 50).convert("RGB").save(place / "field.jpg")
    np.savez(place / "tickets.npz", embeddings=np.eye(8), labels=["billing", "technical"] * 4)
    (place / "grid.toml").write_text(GRID)
    code = re.search(r"```python\n(.*?@register_learner.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL)
    (place / "mine.py").write_text(code[1].split("\nmodel = ")[0])
    return place


@pytest.mark.slow
def test_the_commands_of_the_documents_run_from_the_wheel(python, stand_ins, tmp_path):
    program, installed, more = python
    jobs, services = [], []
    for i, (page, lines) in enumerate(blocks()):
        commands = [shlex.split(shortened(line), comments=True) for line in lines if is_run(line)]
        if commands:
            folder = tmp_path / f"{i} {page.replace('/', ' ')}"
            made = [words[words.index("--out") + 1] for words in commands if words[1] in ("fit", "export")]
            shutil.copytree(stand_ins, folder, ignore=shutil.ignore_patterns(*made))
            services += [(folder, words) for words in commands if words[1] == "serve"]
            ran = []
            for words in commands:
                if words[1] == "import-labels":
                    ran += [["edit", name, text] for name, text in EDITED.items() if name in words]
                ran += [words] if words[1] != "serve" else []
            jobs.append((str(folder), ran))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **more}
    environment |= {"BROWSER": "true"}
    command = [program, "-c", RUNNER, str(tmp_path / "jobs.json"), installed]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    failed, printed = json.loads(run.stdout.splitlines()[-1])
    assert not failed, "\n".join([*map(str, failed), run.stderr[-3000:]])
    unlike = []
    compared = set()
    for page, command, lines in sessions():
        folder, words = f" {page.replace('/', ' ')}", shlex.split(command, comments=True)
        for text in [text for where, ran, text in printed if where.endswith(folder) and ran == words]:
            compared.add(page)
            if list(map(shape, lines)) != list(map(shape, text.splitlines())):
                unlike.append(f"{page}: {command}\n{text}")
    assert not unlike, "\n".join(unlike)
    assert compared >= {"README.md", "docs/start.md", "docs/devices.md"}
    for folder, words in services[:1]:
        command = [program, "-m", *words, "--port", "0"]
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as service:
            try:
                assert "http://127.0.0.1:" in service.stdout.readline()
            finally:
                service.send_signal(signal.SIGINT)
        assert service.returncode == 0
