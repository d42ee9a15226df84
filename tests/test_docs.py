"""The documentation as a site: what its pages hold, and how they look once they are built."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fewshot
from fewshot import cli
from fewshot.cli.commands import COMMANDS
from fewshot.learners.registry import learner_class, list_learners
from tests.browser import accessible, browsing

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
sys.path.insert(0, str(SITE))
import assemble  # noqa: E402
import generated  # noqa: E402


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The text of each page before Sphinx sees it, by its place."""
    out = tmp_path_factory.mktemp("source")
    assemble.assemble(out)
    files = (*out.rglob("*.md"), *out.rglob("*.rst"))
    return {path.relative_to(out).as_posix(): path.read_text(encoding="utf-8") for path in files}


def documented(pages):
    """Return the names that a page shows the docstring of."""
    directives = r"^\.\. auto(?:class|function|exception|data):: (\S+)$"
    return {name for text in pages.values() for name in re.findall(directives, text, flags=re.MULTILINE)}


def test_every_public_name_is_in_the_reference_once(pages):
    public = {f"fewshot.{name}" for name in fewshot.__all__ if name != "__version__"}
    assert public <= documented(pages)
    all_text = "\n".join(pages.values())
    assert all(len(re.findall(rf"^\.\. auto\w+:: {re.escape(name)}$", all_text, re.MULTILINE)) == 1 for name in public)


def test_each_module_that_the_pages_import_from_is_in_the_reference(pages):
    code = "\n".join(block for text in pages.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    imported = re.findall(r"^from (fewshot\.\S+) import (.*)$", code, flags=re.MULTILINE)
    assert imported
    for module, names in imported:
        assert {f"{module}.{name.strip()}" for name in names.split(",")} <= documented(pages)


def test_every_written_page_is_in_one_section():
    listed = [page for section in assemble.sections().values() for page in section]
    written = {place.removesuffix(".md") for place in assemble.sources().values()} - {"index"}
    assert {page for page in written if "gallery/" not in page} <= set(listed)
    assert len(listed) == len(set(listed))


def test_options_follow_their_command():
    pages = [*(ROOT / "docs").glob("**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    written = {option for page in pages for option in re.findall(r"\bfewshot (--?[a-z]\S*)", page.read_text())}
    assert {option.strip("`.,;") for option in written} <= {"--help", "--version"}


def test_links_between_pages_lead_somewhere(pages):
    for place, text in pages.items():
        for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)):
            file = os.path.normpath(Path(place).parent / target)
            assert (
                target.startswith("https://")
                or file in pages
                or (ROOT / file).is_file()
                or (ROOT / "docs" / file).is_file()
            ), place


def test_the_command_line_reference_names_every_option(pages):
    parser = cli.make_parser()
    for command in COMMANDS:
        sub = next(action for action in parser._actions if isinstance(action.choices, dict)).choices[command]
        sub.define() if not sub._option_string_actions.get("--plugin") else None
        for flag in sub._option_string_actions:
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", pages[f"cli/{command}.md"]), f"{command} {flag}"


@pytest.mark.parametrize("name", [name for name in list_learners() if learner_class(name).__module__.startswith("few")])
def test_a_method_has_a_page_with_its_formula_its_paper_and_its_figures(name, pages):
    docstring, page = learner_class(name).__doc__, pages[f"methods/{name}.rst"]
    assert f"fewshot.{learner_class(name).__name__}\n" in page
    assert ".. math::" in docstring
    assert re.search(r"References\n +-+\n +.*\(\d{4}\)", docstring)
    assert "\n\n    Use it " in docstring
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks" / "results").glob("*.md"))
    assert ("Measured" in page) == bool(re.search(rf"^\|[^|]*\|? ?{name}[ ,|(]", text, flags=re.MULTILINE))


def test_a_row_is_that_of_its_method_alone():
    table = "| | change |\n|---|---|\n| ridge, r = 1 | 1 |\n| ridges | 2 |\n| net ‡ | ridge † |\n"
    assert generated.rows_of("ridge", table)[1] == [["ridge, r = 1", "1"], ["net ‡", "ridge †"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, without a warning: the one of `make docs` where it was just built, as CI does."""
    if "FEWSHOT_SITE" in os.environ:
        return ROOT / os.environ["FEWSHOT_SITE"]
    pytest.importorskip("furo", reason="the documentation is built by make docs")
    folder = tmp_path_factory.mktemp("site")
    for command in (
        [str(SITE / "assemble.py"), str(folder / "source")],
        ["-m", "sphinx", "-q", "-W", "-j", "auto", "-c", str(SITE), str(folder / "source"), str(folder / "html")],
    ):
        run = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT)
        assert run.returncode == 0, run.stderr
    return folder / "html"


@pytest.mark.slow
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_the_site_is_read_and_searched_without_a_network(site, screen):
    """From files alone: every request that is not for a file of the site is an error of `browsing`."""
    with browsing((site / "search.html").as_uri() + "?q=PrototypeIndex", screen) as page:
        page.locator("#search-results a", has_text="PrototypeIndex").first.wait_for()
        page.goto((site / "methods" / "prototypical.html").as_uri())
        assert page.locator("math").first.bounding_box()["width"] > 50
        page.goto((site / "index.html").as_uri())
        assert not page.errors  # the check below asks for files in a way that browsers refuse
        for name in ("index", "start", "methods/prototypical", "reference/MetaTrainer", "cli/fit", "benchmarks/index"):
            page.goto((site / f"{name}.html").as_uri())
            accessible(page)
