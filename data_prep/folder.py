"""A folder of your own, split by class: the same as ``fewshot data folder``, for a checkout."""

import sys

from fewshot.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "folder", *sys.argv[1:]]))
