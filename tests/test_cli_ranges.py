"""Every option has a range: any other value gives one sentence and status 2, before any work."""

import argparse
import io
import sys

import pytest

from fewshot import FewShotImageClassifier
from fewshot.cli import main, make_parser
from tests.photographs import quick_embedder, write_photos

DIGITS = "9" * 5000
HUGE = (
    "99999999999999999999",
    "-99999999999999999999",
    "9" * 5000,
    "1e3",
    "nan",
    "inf",
    "",
    "x\n\x1b[2J",
    "0x10",
    "-1",
)
NUMBERS = (*HUGE, "0", "1.5")
#: What is not a number from 0 to 100, a seed, and so on.
WHOLE = (
    *(("evaluate DATA", option, NUMBERS) for option in ("--way", "--shot", "--query", "--episodes", "--size")),
    *(("train DATA --out OUT", f"--{name}", NUMBERS) for name in ("episodes", "way", "shot", "query", "val-way")),
    *(("train DATA --out OUT", option, NUMBERS) for option in ("--val-every", "--size")),
    *(("annotate DATA --model MODEL --out OUT", option, NUMBERS) for option in ("--jobs", "--shard")),
    ("evaluate DATA", "--query-classes", NUMBERS),
    ("fit DATA --out OUT", "--size", NUMBERS),
    *((command, "--bits", (*NUMBERS, "7", "17")) for command in ("fit DATA --out OUT", "evaluate DATA")),
    ("train DATA --out OUT", "--bits", NUMBERS),
    *((f"{command} MODEL X Y", "--max-pixels", NUMBERS) for command in ("predict", "add", "remove", "rename", "merge")),
    *(
        (command, "--max-pixels", NUMBERS)
        for command in ("fit DATA --out OUT", "evaluate DATA", "audit X", "check X", "show X")
    ),
    *((command, "--max-pixels", NUMBERS) for command in ("calibrate X Y", "test X Y", "annotate X --model Y --out Z")),
    *((command, "--max-pixels", NUMBERS) for command in ("search X Y --model Z", "train DATA --out OUT")),
    *(("adapt DATA --out OUT", option, NUMBERS) for option in ("--size", "--bits", "--max-pixels")),
    ("adapt DATA --out OUT", "--shrinkage", ("nan", "inf", "-1", "0", "1.1", "1e400", "")),
    *(("predict MODEL IMAGE", option, NUMBERS) for option in ("--top", "--tiles")),
    ("search TABLE IMAGE --model MODEL", "-k", NUMBERS),
    *(("suggest MODEL DATA", option, NUMBERS) for option in ("-k", "--size", "--bits", "--max-pixels")),
    *((command, "--max-pixels", NUMBERS) for command in ("export-labels X --format csv --out Z", "import-labels X")),
    ("calibrate MODEL DATA", "--episodes", NUMBERS),
    ("export MODEL --out OUT", "--max-pixels", NUMBERS),
    ("export MODEL --out OUT", "--max-loss", ("nan", "inf", "-0.1", "1.1", "1e400", "", "x")),
    ("predict MODEL IMAGE", "--coverage", ("nan", "inf", "-0.1", "0", "1", "1e400", "", "x", "90")),
    ("serve MODEL", "--port", ("-1", "65536", "nan", "1.5", "", "x", "0x10")),
    ("serve MODEL", "--workers", (*NUMBERS, "65")),
    *(("serve MODEL", option, NUMBERS) for option in ("--size", "--bits", "--max-pixels")),
    ("undo MODEL", "--to", tuple(text for text in NUMBERS if text != "0")),
    ("bench GRID", "--jobs", NUMBERS),
    ("demo", "--episodes", NUMBERS),
    ("demo", "--train-episodes", NUMBERS),
    *(
        (command, "--seed", HUGE)
        for command in ("train DATA --out OUT", "evaluate DATA", "calibrate MODEL DATA", "demo", "suggest MODEL DATA")
    ),
    ("calibrate MODEL DATA", "--false-accepts", ("nan", "inf", "-0.1", "100", "1e400", "", "x")),
    *(
        (command, "--reject", ("nan", "-1", "100", "5%%", "", "x"))
        for command in ("fit DATA --out OUT", "calibrate MODEL")
    ),
    ("train DATA --out OUT", "--lr", ("nan", "inf", "-1", "0", "1e400", "")),
    ("train DATA --out OUT", "--temperature", ("nan", "inf", "-1", "0", "1e-300", "1e300", "")),
)
FIELDS = ("n_episodes", "n_way", "n_shot", "n_query", "meta_batch", "embed_chunk", "validate_every", "val_n_episodes")
SETTINGS = (
    *(f"{name}={value}" for name in FIELDS for value in (HUGE[0], "-1", "nan", "1.5", "true", "", "[" * 2000)),
    *(f"lr={value}" for value in ("nan", "inf", "0", "-1", "1e400", "'x'", DIGITS)),
    *("seed=-1", "seed=9223372036854775808", "precision=", "batch_norm=1", "rotate_support=7", "layer_decay=nan"),
    *("weight_decay=inf", "=", "n_way", "", "\n=\x1b", "__class__=1", "n_way=" + "9" * 5000),
)  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The paths behind the words in capitals; a refused command must not change them."""
    folder = tmp_path_factory.mktemp("ranges")
    paths = write_photos(folder / "photos", 2)
    model = FewShotImageClassifier(quick_embedder(), progress=False)
    model.fit(paths, [path.split("/")[-2] for path in paths]).save(folder / "model")
    names = {"DATA": folder / "photos", "OUT": folder / "out", "MODEL": folder / "model", "IMAGE": paths[0]}
    return {**names, "TABLE": folder / "t.parquet", "GRID": folder / "g.toml"}


def refused(command, places, capsys, status=(2,)):
    """Run a command that must end with one sentence and without a trace."""
    words = [str(places.get(word, word)) for word in command]
    before = sorted(places["DATA"].parent.rglob("*"))
    try:
        found = main(words)
    except SystemExit as end:
        found = end.code
    told = capsys.readouterr().err.splitlines()
    assert found in status, told
    assert told[-1].startswith("fewshot")
    assert len(told[-1]) < 700
    assert not [line for line in told if "\x1b" in line or "Traceback" in line]
    assert sorted(places["DATA"].parent.rglob("*")) == before
    return told[-1]


@pytest.mark.parametrize(
    ("command", "option", "values"), WHOLE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_number_out_of_range_is_one_sentence(command, option, values, places, capsys):
    for value in values:
        told = refused([*command.split(), f"{option}={value}"], places, capsys)
        assert f"argument {option}: expected a" in told.replace("/-k", "")


def test_every_option_that_takes_a_value_is_tried_or_free():
    """So that no new numeric option is forgotten here."""
    free = (
        "plugin", "out", "split", "backbone", "checkpoint", "weights", "cache", "learner", "device", "report", "csv",
        "json", "config", "set", "metric", "tensorboard", "model", "where", "frozen", "parquet", "images",
        "unknown_label", "domain", "views", "root", "add_to", "field", "held_out", "none_of_these",
        "path_column", "label_column", "gate", "support", "host", "allow_host", "token", "root_path", "server",
        "site",
    )  # fmt: skip
    tried = {(command.split()[0], option) for command, option, _ in WHOLE}
    commands = make_parser()._subparsers._group_actions[0].choices
    for name, command in commands.items():
        command.define()
        for action in command._actions:
            takes = action.option_strings and action.nargs != 0 and not isinstance(action, argparse._HelpAction)
            if takes and action.choices is None and (name, action.option_strings[-1]) not in tried:
                assert action.type is None or action.dest in free, f"{name} {action.option_strings}"
                assert action.dest in free, f"{name} {action.option_strings}"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting[:24].encode("unicode_escape").decode())
def test_a_setting_out_of_range_is_one_sentence(setting, places, capsys, tmp_path):
    refused(["train", "DATA", "--out", "OUT", "--size=8", "--set", setting], places, capsys)
    (tmp_path / "settings.toml").write_text(setting.replace("=", " = ", 1) + "\n")
    if setting:
        refused(
            ["train", "DATA", "--out", "OUT", "--size=8", "--config", str(tmp_path / "settings.toml")], places, capsys
        )


GRID = '[[datasets]]\nsource = "digits"\n[[backbones]]\nbackbone = "pixels"\n[[learners]]\nlearner = "prototypical"\n'


@pytest.mark.parametrize(
    "line",
    [
        "n_way = 99999999999999999999", "n_shot = [0]", "n_query = -1", "n_episodes = 1000000000000", "seeds = [1e400]",
        "seeds = [18446744073709551616]", "n_episodes = nan", "n_way = " + "[" * 3000, "n_episodes = " + "9" * 5000,
        'sampler = "\\u001b"', "x = 1",
    ],
)  # fmt: skip
def test_a_grid_out_of_range_is_one_sentence(line, places, capsys):
    places["GRID"].write_text(f"{line}\n{GRID}")
    refused(["bench", "GRID", "--out", "OUT", "--quiet"], places, capsys)


@pytest.mark.parametrize("path", ["", ".", "/dev/null", "/dev/zero", "x" * 300, "gone\n", "/" + "a/" * 3000])
@pytest.mark.parametrize(
    "command",
    ["train DATA --out OUT --config PATH", "bench PATH", "fit PATH --out OUT", "fit DATA --out OUT --from PATH"],
)
def test_an_invalid_path_is_one_sentence(command, path, places, capsys, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # the repository holds pictures
    refused([path if word == "PATH" else word for word in command.split()], places, capsys)


@pytest.mark.parametrize("device", ["", "warp", "cuda:99999999999999999999", "cpu:-1", "\x1b[2J"])
@pytest.mark.parametrize("command", ["predict MODEL IMAGE", "evaluate DATA --backbone conv4 --weights random"])
def test_an_invalid_device_is_one_sentence(command, device, places, capsys):
    refused([*command.split(), f"--device={device}"], places, capsys)


@pytest.mark.parametrize("option", ["--backbone", "--weights", "--learner", "--split", "--from", "--plugin"])
@pytest.mark.parametrize("value", ["", "gone", "\x1b[2J\n", "x" * 100_000, "hf-hub:", "/"])
def test_an_invalid_name_is_one_sentence(option, value, places, capsys):
    quick = [] if option in ("--backbone", "--weights", "--from") else ["--backbone=conv4", "--weights=random"]
    quick += ["--backbone=conv4"] if option == "--weights" else []
    refused(["fit", "DATA", "--out", "OUT", *quick, f"{option}={value}"], places, capsys, status=(1, 2))


def test_the_largest_accepted_value_works(places, capsys, monkeypatch):
    assert main(["predict", str(places["MODEL"]), str(places["IMAGE"]), "--top", "1000000", "--csv", "-"]) == 0
    assert capsys.readouterr().out.startswith("image,label,likeliest,probability,class 2,probability 2,error\n")


def test_lack_of_memory_is_one_sentence(places, capsys, monkeypatch):
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ):

        def fail(options, error=error):
            raise error

        monkeypatch.setattr("fewshot.cli.saved.show", fail)
        assert "not enough memory" in refused(["show", "MODEL"], places, capsys, status=(1,))


def test_help_lists_every_status(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "exit status:" in sys.stdout.getvalue()


@pytest.mark.parametrize(
    "command",
    [
        "fit |EMPTY|--out|OUT", "fit|DATA|--out|EMPTY", "fit|DATA|--out|OUT|--cache|EMPTY", "predict|MODEL|EMPTY",
        "predict|MODEL|IMAGE|EMPTY", "predict|MODEL|IMAGE|--csv|EMPTY", "add|MODEL|EMPTY|IMAGE",
    ],
)  # fmt: skip
def test_an_unset_shell_variable_is_an_error(command, places, capsys):
    words = ["" if word == "EMPTY" else word.strip() for word in command.split("|")]
    assert "is empty; give a value, or leave it out" in refused(words, places, capsys)


@pytest.mark.parametrize(
    ("command", "option", "span"),
    [
        ("predict", "--top K", "[1 to 1000000]"),
        ("calibrate", "--false-accepts PERCENT", "[0 to 99.9]"),
        ("fit", "--size PX", "[1 to 4096]"),
        ("train", "--lr X", "[1e-12 to 1000]"),
        ("bench", "--jobs N", "[1 to 1024]"),
        ("search", "-k K", "[1 to 1000000]"),
        ("demo", "--seed SEED", "[0 to 4294967295]"),
    ],
)
def test_help_shows_the_range_of_each_number(capsys, command, option, span):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    about = " ".join(capsys.readouterr().out.split()).rpartition(option)[2]
    assert span in about[:130]


def test_a_number_with_a_comma_is_answered_with_how_to_write_it(capsys):
    with pytest.raises(SystemExit):
        main(["calibrate", "model", "--reject", "0,5"])
    assert "not '0,5'; write a point in place of the comma; auto" in capsys.readouterr().err


def test_whole_numbers_are_separated_by_blanks(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "X", "--shot", "1,5"])
    assert "not '1,5'; separate numbers by blanks" in capsys.readouterr().err
