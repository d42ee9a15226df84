"""The code of README and the documentation runs as written and prints what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fewshot import PrototypicalLearner, create_backbone, glyphs
from fewshot.cli import make_parser
from fewshot.data.packed import write_packed
from fewshot.embedding.checkpoint import save_weights
from tests.photographs import write_photos
from tests.processes import fewshot, python

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "benchmarks" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs" / "gallery").glob("*.md")),
    )
}
BLOCKS = {
    page: found
    for page, text in PAGES.items()
    if page != "docs/service.md"  # its block asks a running service
    and (found := re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
}
#: Runs blocks one after another, each as a program of its own, in one process: to start one takes seconds.
RUN = """
import json, sys, warnings
warnings.filterwarnings("error", category=DeprecationWarning, module="__main__")
for i, code in enumerate(json.loads(sys.argv[1])):
    exec(compile(code, f"block {i}", "exec"), {"__name__": "__main__"})
    print(end="\\f", flush=True)
"""


@pytest.fixture
def files(tmp_path):
    """Files by the names that the blocks use: photographs, and small stand-ins for data sets and a checkpoint."""
    write_photos(tmp_path / "photos", 3)
    write_photos(tmp_path / "others", 3, seed=2)
    shutil.copy(write_photos(tmp_path / "queries", 1, seed=1)[0], tmp_path / "new1.jpg")
    Image.new("RGB", (600, 400), (90, 160, 110)).save(tmp_path / "field.jpg")
    (tmp_path / "stock.csv").write_text("id,path,price,shop\n7,new1.jpg,12.5,Oslo\n9,field.jpg,80,Bonn\n")
    for i in (1, 2):
        Image.new("RGB", (80, 60), (90, 100, 110 + i)).save(tmp_path / f"heron{i}.jpg")
    characters = glyphs("test")
    characters = characters.with_classes(characters.classes[characters.counts >= 20][:5])
    table = pd.DataFrame({"path": "made", "label": characters.labels, "split": "test"})
    for name in ("cifar_fs", "omniglot"):
        images = characters.images if name == "omniglot" else np.repeat(characters.images[..., None], 3, axis=-1)
        write_packed(tmp_path / "data" / name, images, table, {})
    (tmp_path / "runs" / "omniglot").mkdir(parents=True)
    network = create_backbone("conv4", in_chans=1, img_size=28)
    save_weights(tmp_path / "runs" / "omniglot" / "best.safetensors", network, PrototypicalLearner())
    return tmp_path


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page == "README.md" else pytest.mark.slow) for page in BLOCKS]
)
def test_its_blocks_run_and_print_what_their_comments_say(page, files):
    run = python(RUN, json.dumps(BLOCKS[page]), cwd=files)
    assert run.returncode == 0, run.stderr
    for code, printed in zip(BLOCKS[page], run.stdout.split("\f"), strict=False):
        expected = [line.split("  # ")[1].strip() for line in code.splitlines() if re.match(r"print\(.*\) +# ", line)]
        if "MetaTrainer" not in code and "data/" not in code:  # those take longer, and print what the tables say
            assert printed.strip().splitlines() == expected


def test_the_readme_is_one_page():
    assert len(PAGES["README.md"].encode()) <= 10_000


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists()


def test_every_page_is_within_two_links_of_the_readme():
    def linked(page):
        targets = re.findall(r"\]\(([^)#]+\.md)\)", PAGES.get(page, ""))
        return {os.path.relpath((ROOT / page).parent / target, ROOT) for target in targets}

    first = linked("README.md")
    assert PAGES.keys() <= {"README.md"} | first | {page for other in first for page in linked(other)}


def test_the_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z-]+)", "\n".join(PAGES.values()), flags=re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_command_lines_are_understood():
    text = "\n".join(PAGES.values()).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?fewshot (.*)", text, flags=re.MULTILINE)
    assert len(lines) > 7
    for line in lines:
        make_parser().parse_args(shlex.split(line.partition(" | ")[0], comments=True))


@pytest.mark.slow
def test_a_newcomers_method_is_one_short_file_that_everything_finds(tmp_path):
    """That of the documentation, as a plug-in: contract tests, trainer, command line and benchmark know its name."""
    (code,) = [block for blocks in BLOCKS.values() for block in blocks if '@register_learner("shrunken")' in block]
    code = code.split("\nmodel = ")[0]
    assert len(code.splitlines()) < 60
    (tmp_path / "mine.py").write_text(code)
    environment = {**os.environ, "FEWSHOT_PLUGINS": str(tmp_path / "mine.py")}
    tests = [sys.executable, "-m", "pytest", "-q", "tests/test_contract.py", "-k", "shrunken", "-p", "no:cacheprovider"]
    contract = subprocess.run(tests, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert contract.returncode == 0, contract.stdout
    assert "no tests ran" not in contract.stdout
    characters = glyphs("train")
    characters = characters.with_classes(characters.classes[:16])
    splits = np.repeat(["train", "val", "test"], [6, 5, 5])
    split_of = dict(zip(characters.classes.tolist(), splits.tolist(), strict=True))
    table = pd.DataFrame({"path": "made", "label": characters.labels})
    table["split"] = table["label"].map(split_of)
    write_packed(tmp_path / "data", characters.images, table, {})
    grid = """
        n_shot = [1]
        n_query = 2
        n_episodes = 5
        datasets = [{source = "data"}]
        backbones = [{backbone = "runs/best.safetensors"}]
        learners = [{learner = "shrunken"}, {learner = "shrunken", shrinkage = 0.5}, {learner = "own"}]
    """
    (tmp_path / "grid.toml").write_text(grid)
    trained = "train data --out runs --learner shrunken --way 4 --query 2 --episodes 3 --val-way 4 --set val_n_query=2"
    for command in (
        f"{trained} --quiet --plugin mine.py",
        "evaluate data --from runs/best.safetensors --query 2 --episodes 5 --quiet --plugin mine.py",
        "bench grid.toml --quiet --plugin mine.py --jobs 2",
    ):
        ran = fewshot(*command.split(), cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    assert "shrunken (shrinkage=0.5)" in ran.stdout
