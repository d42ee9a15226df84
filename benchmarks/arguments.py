"""Arguments of the benchmarks: where results go, and data, which must be there before anything is computed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from shlex import quote
from typing import NoReturn

from fewshot.data.images import list_splits

OMNIGLOT = "https://github.com/brendenlake/omniglot/tree/master/python"
ARCHIVES = ("images_background.zip", "images_evaluation.zip")


class Parser(argparse.ArgumentParser):
    """Parse the arguments of a script; a mistake is one sentence, and the status is 2."""

    def __init__(self, script: str, about: str | None) -> None:
        super().__init__(prog=script, description=about)

    def add_out(self, default: str) -> None:
        """Add ``--out`` with its default, among the published results."""
        single = default.endswith(".json")
        files = "file to write" if single else "writes NAME.json and NAME.md"
        self.add_argument(
            "--out", default=default, metavar="FILE" if single else "NAME",
            help=f"{files} (default: %(default)s, which is published: give a trial another one)",
        )  # fmt: skip

    def add_data(self, data: str, default: str, *splits: str) -> None:
        """Add ``--data``, prepared data with `splits`; see `prepared`."""
        self.add_argument(
            "--data", type=prepared(data, *splits), default=default, metavar="DIR",
            help="prepared data (default: %(default)s)",
        )  # fmt: skip

    def add_pictures(self) -> None:
        """Add the options that name the data sets of pictures, each left out by default."""
        self.add_argument(
            "--cifar", type=prepared("cifar-fs", "val", "test"), metavar="DIR",
            help="prepared CIFAR-FS with splits val and test (default: leave out)",
        )  # fmt: skip
        self.add_argument(
            "--omniglot", type=archives, metavar="DIR", help="folder with Omniglot's official archives images_*.zip"
        )
        self.add_argument(
            "--eurosat", type=images, metavar="DIR", help="EuroSAT: a folder of class folders, or prepared data"
        )

    def error(self, message: str) -> NoReturn:
        """Tell a mistake."""
        self.exit(2, f"{self.prog}: {message}\n")


def prepared(data: str, *splits: str) -> Callable[[str], str]:
    """Return the type of an argument that is prepared data with `splits`; ``fewshot data`` calls it `data`."""

    def checked(path: str) -> str:
        cure = f"make it with: fewshot data {data} --out {quote(path)}"
        if not Path(path).exists():
            raise argparse.ArgumentTypeError(f"{path} does not exist; {cure}")
        _require(path, splits, cure)
        return path

    return checked


def _require(path: str, splits: Collection[str], cure: str) -> None:
    """Refuse data that lack one of the splits."""
    has = list_splits(path)
    if missing := [split for split in splits if split not in has]:
        raise argparse.ArgumentTypeError(f"{path} has no split {missing[0]!r}; {cure}")


def archives(path: str) -> str:
    """Return the folder of Omniglot's archives."""
    for name in ARCHIVES:
        if not Path(path, name).is_file():
            raise argparse.ArgumentTypeError(f"{path} has no {name}; download it to there, from {OMNIGLOT}")
    return path


def images(path: str) -> str:
    """Return images of any kind."""
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"{path} does not exist; give a folder of class folders, or prepared data")
    return path


def named(*splits: str, mark: str = "") -> Callable[[str], str]:
    """Return the type of ``NAME=PATH``, of data with `splits`; after `mark`, the path may name a split."""

    def checked(given: str) -> str:
        name, equals, path = given.partition("=")
        if not (name and equals and path):
            raise argparse.ArgumentTypeError(f"{given}: expected NAME=PATH")
        path, _, split = path.partition(mark) if mark else (path, "", "")
        images(path)
        has = ", ".join(list_splits(path))
        _require(path, [split] if split else splits, f"it has {has}" if has else "it has none")
        return given

    return checked
