"""``fewshot demo`` and its options."""

from __future__ import annotations

import argparse

from fewshot.cli.options import episodes, seed, shared
from fewshot.cli.tables import finish
from fewshot.cli.terminal import say


def demo_options(demo: argparse.ArgumentParser) -> None:
    """Define ``fewshot demo``."""
    demo.description = (
        "Meta-train a small network on characters, then learn unseen classes (other characters, real handwritten "
        "digits) from 1 and 5 images each. Needs no download, and about two minutes on two cores. Prints a table and "
        "writes results.json and report.html."
    )
    demo.add_argument("--out", default="demo", metavar="DIR", help="results folder (default: %(default)s)")
    for name, value, what in (("train-episodes", 500, "meta-training"), ("episodes", 600, "test")):
        help = f"number of {what} episodes (default: %(default)s)"
        demo.add_argument(f"--{name}", type=episodes, default=value, metavar="N", help=help)
    demo.add_argument("--seed", type=seed, default=0, help="seed of data, weights and episodes (default: %(default)s)")
    shared(demo, "--json", "--quiet")


def demo(options: argparse.Namespace) -> int:
    """Run the demonstration."""
    from fewshot.cli.demo.story import run_demo

    found = run_demo(
        options.out,
        train_episodes=options.train_episodes,
        test_episodes=options.episodes,
        seed=options.seed,
        progress=not options.quiet,
        say=say,
    )
    finish(options, found.results)
    return 0
