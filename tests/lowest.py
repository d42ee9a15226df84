"""Print the lowest versions that setup.cfg allows, as requirements for pip; see `make lowest`."""

import configparser
import re
from pathlib import Path


def requirements(extra):
    """Yield the requirements of an extra, with those of the extras it includes; of the package itself for None."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    listed = setup["options"]["install_requires"] if extra is None else setup["options.extras_require"][extra]
    for line in filter(None, listed.splitlines()):
        if own := re.fullmatch(rf"{setup['metadata']['name']}\[(.*)\]", line):
            for other in own[1].split(","):
                yield from requirements(other)
        else:
            yield line


def constraints():
    """Return each requirement, pinned to its lower bound if it has one."""
    every = [*requirements(None), *requirements("test")]
    return sorted({line.replace(">=", "==") for line in every})


if __name__ == "__main__":
    print("\n".join(constraints()))
