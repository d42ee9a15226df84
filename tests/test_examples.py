"""The examples of the gallery run, print the figures of their pages, and draw the pictures there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "gallery").glob("*.md"))}
INDEX = PAGES.pop("index")
SCRIPTS = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"gallery"}
NUMBER = r"\d+(?:\.\d+)?"
#: A share with its interval; a time or a size, which differs between machines; any other number.
FIGURE = re.compile(rf"({NUMBER}) % \(({NUMBER}) to ({NUMBER})\)|({NUMBER}) (?:ms|MB)\b|({NUMBER})")
#: What the data of an example are called that no package brings, and what to do without.
DATA = {"land_cover": "eurosat"}


def printed(page):
    """Return the command of a page and the lines that it says are printed."""
    (block,) = re.findall(r"```text\n\$ (python examples/.*?)```", page, flags=re.DOTALL)
    command, *lines = block.strip().splitlines()
    return command, lines


def same(said, measured):
    """Whether a line of a page is what a run prints: equal words and counts, and each share in the run's interval."""
    if FIGURE.sub("#", said) != FIGURE.sub("#", measured):
        return False
    for page, run in zip(FIGURE.findall(said), FIGURE.findall(measured), strict=True):
        share, low, high = run[:3]
        if share and not float(low) <= float(page[0]) <= float(high):
            return False
        if run[4] != page[4]:
            return False
    return True


def run(name, tmp_path, *more):
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--out", str(tmp_path / f"{name}.webp"), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)


def data_of(name):
    """Return the options that name the data of an example, or skip the test."""
    if name not in DATA:
        return []
    folder = Path(os.environ.get("FEWSHOT_DATA", ""), DATA[name])
    if not os.environ.get("FEWSHOT_DATA") or not folder.is_dir():
        pytest.skip(f"FEWSHOT_DATA names no folder that holds {DATA[name]}/, the data of this example")
    return ["--data", str(folder)]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_an_example_prints_the_figures_of_its_page_and_draws_its_picture(name, tmp_path):
    ran = run(name, tmp_path, *data_of(name))
    assert ran.returncode == 0, ran.stderr
    _, lines = printed(PAGES[name])
    *measured, last = ran.stdout.strip().splitlines()
    assert last == f"picture: {tmp_path / name}.webp"
    assert len(measured) == len(lines)
    differ = [(said, found) for said, found in zip(lines, measured, strict=True) if not same(said, found)]
    assert not differ
    with Image.open(tmp_path / f"{name}.webp") as picture, Image.open(ROOT / "docs/gallery" / f"{name}.webp") as shown:
        assert picture.size == shown.size
        assert len(picture.convert("RGB").getcolors(2**20)) > 500


@pytest.mark.slow
def test_faces_take_a_folder_of_photographs(tmp_path):
    for i, colour in enumerate(["red", "lime", "blue", "white"]):
        folder = tmp_path / "people" / f"person of {colour}"
        folder.mkdir(parents=True)
        for j in range(5):
            Image.effect_noise((64, 64), 10 + j).point(lambda v, i=i: (v + 60 * i) % 256).save(folder / f"{j}.png")
    ran = run("faces", tmp_path, "--data", str(tmp_path / "people"), "--people", "3")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("4 people; 3 of them taught by three pictures each")
    assert re.search(r"files with the name: [1-9]\d* before, 0 after", ran.stdout)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_an_example_is_one_page_of_code_with_a_page_and_a_picture(name):
    code = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len([line for line in code.splitlines() if line.strip()]) <= 80
    command, _ = printed(PAGES[name])
    assert f"examples/{name}.py" in shlex.split(command)
    assert f"](../../examples/{name}.py)" in PAGES[name]
    assert f"]({name}.md)" in INDEX
    for page in (INDEX, PAGES[name]):
        assert f"]({name}.webp)" in page
    assert (ROOT / "docs" / "gallery" / f"{name}.webp").stat().st_size <= 40_000


def test_every_page_of_the_gallery_has_an_example():
    assert PAGES.keys() == SCRIPTS


def test_links_of_the_gallery_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)", "".join([INDEX, *PAGES.values()]))
    assert all(t.startswith("https://") or (ROOT / "docs" / "gallery" / t).exists() for t in targets)


def test_figures_are_compared_as_said():
    line = "letters: 40.1 % (35.0 to 45.0) of 400 right, in 3 ms"
    assert same(line, "letters: 44.9 % (40.0 to 50.0) of 400 right, in 9.5 ms")
    assert not same(line, "letters: 45.9 % (41.0 to 50.0) of 400 right, in 3 ms")
    assert not same(line, "letters: 40.1 % (35.0 to 45.0) of 401 right, in 3 ms")
    assert not same(line, "digits: 40.1 % (35.0 to 45.0) of 400 right, in 3 ms")
