"""The embeddings of a run: each data set is embedded once by each backbone, in chunks, and stored in the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.benchmark.grid import Backbone
from fewshot.benchmark.sources import Measured
from fewshot.benchmark.tasks import Part, backbone_key, embed_part, key_of
from fewshot.embedding.cache import VERSION
from fewshot.persistence.files import open_regular, replacing, sync
from fewshot.persistence.sealed import seal, seal_fits
from fewshot.utils.executors import Executor, Failure

#: Images per chunk, which is the most that an interruption loses.
PART = 1024
#: Shows the progress of tasks and passes their outcomes on.
Watch = Callable[[str, Iterator[tuple[int, Any]], int], Iterator[tuple[int, Any]]]


@dataclass(frozen=True, eq=False)
class EmbeddedDataset:
    """A data set embedded by a backbone.

    Attributes
    ----------
    data : Measured
        The images.
    backbone : Backbone
        The network.
    key : str
        Key of the embeddings.
    base : str
        Key of the base split's embeddings; empty if no learner needs them.
    """

    data: Measured
    backbone: Backbone
    key: str
    base: str


class Embeddings:
    """A folder of embeddings, keyed by the content of the images and the identity of the network.

    Parameters
    ----------
    folder : path
        The folder.
    cache : path, optional
        See `Embedder`.

    Attributes
    ----------
    failed : dict of str to Failure
        Why embedding failed, by key.
    """

    def __init__(self, folder: Path, cache: str | Path | None) -> None:
        self.folder, self.cache = folder, None if cache is None else str(cache)
        self.failed: dict[str, Failure] = {}

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / f"{key}.npy"

    def make(
        self, workers: Executor, data: Sequence[Measured], backbones: Sequence[Backbone], watch: Watch
    ) -> list[EmbeddedDataset]:
        """Embed each data set with each backbone, unless its embeddings are stored already."""
        found, wanted = [], {}
        for backbone in backbones:
            network = backbone_key(backbone)
            for one in data:
                key, base = key_of("embeddings", VERSION, network, one.digest), ""
                wanted[key] = backbone, network, one.data.images
                if one.base is not None:
                    base = key_of("embeddings", VERSION, network, one.base_digest)
                    wanted[base] = backbone, network, one.base.images
                found.append(EmbeddedDataset(one, backbone, key, base))
        self._embed(workers, wanted, watch)
        return found

    def mean(self, key: str) -> tuple[float, ...]:
        """Return the mean embedding of a key."""
        return tuple(np.load(self.path(key)).mean(0, dtype=np.float64).tolist())

    def _embed(self, workers: Executor, wanted: Mapping[str, tuple[Backbone, str, NDArray[Any]]], watch: Watch) -> None:
        parts = {
            key: [
                Part(key, start, backbone, network, images[start : start + PART], self.cache)
                for start in range(0, len(images), PART)
            ]
            for key, (backbone, network, images) in wanted.items()
            if not _is_stored(self.path(key), len(images))
        }
        missing = [part for own in parts.values() for part in own if not _is_stored(self._part(part), len(part.images))]
        outcomes = workers.map(embed_part, [(part,) for part in missing])
        for i, outcome in watch("embedding", outcomes, len(missing)):
            if isinstance(outcome, Failure):
                self.failed[missing[i].key] = replace(outcome, error=f"embedding failed: {outcome.error}")
            else:
                _save(self._part(missing[i]), outcome)
        for key, own in parts.items():
            if key not in self.failed:
                _save(self.path(key), np.concatenate([np.load(self._part(part)) for part in own]))
                for part in own:
                    self._part(part).unlink()

    def _part(self, part: Part) -> Path:
        return self.folder / f"{part.key}-{part.start}.npy"


def _is_stored(path: Path, n: int) -> bool:
    """Whether a file holds `n` rows, undamaged."""
    try:
        with open_regular(path) as file:
            if not seal_fits(file):
                return False
        return len(np.load(path, mmap_mode="r", allow_pickle=False)) == n
    except (OSError, ValueError, EOFError):
        return False


def _save(path: Path, array: NDArray[Any]) -> None:
    with replacing(path) as partial:
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        seal(partial)
        sync(partial)
