"""A file is not called what it is not: such names are refused before anything is done."""

import os

import pytest

from fewshot import FaissStore, export_store
from fewshot.cli import main
from fewshot.persistence.suffixes import check_suffix
from fewshot.retrieval.work import annotate_folder


@pytest.mark.parametrize(
    "name",
    [
        "annotate photos --model m --out",
        "bench grid.toml --parquet",
        "search t.parquet a.png --model m --csv",
        "search t.parquet a.png --model m --json",
        "predict m photos --report",
        "train data --out runs --report",
    ],
)
@pytest.mark.parametrize("suffix", [".xlsx", ".FEATHER", ".npy", ".csv.gz"])
def test_a_command_refuses_a_name_of_another_format(tmp_path, monkeypatch, capsys, name, suffix):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), f"out{suffix}"])
    assert ended.value.code == 2
    option = name.rpartition(" ")[2]
    assert f"argument {option}: the file is 'out{suffix}', but " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "is_refused"), [("--report", True), ("--csv", False), ("--json", False)], ids=lambda value: str(value)
)
def test_plain_text_may_be_a_table_but_no_page(capsys, name, is_refused):
    with pytest.raises(SystemExit) as ended:
        main(["predict", "m", "photos", name, "out.txt", "--top", "0"])  # a mistake, so that nothing runs
    assert ended.value.code == 2
    reason = f"argument {name}: the file is 'out.txt', but HTML is written to it; expected a name that ends in .html"
    assert (reason in capsys.readouterr().err) == is_refused


def test_a_spreadsheet_is_told_of_csv(capsys):
    with pytest.raises(SystemExit):
        main(["annotate", "photos", "--model", "m", "--out", "all.xlsx"])
    assert (
        "the file is 'all.xlsx', but Parquet or CSV is written to it; expected a name that ends in .parquet or .csv, "
        "which spreadsheets open"
    ) in capsys.readouterr().err


def test_functions_refuse_a_name_of_another_format(tmp_path):
    with pytest.raises(
        ValueError, match=r"out is 'a.json', but Parquet or CSV is written to it; expected .* ends in .parquet"
    ):
        annotate_folder("nowhere", "nothing", "a.json")
    with pytest.raises(ValueError, match="path is '.*s.json', but Parquet is written to it"):
        export_store(FaissStore("dot", "abc", 4), tmp_path / "s.json")


@pytest.mark.parametrize("name", ["-", "out", "/dev/stdout", "out.parquet", "OUT.PQ", "2026.11.28", "v1.2", ".parquet"])
def test_a_name_that_promises_nothing_else_will_do(name):
    check_suffix(name, "Parquet")


def test_the_name_of_a_link_or_a_pipe_says_nothing_of_its_content(tmp_path):
    (tmp_path / "link.csv").symlink_to("target")
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("link.csv", "pipe.csv"):
        check_suffix(tmp_path / name, "JSON")


@pytest.mark.parametrize(
    "command",
    [
        "fit labels.XLSX --out new",
        "fit labels.XLSX --out new --path-column image",
        "evaluate labels.XLSX",
        "adapt labels.XLSX --unlabelled --out new.safetensors",
        "import-labels labels.XLSX --out new.csv",
        "export-labels labels.XLSX --format csv --out new.csv",
    ],
)
def test_a_spreadsheet_is_to_be_saved_as_csv(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.XLSX").write_bytes(b"PK\x03\x04")
    assert main(command.split()) == 2
    told = "is a spreadsheet; in Excel and the like, save it as CSV UTF-8, and give that file"
    assert capsys.readouterr().err.splitlines()[-1] == f"fewshot: labels.XLSX {told}"
