"""What is built: a wheel of the package alone, and a source distribution whose tests run."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fewshot.errors import DISTRIBUTION

ROOT = Path(__file__).parents[1]
#: All that is kept in a checkout, but .git and .gitignore.
KEPT = (
    "fewshot",
    "tests",
    "benchmarks",
    "data_prep",
    "docs",
    "examples",
    "CITATION.cff",
    "setup.cfg",
    "pyproject.toml",
    "MANIFEST.in",
    "Makefile",
    "LICENSE",
)
#: Names that PyPI has; it compares names in small letters, without dots, hyphens and underscores.
TAKEN = {"fewshot", "fewshots", "fewshotlearning", "fewshotlib", "fewshotkit", "fewlearn"}
BUILD = "from setuptools import build_meta as b; b.build_{}('dist')"


def test_the_name_of_the_distribution_is_free_and_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["name"] == DISTRIBUTION
    assert re.sub(r"[-_.]", "", DISTRIBUTION).lower() not in TAKEN
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in kept(ROOT) if path.endswith((".md", ".py"))}
    wrong = [path for path, text in texts.items() if re.search(r"pip install ['\"]?fewshot(?![\w-])", text)]
    assert not wrong, f"pip would install another package there: {wrong}"
    extras = set(setup["options.extras_require"])
    named = {path: set(re.findall(rf"{DISTRIBUTION}\[([\w,]+)\]", text)) for path, text in texts.items()}
    unknown = {name for names in named.values() for extra in names for name in extra.split(",")} - extras
    assert not unknown, f"extras that setup.cfg lacks: {unknown}"


def kept(root):
    paths = [path for name in KEPT for path in [root / name, *(root / name).rglob("*")]] + [*root.glob("*.md")]
    made = {"__pycache__", "_build"}
    return {path.relative_to(root).as_posix() for path in paths if path.is_file() and made.isdisjoint(path.parts)}


def build(root, what):
    run = subprocess.run([sys.executable, "-c", BUILD.format(what)], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (built,) = (root / "dist").glob("*.whl" if what == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The source distribution of this checkout, unpacked."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("unpacked")
    for name in kept(ROOT):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    with tarfile.open(build(source, "sdist")) as archive:
        archive.extractall(place, filter="data")
    (folder,) = place.iterdir()
    return folder


def test_the_source_distribution_holds_what_the_checkout_does(unpacked):
    assert kept(unpacked) == kept(ROOT)


def test_the_wheel_holds_the_package_and_no_tests(unpacked):
    with zipfile.ZipFile(build(unpacked, "wheel")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {name for name in kept(ROOT) if name.startswith("fewshot/")}
    assert {"fewshot/py.typed", "fewshot/report/style.css", "fewshot/report/page.js"} <= names


def test_the_distribution_for_devices_is_a_part_of_the_other_and_needs_no_torch(tmp_path):
    """Equal files, so that one installed over the other changes nothing."""
    source = tmp_path / "source"
    subprocess.run([sys.executable, ROOT / ".ci" / "runtime.py", source], check=True)
    copied = {path.relative_to(source).as_posix(): path for path in (source / "fewshot").rglob("*.py")}
    assert all((ROOT / name).read_bytes() == path.read_bytes() for name, path in copied.items())
    assert {"fewshot/__init__.py", "fewshot/runtime/command.py", "fewshot/data/decode.py"} <= set(copied)
    assert len(copied) < 60
    with zipfile.ZipFile(build(source, "wheel")) as wheel:
        (about,) = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    needed = {re.match(r"[\w-]+", line)[0] for line in re.findall("^Requires-Dist: (.*)", about, flags=re.MULTILINE)}
    assert needed == {"numpy", "Pillow", "onnxruntime", "filelock"}
    code = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "sklearn", "pandas", "scipy", "safetensors", "timm"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import fewshot.runtime.command
assert fewshot.__file__.startswith(sys.argv[1]), fewshot.__file__
"""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    subprocess.run([sys.executable, "-c", code, str(source)], check=True, cwd=tmp_path, env=environment)


@pytest.mark.slow
def test_the_tests_run_from_the_source_distribution(unpacked):
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}

    def pytest_run(*arguments):
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *arguments]
        run = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=900)
        assert run.returncode == 0, run.stdout + run.stderr

    pytest_run("--collect-only")
    some = (
        "architecture",
        "persistence_files",
        "benchmark_grid_file",
        "images_defaults",
        "images_saving",
        "data_preparing",
    )
    pytest_run("-m", "not slow", *(f"tests/test_{name}.py" for name in some))
