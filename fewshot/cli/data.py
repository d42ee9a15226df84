"""``fewshot data`` and its options: prepared data for training and benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fewshot.cli.options import shared, whole
from fewshot.cli.parser import Parser
from fewshot.cli.tables import finish
from fewshot.cli.terminal import say


def data_options(data: argparse.ArgumentParser) -> None:
    """Define ``fewshot data`` with one command per data set."""
    sets = data.add_subparsers(dest="dataset", metavar="DATASET", required=True, parser_class=Parser)
    omniglot = sets.add_parser(
        "omniglot", help="1,623 characters, split as Vinyals et al. or at random; downloads 14 MB"
    )
    for part in ("background", "evaluation"):
        omniglot.add_argument(f"--{part}", metavar="ZIP", help=f"local images_{part}.zip (default: download it)")
    omniglot.add_argument(
        "--splits", default="vinyals", metavar="NAME", help="vinyals, random, or your own list (default: %(default)s)"
    )
    omniglot.add_argument(
        "--size", type=whole(1, 4096), default=28, metavar="PX", help="side of the images (default: %(default)s)"
    )
    cifar = sets.add_parser("cifar-fs", help="CIFAR-100 split by class: CIFAR-FS or FC100; downloads 168 MB")
    cifar.add_argument("--archive", metavar="TARGZ", help="local cifar-100-binary.tar.gz (default: download it)")
    cifar.add_argument(
        "--splits", default="cifar-fs", metavar="NAME", help="cifar-fs, fc100, or your own list (default: %(default)s)"
    )
    for published in (omniglot, cifar):
        published.add_argument("--out", required=True, metavar="DIR", help="folder for the data, new or empty")
        published.add_argument(
            "--download-to", default="downloads", metavar="DIR", help="folder for downloads (default: %(default)s)"
        )
    folder = sets.add_parser("folder", help="a folder of your own: splits its classes, and writes only a table")
    folder.add_argument("folder", metavar="FOLDER", help="folder with one subfolder per class")
    folder.add_argument("--out", required=True, metavar="CSV", help="table to write, in FOLDER or above it")
    for split, what in (("val", "validation"), ("test", "testing")):
        folder.add_argument(
            f"--{split}", type=float, default=0.2, help=f"share of classes for {what} (default: %(default)s)"
        )
    folder.add_argument(
        "--min-images",
        type=whole(1, 10**6),
        default=1,
        metavar="N",
        help="leave out classes with fewer images (default: %(default)s)",
    )
    shared(folder, "--seed")
    for one in (omniglot, cifar, folder):
        one.description = "Writes a table path,label,split that train, evaluate and bench read."
        shared(one, "--json", "--quiet")


def data(options: argparse.Namespace) -> int:
    """Prepare a data set."""
    {"omniglot": _omniglot, "cifar-fs": _cifar_fs, "folder": _folder}[options.dataset](options)
    finish(options, {"written": options.out, "splits": _sizes(options.out)})
    return 0


def _sizes(out: str) -> list[dict[str, Any]]:
    """Return the numbers of classes and images of each split of prepared data."""
    from fewshot.data.packed import TABLE
    from fewshot.data.scan import read_csv

    splits = read_csv(Path(out) / TABLE if Path(out).is_dir() else Path(out)).groupby("split", sort=False)
    return [{"split": name, "classes": rows["label"].nunique(), "images": len(rows)} for name, rows in splits]


def _omniglot(options: argparse.Namespace) -> None:
    from fewshot.data.archive import obtain
    from fewshot.data.packed import refuse_other_data
    from fewshot.data.preparing.omniglot import ARCHIVES, BASE, prepare
    from fewshot.data.preparing.splits import omniglot_splits

    refuse_other_data(options.out)
    splits = omniglot_splits(options.splits)
    archives = [
        obtain(getattr(options, part), BASE + name, sha256, **_download(options, f"--{part}"))
        for part, (name, sha256) in ARCHIVES.items()
    ]
    prepare(archives, splits, options.out, size=options.size, progress=not options.quiet, say=say)


def _cifar_fs(options: argparse.Namespace) -> None:
    from fewshot.data.archive import obtain
    from fewshot.data.packed import refuse_other_data
    from fewshot.data.preparing.cifar_fs import SHA256, URL, prepare
    from fewshot.data.preparing.splits import cifar_splits

    refuse_other_data(options.out)
    splits = cifar_splits(options.splits)
    archive = obtain(options.archive, URL, SHA256, **_download(options, "--archive"))
    prepare(archive, splits, options.out, say=say)


def _folder(options: argparse.Namespace) -> None:
    from fewshot.data.preparing.folder import prepare

    given = {name: getattr(options, name) for name in ("val", "test", "seed", "min_images")}
    prepare(options.folder, options.out, **given, progress=not options.quiet, say=say)


def _download(options: argparse.Namespace, option: str) -> dict[str, Any]:
    return {"folder": options.download_to, "progress": not options.quiet, "option": option}
