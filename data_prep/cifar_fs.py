"""CIFAR-FS, or FC100 with ``--splits fc100``: the same as ``fewshot data cifar-fs``, for a checkout."""

import sys

from fewshot.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "cifar-fs", *sys.argv[1:]]))
