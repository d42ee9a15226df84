"""Shared code of the scripts in ``data_prep``: options, exit statuses, published splits and duplicates."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.digest import hash_contents
from fewshot.data.packed import refuse_other_data, write_packed
from fewshot.errors import FewshotError
from fewshot.persistence.files import write_text
from fewshot.persistence.provenance import manifest
from fewshot.utils.text import counted, printable

if TYPE_CHECKING:
    import pandas as pd

#: Splits in order of priority: a copy in a later split is kept.
SPLITS = ("train", "val", "test")

Say = Callable[[str], object]


def finish(
    out: str | Path, images: NDArray[np.uint8], table: pd.DataFrame, sources: Mapping[str, str], say: Say
) -> None:
    """Drop images that are in two splits, write the packed data set and ``duplicates.csv``, and report counts.

    Parameters
    ----------
    out : path
        The output folder.
    images : uint8 array of n images
        Pixels.
    table : DataFrame of n rows
        The columns path, label and split.
    sources : mapping of str to str
        SHA-256 of each source file by name.
    say : callable
        Called with each line of the report.
    """
    keep, listing = find_duplicates(table, hash_contents(image.tobytes() for image in images))
    say(describe_duplicates(listing) + (f"; see {out}/duplicates.csv" if len(listing) else ""))
    order = table[keep].assign(rank=table["split"].map(SPLITS.index)).sort_values(["rank", "label", "path"]).index
    kept = table.loc[order].drop(columns="rank", errors="ignore").reset_index(drop=True)
    facts = {"manifest": manifest(" ".join(["python", *sys.argv]), 0), "sources": dict(sources)}
    write_packed(out, images[order.to_numpy()], kept, facts)
    write_text(Path(out) / "duplicates.csv", listing.to_csv(index=False, lineterminator="\n"))
    say(f"{'split':8s}{'classes':>8s}{'images':>8s}{'a class':>12s}")
    for split, group in kept.groupby("split", sort=False):
        sizes = group.groupby("label").size()
        spread = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()}-{sizes.max()}"
        say(f"{split:8s}{len(sizes):8d}{len(group):8d}{spread:>12s}")
    say(f"written to {out}: images.npy, table.csv, manifest.json, duplicates.csv")


def run(parser: argparse.ArgumentParser, prepare: Callable[[argparse.Namespace], None]) -> int:
    """Run a script and return its exit status: 0 for success, 2 for a user error, 1 for a failure.

    Parameters
    ----------
    parser : ArgumentParser
        The parser of the script.
    prepare : callable
        Function of the parsed options.
    """
    options = parser.parse_args()
    try:
        if parser.get_default("makes_folder"):
            refuse_other_data(options.out)
        prepare(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, FewshotError) as error:
        return _complain(parser.prog, str(error), 2 if isinstance(error, ValueError) else 1)
    except OSError as error:
        where = f"{error.filename}: {error.strerror}; choose another place" if error.filename else str(error)
        return _complain(parser.prog, where, 1)
    return 0


def _complain(prog: str, sentence: str, status: int) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"{prog}: {printable(sentence)}\n")
    return status


def arguments(prog: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts share."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.set_defaults(makes_folder=True)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the prepared data, new or empty")
    parser.add_argument(
        "--download-to", default="downloads", metavar="DIR", help="folder for downloads (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def download_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `obtain` that the options set."""
    return {"folder": options.download_to, "progress": not options.quiet}


def find_duplicates(table: pd.DataFrame, hashes: Sequence[str]) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Find images with equal content, and decide which to drop so that no content is in two splits.

    Parameters
    ----------
    table : DataFrame of n rows
        The columns ``path``, ``label`` and ``split`` (train, val or test).
    hashes : sequence of n str
        Hash of each image.

    Returns
    -------
    keep : ndarray of shape (n,), bool
        False for images that are also in a later split; copies within a split are kept.
    listing : DataFrame
        One row per image with a copy: ``content`` (start of the hash), path, label, split, and ``action`` (kept or
        dropped).

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"path": list("abc"), "label": list("xyz"), "split": ["train", "test", "test"]})
    >>> find_duplicates(table, ["1", "1", "2"])[0].tolist()
    [False, True, True]
    """
    ranks = table["split"].map({split: rank for rank, split in enumerate(SPLITS)}).to_numpy()
    _, codes, counts = np.unique(np.asarray(hashes), return_inverse=True, return_counts=True)
    last = np.full(len(counts), -1)
    np.maximum.at(last, codes, ranks)
    keep = ranks == last[codes]
    again = np.flatnonzero(counts[codes] > 1)
    listing = table.iloc[again][["path", "label", "split"]].copy()
    listing.insert(0, "content", [hashes[i][:16] for i in again.tolist()])
    listing["action"] = np.where(keep[again], "kept", "dropped")
    return keep, listing.sort_values(["content", "path"], kind="stable")


def describe_duplicates(listing: pd.DataFrame) -> str:
    """Return a summary of the listing of `find_duplicates`."""
    if not len(listing):
        return "no image occurs twice"
    groups = listing.groupby("content")
    crossing = int((groups["split"].nunique() > 1).sum())
    mixed = int((groups["label"].nunique() > 1).sum())
    dropped = int((listing["action"] == "dropped").sum())
    return (
        f"{counted(len(groups), 'image')} found more than once ({mixed} of them in two classes); {crossing} across "
        f"splits, of which {counted(dropped, 'copy', 'copies')} dropped"
    )


def read_splits(source: str | Path) -> dict[str, list[str]]:
    """Read the published classes of train, val and test.

    Parameters
    ----------
    source : path
        A JSON file with three lists, or a folder of ``train.txt``, ``val.txt`` and ``test.txt`` with a class per line.

    Raises
    ------
    ValueError
        If the source is neither, or a class is in two splits.
    """
    path = Path(source)
    try:
        if path.is_dir():
            splits = {s: _lines(path / f"{s}.txt") for s in SPLITS}
        else:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            splits = {s: _names(s, loaded[s]) for s in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as splits ({error}); expected a JSON file with the lists train, val and test, or a "
            "folder of train.txt, val.txt and test.txt"
        ) from None
    seen: dict[str, str] = {}
    for split, classes in splits.items():
        for name in classes:
            if name in seen:
                raise ValueError(f"{path} has the class {name!r} in {seen[name]} and in {split}; list each class once")
            seen[name] = split
    return splits


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _names(split: str, given: object) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{split} is not a list of class names")
    return given


def check_total(what: str, found: int, expected: int) -> None:
    """Raise `ValueError` unless the numbers agree."""
    if found != expected:
        raise ValueError(f"found {found} {what}, expected {expected}; the archive is not the published one")
