"""Messages of the library name parameters; those of the command line name flags."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from fewshot.cli import main, make_parser
from fewshot.cli.terminal import in_flags, speaking
from tests.photographs import write_photos

FIT, EVALUATE = ("fit", "DATA", "--out", "OUT"), ("evaluate", "DATA")


@pytest.mark.parametrize(
    ("command", "said", "expected"),
    [
        (FIT, "give pretrained=True (the hub)", "give --pretrained (the hub)"),
        (FIT, "weights='random' and pretrained=True", "--weights random and --pretrained"),
        (FIT, "backbone=..., weights='my weights.pth'", "--backbone ..., --weights 'my weights.pth'"),
        (FIT, "img_size is 8; expected at least 16", "--size is 8; expected at least 16"),
        (FIT, "leave out weights='reference'", "leave out --reference"),
        (
            FIT,
            "give the learner temperature=None, or scale embeddings to unit length",
            "choose --learner cosine-prototypical or discriminant, or run fewshot calibrate",
        ),
        (FIT, "give bits=12 to confirm, or bits=16 if", "give --bits 12 to confirm, or --bits 16 if"),
        (FIT, "unknown_label='a b' is a class", "--unknown-label 'a b' is a class"),
        (FIT, "raise max_pixels", "raise --max-pixels"),
        (FIT, "or another one; give it with token=...", "or another one; give the file that holds it with --token"),
        (
            FIT,
            "x; move it there, or give LabeledImages.from_table another root, or allow_outside=True",
            "x; give the folder above it as --root to fit, test, predict or calibrate, or move it",
        ),
        (
            ("search", "T.parquet", "--model", "M", "--by-label", "IMAGE"),
            "for a class that was learned since, call reclassify(model, store)",
            "for a class that was learned since, run fewshot annotate again with --force",
        ),
        (FIT, 'on_error="skip" leaves', "--skip-unreadable leaves"),
        (FIT, "weights of its own, with a backbone of another size", None),
        (FIT, "'img_size' and photos/max_pixels/a.png, max_pixels.csv, x/bits=12.png", None),
        (EVALUATE, "lower n_way, n_shot or n_query", "lower --way, --shot or --query"),
        (EVALUATE, "below n_way=30; pass small_classes='drop'", "below --way 30; pass --small-classes drop"),
        (("train", "DATA", "--out", "OUT"), "n_way is 0, meta_batch is 0", "--way is 0, meta_batch is 0"),
        (("train", "DATA", "--out", "OUT"), "--set n_way: expected KEY=VALUE, e.g. --set n_way=60", None),
        (("predict", "DIR", "IMAGE"), "give bits=12 to confirm", "give fewshot fit --bits 12 to confirm"),
        (("annotate", "X", "--model", "M", "--out", "T"), "give overwrite=True to", "give --force to"),
        (("bench", "GRID"), "leave weights and img_size out; n_jobs=2", "leave weights and img_size out; --jobs 2"),
    ],
)  # fmt: skip
def test_parameters_become_flags_of_the_command_that_has_them(command, said, expected):
    with speaking(make_parser().parse_args(command)):
        assert in_flags(said) == (expected or said)
    assert in_flags(said) == said


def test_only_errors_about_out_suggest_another_out(tmp_path, capsys):
    write_photos(tmp_path / "data", 2)
    (tmp_path / "file").touch()
    train = "train {0}/data --out {1} --size 28 --way 2 --query 1 --episodes 1 --tensorboard {0}/file"
    assert main(train.format(tmp_path, tmp_path / "out").split()) == 1
    assert "file: File exists; choose another place\n" in capsys.readouterr().err
    assert main(train.format(tmp_path, tmp_path / "file" / "out").split()) == 1
    assert "choose another place with --out\n" in capsys.readouterr().err


def test_messages_of_other_threads_name_flags_too():
    with speaking(make_parser().parse_args(FIT)), ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_flags, "give bits=12 to confirm").result() == "give --bits 12 to confirm"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("fit {data} --out {out} --backbone resnet18", "give --pretrained (the hub), --weights PATH (a file) or"),
        ("fit {data} --out {out} --weights random --pretrained", "--weights random and --pretrained are"),
        ("fit {data} --out {out} --backbone conv4 --weights random --size 8", "--size is 8; expected at least 16"),
        ("fit {data} --out {out} --backbone conv4 --weights random --reference", "leave out --reference"),
        ("fit {data} --out {out} --backbone conv4 --weights random --learner relation", "and give --from"),
        ("evaluate {data} --backbone conv4 --weights random --size 28 --way 2", "; lower --query to 1\n"),
        ("train {data} --out {out} --size 28 --way 2 --query 9", "; lower --query to 1\n"),
    ],
)  # fmt: skip
def test_no_message_of_the_command_line_names_python_parameters(tmp_path, capsys, options, expected):
    write_photos(tmp_path / "data", 2)
    assert main(options.format(data=tmp_path / "data", out=tmp_path / "out").split()) == 2
    said = capsys.readouterr().err.replace(str(tmp_path), "")
    assert expected in said
    assert not re.search(r"\w=|\b[a-z]+_[a-z]+\b", said.replace("tf_efficientnet", ""))
