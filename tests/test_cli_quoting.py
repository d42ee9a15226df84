"""Names with blanks that a shell has split."""

import pytest

from fewshot.cli import main
from fewshot.cli.quoting import unquoted


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my photos" / "coin").mkdir(parents=True)
    (tmp_path / "my photos" / "front side.jpg").write_bytes(b"")
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("fit my photos --out m", "my photos"),
        ("fit my photos/coin --out m", "my photos/coin"),
        ("predict model my photos/front side.jpg", "my photos/front side.jpg"),
        ("predict model my photos/*.jpg", "my photos"),
        ("fit photos --out m", ""),
        ("rename model my photo", ""),
    ],
)
def test_a_name_that_was_split_is_put_together(here, typed, name):
    assert unquoted(typed.split()) == (f'; a name with blanks needs quotation marks: "{name}"' if name else "")


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("fit my photos --out m", "unrecognized arguments: photos"),
        ("fit my  --out m photos", "unrecognized arguments: photos"),
        ("add model coin my photos/front side.jpg", "model is not a saved classifier"),
        ("predict model my photos/*.jpg", "model is not a saved classifier"),
    ],
)
def test_a_command_that_fails_says_so(here, typed, reason, capsys):
    try:
        status = main(typed.split())
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr().err
    assert status == 2
    assert reason in said
    assert ("quotation marks" in said) == ("my photos" in typed)
