"""``fewshot bench`` and its options."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from fewshot.benchmark.ready import ready_grids
from fewshot.cli.options import file_of, shared
from fewshot.cli.tables import finish
from fewshot.errors import missing
from fewshot.utils.text import counted
from fewshot.utils.warning import warn

#: A commented grid.
EXAMPLE = """a grid:

  n_way = [5]                    # classes per episode
  n_shot = [1, 5]                # support images per class
  n_query = 15                   # queries per class
  n_episodes = 600
  seeds = [0]
  sampler = ["fixed"]            # and "varied": sizes vary as in the Meta-Dataset
  query_classes = ["balanced"]   # and "dirichlet": uneven; "single"; or 2: queries of two classes
  baseline = "prototypical"      # compared with all others; default: the first learner

  [[datasets]]
  source = "data/cifar_fs"       # as for evaluate, or built in: "digits", "glyphs"
  split = "test"                 # also name, base (a split), n_query (instead of the grid's)

  [[backbones]]
  backbone = "tf_efficientnet_lite0"   # a timm name, a checkpoint, or "pixels"
  img_size = 96                        # also name; weights and pretrained as for evaluate

  [[backbones]]
  backbone = "conv4"
  train_on = "glyphs"            # first meta-train on its training classes
  train = {n_episodes = 500}     # fields as for train; also learner, size, distort

  [[learners]]
  learner = "prototypical"       # and its parameters: metric = "cosine", temperature = 0.1, ...
  [[learners]]
  learner = "simpleshot"
  normalization = "CL2N"
  center = "base"                # the mean embedding of the split "train"
  [[learners]]
  learner = "linear-probe"       # a reference: logistic regression on unit vectors, and its C
  [[learners]]
  learner = "scikit-learn"       # a reference: any classifier of scikit-learn, and its parameters
  classifier = "KNeighborsClassifier"
  n_neighbors = 1                # also unit = true: embeddings of unit length
  [[learners]]
  learner = "own"                # the learner in the checkpoint
"""


def bench_options(bench: argparse.ArgumentParser) -> None:
    """Define ``fewshot bench``."""
    bench.description = (
        "Run a grid: every data set with every backbone and every learner, on the same episodes.\nWrites results.csv, "
        "results.md, report.html, results.json and episodes.json.\nIf interrupted, run the same command to resume. "
        "With --site, write a page of results instead, of\nany number of files and folders."
    )
    bench.formatter_class = argparse.RawDescriptionHelpFormatter
    bench.epilog = EXAMPLE
    bench.add_argument(
        "grid",
        metavar="GRID",
        nargs="+",
        help=f"a TOML file that lists what to compare, or {', '.join(ready_grids())}; with --site, files of results: "
        "of bench, of evaluate --json, of others (benchmarks/README.md), frozen episodes, and folders of these",
    )
    bench.add_argument("--site", metavar="DIR", help="write a page of all results in files to a folder")
    bench.add_argument("--out", default="bench", metavar="DIR", help="results folder (default: %(default)s)")
    shared(bench, "--executor")
    bench.set_defaults(executor="joblib")
    shared(bench, "--jobs")
    bench.add_argument(
        "--episodes", dest="frozen", metavar="FILE", help="episodes.json of another run; fail if the episodes differ"
    )
    shared(bench, "--cache")
    bench.add_argument(
        "--parquet", type=file_of("Parquet"), metavar="FILE", help="also write the table as Parquet (extra)"
    )
    shared(bench, "--json", "--quiet")


def bench(options: argparse.Namespace) -> int:
    """Run a grid; exit with 1 if a unit failed. Or write a page of results."""
    if options.site is not None:
        return _site(options)
    if len(options.grid) > 1:
        raise ValueError(f"{len(options.grid)} grids are given; run them one by one, or give --site DIR for results")
    from fewshot.benchmark.run_grid import MARKDOWN, run_benchmark
    from fewshot.persistence.files import replacing

    if options.parquet and find_spec("pyarrow") is None:
        raise missing("Parquet needs pyarrow", "parquet")
    if options.parquet and not Path(options.parquet).absolute().parent.is_dir():
        raise ValueError(f"--parquet {options.parquet}: the folder does not exist; create it, or choose another one")
    frame = run_benchmark(
        options.grid[0],
        options.out,
        executor=options.executor,
        jobs=options.jobs,
        episodes=options.frozen,
        cache=options.cache,
        progress=not options.quiet,
    )
    if options.parquet:
        # Opened here, because pyarrow accepts only UTF-8 paths.
        with replacing(options.parquet) as partial, partial.open("wb") as file:
            frame.to_parquet(file, index=False)
    table = (Path(options.out) / MARKDOWN).read_text(encoding="utf-8")
    facts = {"written": options.out, "results": frame.to_dict("records")}
    resumed = frame.attrs["resumed"]
    taken = [f"{counted(resumed, 'unit')} of {len(frame)} taken from an earlier run"] if resumed else []
    written = f"written to {options.out}: report.html, results.csv"
    finish(options, facts, *table.splitlines(), "", *taken, written)
    return int((frame["error"] != "").any())


def _site(options: argparse.Namespace) -> int:
    """Write a page of results."""
    from fewshot.benchmark.site import write_site

    if unused := [name for name in ("parquet", "cache") if getattr(options, name)]:
        raise ValueError(f"--{unused[0]} is for running a grid, and --site only reads results; leave it out")
    site = write_site(options.site, [*options.grid, *([options.frozen] if options.frozen else [])])
    for one in site.mismatched:
        warn(f"{one.source.name}: {one.method}, {one.n_way}-way {one.n_shot}-shot: {one.note}")
    n_left = len(site.left_out)
    left = (
        [f"{counted(n_left, 'file')} without accuracies or tables left out, e.g. {site.left_out[0]}"] if n_left else []
    )
    facts = {"written": str(site.page), "results": site.to_rows(), "left_out": list(site.left_out)}
    finish(options, facts, *left, f"{counted(len(site.results), 'result')} written to {site.page}")
    return 0
