import json
import os

import pytest

from fewshot.benchmark.frozen import check_frozen

FOUND = {"datasets": {"digits": {"sha256": "0", "images": 1, "classes": 1, "cells": []}}}
WRONG = [
    "",
    "[]",
    "[" * 100_000,
    "{}",
    '{"datasets": 1}',
    '{"datasets": {"digits": []}}',
    '{"datasets": {"digits": 1}}',
]


@pytest.mark.parametrize(
    "text", [*WRONG, json.dumps({"datasets": {"digits": {"sha256": "0", "cells": 1}}})], ids=range(8)
)
def test_a_file_without_episodes_is_refused(text, tmp_path):
    (tmp_path / "episodes.json").write_text(text)
    with pytest.raises(ValueError, match=r"episodes.json holds no frozen episodes \(.*\); expected"):
        check_frozen(FOUND, tmp_path / "episodes.json")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "episodes.json")
    with pytest.raises(ValueError, match="it is not a regular file"):
        check_frozen(FOUND, tmp_path / "episodes.json")
