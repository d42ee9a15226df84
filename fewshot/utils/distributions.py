"""Whether the package is installed twice, as two distributions that share files."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fewshot.errors import DISTRIBUTION

#: The distribution for devices, whose files are all part of the other.
RUNTIME = "fewshot-runtime"


def doubled() -> str:
    """Return what is wrong if both distributions are installed, and the cure; empty otherwise.

    Uninstalling one of them takes files of the other, and installing another version of one changes both.

    Examples
    --------
    >>> doubled()
    ''
    """
    try:
        found = version(DISTRIBUTION), version(RUNTIME)
    except PackageNotFoundError:
        return ""
    return (
        f"{DISTRIBUTION} {found[0]} and {RUNTIME} {found[1]} are both installed and share files; the first is enough: "
        f"pip uninstall {RUNTIME}, then pip install --force-reinstall --no-deps {DISTRIBUTION}"
    )
