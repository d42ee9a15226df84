"""Tables beside a file of results are shown as they were printed."""

from pathlib import Path

import pytest

from fewshot.benchmark.plain_table import tables_beside
from fewshot.benchmark.result import Source
from fewshot.benchmark.site import write_site

SOURCE = Source("rates.json", "{}")
TEXT = """Rates in %, one image a class

| score | digits | `mean` |
|---|---|---|
| margin | 61.3 ± 2 | 60.6 |
| energy | 67.9 | |

Not of a table.

| score | glyphs |
|---|---|
| margin | 80.1 |
"""


def written(folder, text):
    (folder / "rates.md").write_text(text)
    (folder / "rates.json").write_text('{"manifest": {"command": "python rates.py", "versions": {}}}')
    return folder / "rates.json"


def test_each_table_has_its_title_headings_and_cells(tmp_path):
    first, second = tables_beside(written(tmp_path, TEXT), SOURCE)
    assert (first.title, first.frame.index.name, list(first.frame.columns)) == (
        "Rates in %, one image a class",
        "score",
        ["digits", "mean"],
    )
    assert first.frame.to_dict("index") == {
        "margin": {"digits": "61.3 ± 2", "mean": "60.6"},
        "energy": {"digits": "67.9", "mean": ""},
    }
    assert (second.title, second.frame.loc["margin", "glyphs"]) == ("Not of a table.", "80.1")


@pytest.mark.parametrize("text", ["", "No table.\n", "| only a heading |\n", "| a | b |\n| 1 | 2 |\n"])
def test_what_is_no_table_is_none(tmp_path, text):
    assert tables_beside(written(tmp_path, text), SOURCE) == []
    assert tables_beside(tmp_path / "other.json", SOURCE) == []


def test_a_row_of_another_length_is_refused_with_its_file(tmp_path):
    path = written(tmp_path, TEXT.replace("| 60.6 |", "|"))
    with pytest.raises(ValueError, match=r"rates.json, whose table in rates.md has 3 headings, and row 0 has 2 cells"):
        write_site(tmp_path / "site", [path])


def test_the_page_of_results_shows_them_with_their_command(tmp_path):
    site = write_site(tmp_path / "site", [written(tmp_path, TEXT)])
    assert (site.results, site.left_out) == ([], [])
    page = site.page.read_text()
    assert page.count("<table") == 2
    assert "<b>0</b><span>data sets<" in page
    for text in ("Rates in %, one image a class [1]", "61.3 ± 2", "python rates.py", "2 tables."):
        assert text in page


def test_every_table_of_the_project_is_read():
    folder = Path(__file__).parents[1] / "benchmarks" / "results"
    for path in folder.glob("*.md"):
        found = tables_beside(path.with_suffix(".json"), SOURCE)
        n_heads = path.read_text().count("\n|---") + path.read_text().startswith("|---")
        assert len(found) == n_heads > 0
        assert all(len(one.frame) for one in found)
