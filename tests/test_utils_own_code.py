"""The code that a learner or network of somebody's own consists of."""

import functools
import importlib
import sys

import numpy as np
import pytest

from fewshot.utils.own_code import own_code, own_files

FILES = {
    "mine.py": "import torch, json\nfrom helper import scaling\nimport package.part as part\nfrom bare import inner\n",
    "helper.py": "def scaling():\n    from later import x\n    import gone\n",
    "later.py": "import mine\n",
    "package/__init__.py": "from . import near\nfrom .. import far\n",
    "package/near.py": "from .deep.inner import x\nfrom fewshot import PrototypicalLearner\n",
    "package/part.py": "",
    "package/deep/__init__.py": "",
    "bare/inner.py": "from .beside import x\n",
    "bare/beside.py": "",
    "package/deep/inner.py": "import helper\n",
    "stranger.py": "",
    "package/stranger.py": "",
}
OTHERS = ["later.py", "mine.py", "package/part.py", "bare/inner.py", "bare/beside.py"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_all_that_is_imported_is_found_and_nothing_is_imported_for_that(folder):
    before = set(sys.modules)
    found = own_files(str(folder / "mine.py"))
    assert found == sorted(str(folder / name) for name in FILES if "stranger" not in name)
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} & {"helper", "later", "package", "mine"}


def test_a_relative_import_starts_in_the_package_of_the_file(folder):
    names = ["package/near.py", "package/__init__.py", "package/deep/__init__.py", "package/deep/inner.py", "helper.py"]
    found = own_files(str(folder / "package" / "near.py"), "package")
    assert {*found} == {str(folder / name) for name in [*names, *OTHERS]}


@pytest.mark.parametrize("text", ["def broken(:", "\0", "from ...far import x", "import x.y.z"])
def test_what_cannot_be_read_or_found_is_left_out(text, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    assert own_files(str(tmp_path / "mine.py")) == [str(tmp_path / "mine.py")]


def test_a_digest_is_of_a_file_and_of_what_it_imports(folder, monkeypatch):
    (folder / "mine.py").write_text("import helper\n\ndef make(): pass\n\nclass Mine(dict):\n    def go(self): pass\n")
    monkeypatch.setitem(sys.modules, "mine", None)  # which is undone at the end
    del sys.modules["mine"]
    mine = importlib.import_module("mine")
    ways = (mine.make, mine.Mine, mine.Mine(), mine.Mine().go, functools.partial(mine.make))
    (before,) = {own_code([one]) for one in ways}
    assert before
    (folder / "helper.py").write_text("def scaling(): return 2\n")
    (after,) = {own_code([one, dict, max]) for one in ways}
    assert after != before


def test_what_a_notebook_defines_counts_by_its_bytecode():
    def cell(text):
        defined = {"__name__": "__main__"}
        exec(compile(text, "<cell 1>", "exec"), defined)
        return own_code([defined["Mine"]])

    text = "class Mine:\n    def go(self, x):\n        return [x * one for one in (1, {})] + [x in {{1, 2}}]\n"
    assert cell(text.format(2)) == cell("\n\n" + text.format(2)) != cell(text.format(3))


def test_what_is_installed_does_not_count():
    assert own_code([]) == own_code([np.ndarray, np.mean, pytest.raises, print, dict, own_files, object()]) == ""


def test_what_is_installed_for_one_user_does_not_count(folder, tmp_path, monkeypatch):
    theirs = tmp_path / "home" / "lib" / "python3" / "site-packages"
    theirs.mkdir(parents=True)
    (theirs / "theirs.py").write_text("class Theirs: pass\n")
    (folder / "mine.py").write_text("import theirs\n")
    monkeypatch.syspath_prepend(str(theirs))
    assert own_code([importlib.import_module("theirs").Theirs]) == ""
    assert own_files(str(folder / "mine.py")) == [str(folder / "mine.py")]
