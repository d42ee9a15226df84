"""What the options of the commands are for: the help of a command shows those of one purpose together."""

from __future__ import annotations

#: The options of each purpose, as they are listed; all others belong to their command alone, and come first.
PURPOSES = {
    "which images": ("--split", "--path-column", "--label-column", "--root", "--skip-unreadable", "--max-pixels"),
    "network": (
        "--backbone", "--from", "--weights", "--pretrained", "--size", "--crop", "--views", "--bits", "--domain",
        "--cache", "--device",
    ),
    "unknown images": ("--reject", "--none-of-these", "--false-accepts", "--keep-answering", "--unknown-label"),
    "episodes": (
        "--way", "--shot", "--query", "--episodes", "--query-classes", "--small-classes", "--varied", "--by-group",
        "--val-way", "--val-every", "--seed",
    ),
    "output": (
        "--out", "--force", "--report", "--csv", "--spreadsheet", "--decimal-comma", "--json", "--parquet", "--quiet",
    ),
    "every command": ("--plugin", "--verbose", "--help"),
}  # fmt: skip
#: The title of those that belong to their command alone.
OWN = "options"


def purpose_of(flag: str) -> str:
    """Return what an option is for.

    Examples
    --------
    >>> purpose_of("--split"), purpose_of("--port")
    ('which images', 'options')
    """
    return next((purpose for purpose, flags in PURPOSES.items() if flag in flags), OWN)
