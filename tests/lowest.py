"""Print the lowest versions that setup.cfg allows, as requirements for pip; see `make lowest`."""

import configparser
import re
from pathlib import Path


def requirements(extra):
    """Yield what an extra needs, with what it takes of other extras; None for the package itself."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    listed = setup["options"]["install_requires"] if extra is None else setup["options.extras_require"][extra]
    for line in filter(None, listed.splitlines()):
        if own := re.fullmatch(r"fewshot\[(.*)\]", line):
            for other in own[1].split(","):
                yield from requirements(other)
        else:
            yield line


def constraints():
    """Return each lower bound as the one version that is allowed."""
    every = [*requirements(None), *requirements("test")]
    return sorted({re.sub(r"\[.*\]", "", line).replace(">=", "==") for line in every if ">=" in line})


if __name__ == "__main__":
    print("\n".join(constraints()))
