"""Omniglot with the split of Vinyals et al. (2016): the same as ``fewshot data omniglot``, for a checkout."""

import sys

from fewshot.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "omniglot", *sys.argv[1:]]))
