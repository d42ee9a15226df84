"""The options of ``fewshot annotate`` and ``search``; importing this module loads no heavy package."""

from __future__ import annotations

import argparse

from fewshot.cli.options import EMBEDDING, SPREADSHEET, TABLES, count, file_of, shared


def annotate_options(annotate: argparse.ArgumentParser) -> None:
    """Define ``fewshot annotate``."""
    annotate.description = (
        "Write id, label, vector, likeliest, probability, unknown, nearest, similarity, error and embedder of every "
        "image below FOLDER. The probability is that of the likeliest class, which is the label unless that is "
        "unknown. If interrupted or killed, run the same command to resume. An image that cannot be read gets an "
        "error and a vector of zeros, and the exit status is 1. With --server, a running service embeds and answers. "
        "A .parquet table needs the extra 'parquet', a .csv table nothing."
    )
    annotate.add_argument("folder", metavar="FOLDER", help="images, in folders of any depth, or a .zip of it")
    by = annotate.add_mutually_exclusive_group(required=True)
    by.add_argument("--model", metavar="DIR", help="a classifier")
    by.add_argument("--server", metavar="URL", help="a running fewshot serve instead, such as http://127.0.0.1:8000")
    annotate.add_argument("--token", metavar="FILE", help="holds the secret that the service asks for")
    annotate.add_argument(
        "--out",
        type=file_of("Parquet", "CSV"),
        required=True,
        metavar="FILE",
        help="the table (.parquet, or .csv without vectors)",
    )
    shared(annotate, "--executor", "--jobs")
    annotate.add_argument("--shard", type=count, default=1024, metavar="N", help="images per write (default: 1024)")
    shared(annotate, *SPREADSHEET, "--force", "--json", *EMBEDDING)


def search_options(search: argparse.ArgumentParser) -> None:
    """Define ``fewshot search``."""
    search.add_argument("table", metavar="TABLE", help="a table of fewshot annotate")
    shared(search, "images")
    search.add_argument("--model", required=True, metavar="DIR", help="the classifier that made the table")
    search.add_argument("-k", type=count, default=5, metavar="K", help="images per query (default: %(default)s)")
    search.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE",
        help="find only images whose row has this value; repeat a NAME to allow several values. Numbers may have "
        "bounds: 'probability>=0.9'",
    )  # fmt: skip
    search.add_argument("--by-label", action="store_true", help="find only images of the predicted class of the query")
    search.add_argument(
        "--metric", choices=("sqeuclidean", "cosine", "dot"), help="similarity (default: the classifier's)"
    )
    shared(search, *TABLES, *EMBEDDING)
