"""Check results against frozen episodes, and pair those that were measured on the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fewshot.benchmark.result import Result
from fewshot.benchmark.result_files import ResultFiles
from fewshot.episodes.evaluate import mean_and_ci95

#: Two accuracies that differ by less are the same, written with other digits.
SAME = 5e-5


def checked(found: ResultFiles) -> list[Result]:
    """Return all results, with what the frozen episodes say of them and with paired differences.

    A result that states a digest is compared with all frozen sets; one of a grid takes the digest of the frozen file
    next to it. A result with the accuracy of each episode is compared with the row it names as ``against``, by default
    the baseline of a grid on the same episodes. Where a file repeats a row of a grid to add the accuracies of its
    episodes, the two become one.
    """
    cells = {cell["sha256"]: cell for cell in found.cells}
    results = _merged([_frozen(one, found.cells, cells) for one in found.results])
    same: dict[str, list[Result]] = {}
    for one in results:
        if one.digest:
            same.setdefault(one.digest, []).append(one)
    return [_paired(one, same.get(one.digest, [])) for one in results]


def _frozen(one: Result, all_cells: Sequence[Mapping[str, Any]], cells: Mapping[str, Mapping[str, Any]]) -> Result:
    """Return a result with whether its episodes are frozen ones."""
    if not one.digest:
        name = one.source.name.replace("results.json", "episodes.json")
        beside = {name, f"{one.source.name.removesuffix('.json')}_episodes.json"}
        own = [cell for cell in all_cells if cell["file"] in beside and _sizes(cell) == one.sizes]
        if one.n_seeds > 1:
            return replace(one, frozen=True) if len(own) == one.n_seeds else one
        return replace(one, digest=own[0]["sha256"], frozen=True) if len(own) == 1 else one
    cell = cells.get(one.digest)
    if cell is None:
        files = ", ".join(dict.fromkeys(cell["file"] for cell in all_cells)) or "none was given"
        return replace(one, frozen=False, note=f"its episodes are not among the frozen ones ({files})")
    sizes = _sizes(cell)
    if any(mine and mine != theirs for mine, theirs in zip(one.sizes, sizes, strict=True)):  # a row may leave sizes out
        said = f"{sizes[1]}-way {sizes[2]}-shot of {sizes[0]}, {sizes[5]} episodes"
        return replace(one, frozen=False, note=f"its episodes are those of {cell['file']} for {said}, not as stated")
    return replace(one, frozen=True, split=cell["split"] or one.split, n_query=sizes[3], n_episodes=sizes[5])


def _sizes(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    spread, whole = str(cell["query_classes"]), ("n_way", "n_shot", "n_query")
    return cell["dataset"], *(cell.get(name, 0) for name in whole), spread, cell["n_episodes"]


def _merged(results: Sequence[Result]) -> list[Result]:
    """Return the results, where one that repeats a row of a grid only adds its accuracies."""
    first: dict[tuple[Any, ...], int] = {}
    made: list[Result] = []
    for one in sorted(results, key=lambda one: one.accuracies is not None):
        place = (one.digest, one.method, one.backbone)
        if one.digest and one.frozen and place in first:
            i = first[place]
            if abs(made[i].accuracy - one.accuracy) < SAME and one.accuracies is not None:
                made[i] = replace(made[i], accuracies=one.accuracies)
                continue
        first.setdefault(place, len(made))
        made.append(one)
    return made


def _paired(one: Result, same: Sequence[Result]) -> Result:
    """Return a result with its paired difference, if there is what it can be compared with."""
    if one.accuracies is None or one.frozen is False or not np.isnan(one.change):
        return one
    baselines = [other.against for other in same if other.against and other.backbone == one.backbone]
    against = one.against or next(iter(baselines), "")
    if not against or against == one.method:
        return replace(one, against="")
    others = [other for other in same if other.method == against]
    others.sort(key=lambda other: other.backbone != one.backbone)
    found = next((other.accuracies for other in others if other.accuracies is not None), None)
    if found is None:
        note = f"no file has the accuracies of {against!r} on each of its episodes"
        return replace(one, against="", note=one.note or note)
    change, ci95 = mean_and_ci95(one.accuracies - found)
    return replace(one, against=against, change=change, change_ci95=ci95)
