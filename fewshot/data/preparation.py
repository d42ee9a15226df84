"""What the scripts in ``data_prep`` share: dropping duplicates, writing, telling, and exit statuses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.duplicates import SPLITS, describe_duplicates, find_duplicates, hash_contents
from fewshot.data.packed import refuse_other_data, write_packed
from fewshot.errors import FewshotError
from fewshot.persistence.files import write_text
from fewshot.persistence.provenance import manifest
from fewshot.utils.text import printable

if TYPE_CHECKING:
    import pandas as pd

Say = Callable[[str], object]


def finish(
    out: str | Path, images: NDArray[np.uint8], table: pd.DataFrame, sources: Mapping[str, str], say: Say
) -> None:
    """Drop what is in two splits, write the packed data set and ``duplicates.csv``, and tell the counts.

    Parameters
    ----------
    out : path
        The folder.
    images : uint8 array of n images
        Pixels.
    table : DataFrame of n rows
        Columns path, label, split.
    sources : mapping of str to str
        SHA-256 of each file that was read, by its name.
    say : callable
        Is told each line.
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
    """Run a script: 0 if all went well, 2 for a user's mistake, 1 for a failure, each in one sentence.

    Parameters
    ----------
    parser : ArgumentParser
        Of the script.
    prepare : callable
        What it does with the options.
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
    """Return a parser with the options that every script has."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.set_defaults(makes_folder=True)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the prepared data, new or empty")
    parser.add_argument(
        "--download-to", default="downloads", metavar="DIR", help="where downloads are kept (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def told(options: argparse.Namespace) -> dict[str, Any]:
    """Return how downloads are to be made."""
    return {"folder": options.download_to, "progress": not options.quiet}
