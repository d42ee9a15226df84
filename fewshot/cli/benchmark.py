"""``fewshot bench``."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from fewshot.benchmark.run import MARKDOWN, run_benchmark
from fewshot.cli.terminal import say
from fewshot.errors import MissingExtraError
from fewshot.persistence.files import replacing


def bench(options: argparse.Namespace) -> int:
    """Run a grid; exit with 1 if a unit has failed."""
    if options.parquet and find_spec("pyarrow") is None:
        raise MissingExtraError("Parquet needs pyarrow; run: pip install 'fewshot[parquet]'")
    if options.parquet and not Path(options.parquet).absolute().parent.is_dir():
        raise ValueError(f"--parquet {options.parquet}: there is no such folder; make it, or choose another place")
    frame = run_benchmark(
        options.grid,
        options.out,
        executor=options.executor,
        jobs=options.jobs,
        episodes=options.episodes,
        cache=options.cache,
        progress=not options.quiet,
    )
    if options.parquet:
        # Opened here: pyarrow takes no path that is not UTF-8.
        with replacing(options.parquet) as partial, partial.open("wb") as file:
            frame.to_parquet(file, index=False)
    failed = frame[frame["error"] != ""]
    table = (Path(options.out) / MARKDOWN).read_text(encoding="utf-8")
    say(*table.splitlines(), "", f"written to {options.out}: report.html, results.csv")
    return 1 if len(failed) else 0
