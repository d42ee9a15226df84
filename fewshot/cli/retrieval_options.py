"""The commands that other systems need, and their options."""

from __future__ import annotations

from typing import Any

from fewshot.cli.arguments import command, common, count, file_of, jobs, tables


def annotate_options(commands: Any) -> None:
    """Add ``fewshot annotate``."""
    annotate = command(
        commands,
        "annotate",
        "retrieval",
        "write vectors and labels of a folder of images, of any size, as Parquet",
        "Write id, label, vector, probability, unknown, nearest, similarity, error and embedder of every image below "
        "FOLDER. Interrupted or killed, the same command goes on where it was. An image that cannot be read has an "
        "error and a vector of zeros, and the exit status is 1. Needs the extra 'parquet'.",
    )
    annotate.add_argument("folder", metavar="FOLDER", help="images, in folders of any depth")
    annotate.add_argument("--model", required=True, metavar="DIR", help="a classifier")
    annotate.add_argument("--out", type=file_of("Parquet"), required=True, metavar="FILE", help="the table (.parquet)")
    annotate.add_argument(
        "--executor", choices=("serial", "joblib", "ray"), default="serial",
        help="this process, several, or a cluster (extra; RAY_ADDRESS names it) (default: %(default)s)",
    )  # fmt: skip
    annotate.add_argument("--jobs", type=jobs, metavar="N", help="processes (default: one a core)")
    annotate.add_argument(
        "--shard",
        type=count,
        default=1024,
        metavar="N",
        help="images written at a time (default: %(default)s)",
    )
    annotate.add_argument("--force", action="store_true", help="replace a table that is there")
    common(annotate)


def search_options(commands: Any) -> None:
    """Add ``fewshot search``."""
    search = command(
        commands, "search", "retrieval", "find the images of a table of fewshot annotate that are like others"
    )
    search.add_argument("table", metavar="TABLE", help="what fewshot annotate has written")
    search.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    search.add_argument("--model", required=True, metavar="DIR", help="the classifier that made the table")
    search.add_argument("-k", type=count, default=5, metavar="K", help="images a query (default: %(default)s)")
    search.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE",
        help="only images with this in their row; of several values of one name, any",
    )  # fmt: skip
    search.add_argument("--by-label", action="store_true", help="only images of the class that the query is taken for")
    search.add_argument("--metric", choices=("sqeuclidean", "cosine", "dot"), help="default: the classifier's")
    tables(search)
    common(search)


#: In the order in which ``--help`` shows them.
RETRIEVAL_COMMANDS = (annotate_options, search_options)
