"""``fewshot demo``."""

from __future__ import annotations

import argparse

from fewshot.cli.demo.story import run_demo
from fewshot.cli.terminal import say


def demo(options: argparse.Namespace) -> int:
    """Run the demonstration."""
    run_demo(
        options.out,
        train_episodes=options.train_episodes,
        test_episodes=options.episodes,
        seed=options.seed,
        progress=not options.quiet,
        say=say,
    )
    return 0
