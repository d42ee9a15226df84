"""With any label and any terminal, work is done, and reported if possible."""

import csv
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier
from fewshot.cli import main, make_parser
from fewshot.cli.tables import as_table
from fewshot.cli.terminal import complain, put, say, speaking
from tests.photographs import quick_embedder, write_photos
from tests.processes import fewshot

#: As Linux names a file called in Latin-1.
CAFE = "caf\udce9"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A classifier of the classes flower and temple, and an image."""
    folder = tmp_path_factory.mktemp("saved")
    paths = write_photos(folder / "photos", 2)
    model = FewShotImageClassifier(quick_embedder(), progress=False)
    model.fit(paths, [path.split("/")[-2] for path in paths]).save(folder / "model")
    return folder / "model", paths[0]


@pytest.fixture
def model(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "model")
    return tmp_path / "model"


def classes(folder):
    return FewShotImageClassifier.load(folder).classes_.tolist()


class Failing(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


class Bare:
    """A stream that can only be written to."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("label", ["鷺", CAFE, "\x1b[2Jx\n", "\u202e"])
def test_a_label_that_the_terminal_cannot_show_is_learned_and_escaped(model, saved, monkeypatch, label):
    assert main(["add", str(model), "heron", saved[1], "--quiet"]) == 0
    for encoding in ("latin-1", "cp1252", "ascii", "utf-8", "utf-16"):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        assert main(["rename", str(model), "heron", label, "--quiet"]) == 0
        assert label in classes(model)
        if encoding == "ascii":  # learned and answered under the least favourable
            assert main(["add", str(model), label, saved[1], "--quiet"]) == 0
            assert main(["predict", str(model), saved[1], "--top", "3", "--quiet"]) == 0
        assert main(["show", str(model), "--csv", "-", "--quiet"]) == 0
        text = written.getvalue().decode(encoding)
        assert text.count("\n") == 1 + 3 * (encoding == "ascii") + 4 + ("\n" in label)
        assert "\x1b" not in text.partition("class,")[0]
        assert main(["rename", str(model), label, "heron", "--quiet"]) == 0


@pytest.mark.parametrize("stream", [Failing, closed, lambda: None])
def test_finished_work_is_a_success_even_if_printing_fails(model, saved, monkeypatch, capsys, stream):
    monkeypatch.setattr(sys, "stdout", stream())
    assert main(["add", str(model), "heron", saved[1], "--quiet"]) == 0
    assert "heron" in classes(model)
    if stream is Failing:
        told = capsys.readouterr().err
        assert "'heron' is a new class" in told
        assert "No space left on device" in told
        assert told.count("\n") == 1


def test_requested_output_that_cannot_be_printed_is_a_failure(model, saved, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing())
    for command in (["show", str(model)], ["predict", str(model), saved[1], "--csv", "-"]):
        assert main([*command, "--quiet"]) == 1
        assert "standard output: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [closed, lambda: None, Bare, Failing])
def test_standard_error_is_not_needed(model, saved, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    assert main(["predict", str(model), saved[1]]) == 0
    assert main(["predict", str(model), "gone.png"]) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["predict"])


def test_verbose_says_what_takes_long_on_standard_error(model, saved, capsys):
    root = list(logging.root.handlers)
    command = ["predict", str(model), saved[1], "--csv", "-"]
    ran = fewshot(*command, "-v")
    assert ran.stdout.startswith("image,label,")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"loaded the classifier {model} in ")
    assert main([*command, "-vv", "-q"]) == 0
    assert "\nembedded 1 image on cpu in " in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr() == (ran.stdout, "")
    assert (logging.root.handlers, logging.getLogger("fewshot").level) == (root, logging.NOTSET)


def test_a_message_is_written_over_a_progress_bar(model, monkeypatch):
    for term, over in (("xterm", "\r\x1b[K"), ("dumb", "")):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr("sys.stderr", Screen())
        with speaking(make_parser().parse_args(["show", "model", "-v"])):
            logging.getLogger("fewshot.any").info("read\x1b[2J")
        assert sys.stderr.getvalue() == f"{over}read\\x1b[2J\n"


STREAMS = [">/dev/full", ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full 2>&1", "| true"]


def shell(command, **environment):
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], env={**os.environ, **environment}, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("streams", STREAMS)
def test_streams_that_are_closed_or_full_end_no_process(streams, unbuffered):
    code = "from fewshot.cli.terminal import *\nwith ready_streams(): say('x'); say('y'); complain('z')"
    assert shell(f'"{sys.executable}" -c "{code}" {streams}', PYTHONUNBUFFERED=unbuffered).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
@pytest.mark.parametrize("streams", STREAMS)
def test_a_process_whose_streams_are_closed_or_full_learns_and_succeeds(model, saved, streams):
    assert main(["history", str(model), "--clear"]) == 0
    files = len(os.listdir(model))
    assert shell(f'"{sys.executable}" -m fewshot add "{model}" heron "{saved[1]}" {streams}').returncode == 0
    assert "heron" in classes(model)
    assert main(["history", str(model), "--clear"]) == 0  # the version before, which undo would go back to
    assert len(os.listdir(model)) == files


def test_names_that_are_not_utf_8_are_escaped_in_every_output(tmp_path, capsys):
    folder = tmp_path / "photos"
    for label, name in ((CAFE, "1\udce9.png"), ("tea", "2\udce9.png")):
        (folder / label).mkdir(parents=True)
        pixels = np.random.default_rng(len(label)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        with (folder / label / name).open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    (folder / "tea" / "bad\udce9.png").write_bytes(b"")
    model, out = str(tmp_path / "model"), {kind: tmp_path / f"out.{kind}" for kind in ("csv", "json", "html")}
    quick = ["--backbone", "conv4", "--weights", "random", "--size", "28", "--quiet"]
    with warnings.catch_warnings(record=True):
        assert main(["fit", str(folder), "--out", model, "--skip-unreadable", *quick]) == 0
    given = ["--quiet", "--report", str(out["html"])]
    for kind in ("csv", "json"):
        given += [f"--{kind}", str(out[kind])]
    for command, status in (["show", model], 0), (["audit", model], 0), (["predict", model, str(folder)], 1):
        assert main([*command, *given]) == status
        capsys.readouterr().out.encode()
        assert main([*command, "--csv", "-", "--quiet"]) == status
        rows = list(csv.DictReader(io.StringIO(out["csv"].read_text(encoding="utf-8"))))
        assert list(csv.DictReader(io.StringIO(capsys.readouterr().out))) == rows
        shown = json.loads(out["json"].read_text(encoding="utf-8"))
        if command[0] == "predict":
            assert {row["label"] for row in rows} == {"caf\\xe9", "tea", ""}
            assert [row["image"] for row in rows] == [row["image"] for row in shown]
        assert "caf\\xe9" in out["html"].read_text(encoding="utf-8") or command[0] == "audit"


def test_file_names_are_escaped_for_the_terminal(model, tmp_path, capsys):
    for name in ("a\x1b]0;x\x07\x1b[2J.png", "b\nfewshot: all is fine.png", "\u202egnp.png"):
        (tmp_path / name).write_text("x")
        assert main(["predict", str(model), str(tmp_path / name), "--quiet"]) == 1
        told = capsys.readouterr()
        assert all(c.isprintable() for text in told for line in text.splitlines() for c in line)
        assert told.err.count("\n") == 1
    assert main(["show", str(tmp_path / "a\x1b[2J\nb")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for mistake in (
        ["sh\x1b[2J\now"],
        ["show"],
        ["show", "x", "--csb\x1b[2J"],
        ["predict", "x", "y", "--top", "\n\x1b"],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(mistake)
        assert "\x1b" not in capsys.readouterr().err


def test_control_characters_are_escaped_only_for_a_terminal(monkeypatch):
    for is_terminal, expected in ((False, "a\x1b[2J\tb\n"), (True, "a\\x1b[2J\tb\n")):
        stream = io.StringIO()
        stream.isatty = lambda is_terminal=is_terminal: is_terminal
        monkeypatch.setattr(sys, "stdout", stream)
        put("a\x1b[2J\tb\n")
        assert stream.getvalue() == expected


def test_a_closed_pipe_is_no_failure(monkeypatch, capsys):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Gone())
    say("x")
    assert capsys.readouterr().err == ""


def test_warnings_are_sentences(saved, monkeypatch, capsys):
    main(["show", str(saved[0])])
    assert warnings.formatwarning("x", UserWarning, "file", 3).startswith("file:3")  # as before

    shown = []

    def show(options):
        shown.append(warnings.formatwarning(UserWarning("a\nb"), UserWarning, "file.py", 3))
        return 0

    monkeypatch.setattr("fewshot.cli.saved.show", show)
    assert main(["show", str(saved[0])]) == 0
    assert shown == ["fewshot: a\\x0ab\n"]


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_formulas_are_defused_on_request(model, saved, capsys, label):
    assert main(["rename", str(model), "temple", label]) == 0
    capsys.readouterr()
    for options, expected in (([], label), (["--spreadsheet"], f"'{label}"), (["--decimal-comma"], f"'{label}")):
        assert main(["show", str(model), "--csv", "-", *options]) == 0
        text = capsys.readouterr().out
        assert text.startswith("\ufeff") == bool(options)
        separator = ";" if "--decimal-comma" in options else ","
        rows = list(csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=separator))
        assert {row["class"]: row["images"] for row in rows} == {"flower": "2", expected: "2"}


def test_help_can_be_shown_everywhere(monkeypatch, capsys):
    commands = make_parser()._subparsers._group_actions[0].choices
    for command in commands.values():
        command.define()
        command.format_help().encode("ascii")
    text = make_parser().format_help()
    text.encode("ascii")
    assert all(f"\n  {status} " in text for status in (0, 1, 2, 130, 143))


def test_a_sentence_without_a_stream_does_not_go_to_standard_output(monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", None)
        complain("x")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("flag", ["--learner", "--metric"])
def test_a_name_that_nothing_has_is_an_error_of_its_flag(tmp_path, capsys, flag):
    (tmp_path / "data").mkdir()
    command = ["train", str(tmp_path / "data"), "--out", str(tmp_path / "out"), flag, "nope"]
    assert main(command) == 2
    what = flag.removeprefix("--")
    assert capsys.readouterr().err.startswith(f"fewshot: {flag}: no {what} is called 'nope'; known are ")


@pytest.fixture(scope="module")
def named_at_length(tmp_path_factory):
    """A folder with photographs, a classifier and a table, all of whose names are long."""
    folder = tmp_path_factory.mktemp("long")
    long = "a-rather-long-name-of-a-" * 2
    for i, path in enumerate(write_photos(folder / "made", 4)):
        label = path.split("/")[-2]
        target = folder / "photos" / f"{long}{label}" / f"{long}photograph-{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(target, target.parent.parent / f"{long}temple" / "flower.png")  # under another label: for audit
    write_photos(folder / "more", 2, seed=1)
    data = sorted(str(path) for path in (folder / "photos").rglob("*.png"))
    labels = [path.split("/")[-2] for path in data]
    FewShotImageClassifier(quick_embedder(), progress=False).fit(data, labels).save(folder / "model")
    annotate = [
        "annotate",
        str(folder / "photos"),
        "--model",
        str(folder / "model"),
        "--out",
        str(folder / "t.parquet"),
    ]
    assert main([*annotate, "--quiet"]) == 0
    return {"MODEL": folder / "model", "PHOTOS": folder / "photos", "IMAGE": data[0], "MORE": folder / "more",
            "TABLE": folder / "t.parquet"}  # fmt: skip


TABLES = (
    "learners", "backbones", "show MODEL", "history MODEL", "predict MODEL IMAGE --top 3", "predict MODEL IMAGE",
    "test MODEL PHOTOS", "check MODEL", "audit MODEL", "suggest MODEL MORE -k 3",
    "search TABLE IMAGE --model MODEL -k 2",
    "evaluate PHOTOS --backbone conv4 --weights random --size 16 --way 2 --shot 1 --query 1 --episodes 2",
)  # fmt: skip


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("command", TABLES)
def test_a_table_fits_any_terminal_and_is_whole_elsewhere(command, named_at_length, monkeypatch):
    shown, words = [], [str(named_at_length.get(word, word)) for word in command.split()]
    for module in ("tables", "saved"):
        put_there = f"fewshot.cli.{module}.put"
        monkeypatch.setattr(put_there, lambda text: (shown.append(text), put(text)))

    def table(stream, **variables):
        shown.clear()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
                patched.delenv(name, raising=False)
            for name, value in variables.items():
                patched.setenv(name, value)
            assert main(words) == 0
        assert "\x1b" not in stream.getvalue()  # colours are for the first word of an error
        return "".join(shown)

    for columns in (60, 200):
        fitting = table(Screen(), COLUMNS=str(columns), TERM="xterm", FORCE_COLOR="1")
        assert max(map(len, fitting.splitlines())) <= columns
        assert fitting == table(Screen(), COLUMNS=str(columns), TERM="dumb")
    whole = table(io.StringIO(), COLUMNS="60", FORCE_COLOR="1")
    assert whole == table(io.StringIO(), NO_COLOR="1")
    assert "..." not in whole
    assert len(whole.splitlines()) <= len(fitting.splitlines())


def test_a_table_too_wide_for_a_terminal_becomes_a_block_a_row():
    rows = [{"image": "a/b.png", "class": "heron", "taken for": "egret", "why": "unlike the others", "n": 1}] * 2
    blocks = as_table(rows, 40)
    assert (
        blocks.count(
            "image      a/b.png\nclass      heron\ntaken for  egret\nwhy        unlike the others\nn          1\n"
        )
        == 2
    )
    assert as_table(rows, 90) == as_table(rows)


@pytest.mark.parametrize("command", [[], ["fit"], ["train"], ["calibrate"]])
def test_help_fits_any_terminal(command, monkeypatch, capsys):
    for columns in (60, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit, match="0"):
            main([*command, "--help"])
        text, _, example = capsys.readouterr().out.partition("\nexample:\n")
        assert not [line for line in text.splitlines() if len(line) > columns and len(line.split()) > 2]
        assert example.count("\n") <= 1  # to be copied whole


@pytest.mark.parametrize(
    ("stream", "variables", "is_coloured"),
    [
        (Screen, {}, True),
        (Screen, {"NO_COLOR": "1"}, False),
        (Screen, {"NO_COLOR": ""}, True),  # as no-color.org says
        (Screen, {"TERM": "dumb"}, False),
        (Screen, {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        (io.StringIO, {}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_errors_and_warnings_have_a_colour_where_there_are_colours(stream, variables, is_coloured, saved, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def show(options):
        sys.stderr.write(warnings.formatwarning(UserWarning("odd"), UserWarning, "file.py", 3))
        raise ValueError("no")

    monkeypatch.setattr("fewshot.cli.saved.show", show)
    assert main(["show", str(saved[0])]) == 2
    red, yellow = ("\x1b[31mfewshot:\x1b[0m", "\x1b[33mfewshot:\x1b[0m") if is_coloured else ("fewshot:", "fewshot:")
    assert sys.stderr.getvalue() == f"{yellow} odd\n{red} no\n"
