"""The options of ``fewshot bench``."""

from __future__ import annotations

import argparse
from typing import Any

from fewshot.cli.arguments import cache, command, file_of, jobs

#: A grid, explained.
EXAMPLE = """a grid:

  way = [5]                      # classes an episode
  shot = [1, 5]                  # support images a class
  query = 15                     # queries a class
  episodes = 600
  seeds = [0]
  sampler = ["fixed"]            # and "varied": way and shot as in the Meta-Dataset
  baseline = "prototypical"      # what all are compared with; default: the first learner

  [[datasets]]
  source = "data/cifar_fs"       # as for evaluate, or built in: "digits", "glyphs"
  split = "test"                 # also name, base (a split), query (in place of the grid's)

  [[backbones]]
  backbone = "tf_efficientnet_lite0"   # a timm name, a checkpoint, or "pixels"
  img_size = 96                        # also name; weights and pretrained as for evaluate

  [[backbones]]
  backbone = "conv4"
  train_on = "glyphs"            # meta-trained on its training classes first
  train = {n_episodes = 500}     # fields as for train; also learner, size, distort

  [[learners]]
  learner = "prototypical"       # metric = "cosine", temperature = 0.1, ...: its parameters
  [[learners]]
  learner = "simpleshot"
  normalization = "CL2N"
  center = "base"                # the mean embedding of the split "train"
  [[learners]]
  learner = "linear-probe"       # a reference: logistic regression
  [[learners]]
  learner = "own"                # that of a checkpoint
"""


def bench_options(commands: Any) -> None:
    """Add the command."""
    bench = command(
        commands,
        "bench",
        "benchmark",
        "compare learners on data sets and backbones, on the same episodes",
        "Run a grid: every data set with every backbone and every learner, on the same episodes.\nWrites results.csv, "
        "results.md, report.html, results.json and episodes.json.\nInterrupted, it goes on where it was.",
    )
    bench.formatter_class = argparse.RawDescriptionHelpFormatter
    bench.epilog = EXAMPLE
    bench.add_argument("grid", metavar="GRID", help="what is compared, a TOML file")
    bench.add_argument("--out", default="bench", metavar="DIR", help="folder of the results (default: %(default)s)")
    bench.add_argument(
        "--executor", choices=("joblib", "serial", "ray"), default="joblib",
        help="processes of this machine, none, or a cluster (extra; RAY_ADDRESS names it) (default: %(default)s)",
    )  # fmt: skip
    bench.add_argument("--jobs", type=jobs, metavar="N", help="processes (default: one a core)")
    bench.add_argument("--episodes", metavar="FILE", help="frozen episodes of another run, which these must be")
    cache(bench)
    bench.add_argument(
        "--parquet", type=file_of("Parquet"), metavar="FILE", help="write the table as Parquet too (extra)"
    )
    bench.add_argument("--quiet", action="store_true", help="no progress bar")
