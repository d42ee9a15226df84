"""The embeddings of a run: each data set is embedded once by each backbone, in chunks, and stored in the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.benchmark.backbones import backbone_embedder, backbone_key
from fewshot.benchmark.given import GivenEmbeddings
from fewshot.benchmark.grid_file import GIVEN, PIXELS, Backbone, LearnerSpec
from fewshot.benchmark.methods import applies, is_local
from fewshot.benchmark.sources import Measured
from fewshot.benchmark.tasks import key_of
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.cache import VERSION
from fewshot.embedding.embedder import Embedder
from fewshot.persistence.files import open_regular, replacing, sync
from fewshot.persistence.sealed import seal, seal_fits
from fewshot.utils.executors import Executor, Failure
from fewshot.utils.progress import progress_bar
from fewshot.utils.threads import one_thread

#: Images per chunk, which is the most that an interruption loses.
PART = 1024

#: The embedder that this process used last.
_loaded: dict[tuple[str, str | None], Embedder] = {}


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
        Key of the embeddings of whole images; empty if no learner compares them.
    maps : str
        Key of the maps of features; empty if no learner compares them.
    base : str
        Key of the base split's embeddings; empty if no learner needs them.
    """

    data: Measured
    backbone: Backbone
    key: str
    maps: str
    base: str


class Embeddings:
    """A folder of embeddings, keyed by the content of the images and the identity of the network.

    Parameters
    ----------
    folder : path
        The folder.
    cache : path, optional
        See `Embedder`.
    progress : bool
        Whether to show a progress bar.

    Attributes
    ----------
    failed : dict of str to Failure
        Why embedding failed, by key.
    """

    def __init__(self, folder: Path, cache: str | Path | None, progress: bool) -> None:
        self.folder, self.cache, self.progress = folder, None if cache is None else str(cache), progress
        self.failed: dict[str, Failure] = {}

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / f"{key}.npy"

    def make(
        self,
        workers: Executor,
        data: Sequence[Measured],
        backbones: Sequence[Backbone],
        learners: Sequence[LearnerSpec],
    ) -> list[EmbeddedDataset]:
        """Embed each data set with each backbone as the learners need it, unless its embeddings are stored already."""
        wanted: dict[str, tuple[NDArray[Any], Backbone, str, bool]] = {}
        found = []
        for backbone in backbones:
            kinds = {is_local(method, backbone) for method in learners if applies(method, backbone)}
            networks = {maps: backbone_key(backbone, maps=maps) for maps in kinds}
            for one in (one for one in data if not one.is_given):
                keys = {maps: key_of("embeddings", VERSION, network, one.digest) for maps, network in networks.items()}
                wanted |= {key: (one.data.images, backbone, networks[maps], maps) for maps, key in keys.items()}
                base = ""
                if one.base is not None and False in networks:
                    base = key_of("embeddings", VERSION, networks[False], one.base_digest)
                    wanted[base] = one.base.images, backbone, networks[False], False
                found.append(EmbeddedDataset(one, backbone, keys.get(False, ""), keys.get(True, ""), base))
        for one in data:
            if isinstance(one.data, GivenEmbeddings):
                key = key_of("given", one.digest)
                wanted[key] = one.data.images, one.data.backbone, "", False
                found.append(EmbeddedDataset(one, one.data.backbone, key, "", ""))
        self._embed(workers, wanted)
        return found

    def mean(self, key: str) -> tuple[float, ...]:
        """Return the mean embedding of a key."""
        return tuple(np.load(self.path(key)).mean(0, dtype=np.float64).tolist())

    def _embed(self, workers: Executor, wanted: Mapping[str, tuple[NDArray[Any], Backbone, str, bool]]) -> None:
        parts = {
            key: {
                self.folder / f"{key}-{start}.npy": (images[start : start + PART], backbone, network, maps, self.cache)
                for start in range(0, len(images), PART)
            }
            for key, (images, backbone, network, maps) in wanted.items()
            if not _is_stored(self.path(key), len(images))
        }
        missing = [
            (key, path, arguments)
            for key, own in parts.items()
            for path, arguments in own.items()
            if not _is_stored(path, len(arguments[0]))
        ]
        outcomes = workers.map(embed_part, [arguments for *_, arguments in missing])
        for i, outcome in progress_bar(len(missing), "part", show=self.progress, desc="embedding", iterable=outcomes):
            key, path, _ = missing[i]
            if isinstance(outcome, Failure):
                self.failed[key] = replace(outcome, error=f"embedding failed: {outcome.error}")
            else:
                _save(path, outcome)
        for key, own in parts.items():
            if key not in self.failed:
                _save(self.path(key), np.concatenate([np.load(path) for path in own]))
                for path in own:
                    path.unlink()


def embed_part(
    images: NDArray[Any], backbone: Backbone, network: str, maps: bool, cache: str | None
) -> NDArray[np.float32]:
    """Return the embeddings of a chunk of images; a process loads a network once for any number of chunks.

    Parameters
    ----------
    images : array
        Pixels or paths; or embeddings, which are returned.
    backbone : Backbone
        The network.
    network : str
        Its `backbone_key`.
    maps : bool
        Whether to keep maps of features.
    cache : str or None
        See `Embedder`.
    """
    if backbone.backbone == GIVEN:
        return images
    with one_thread():
        if backbone.backbone == PIXELS:
            return as_pixels(images)
        key = network, cache
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = backbone_embedder(backbone, cache, maps=maps)
        return _loaded[key].transform(images)


def as_pixels(images: NDArray[Any]) -> NDArray[np.float32]:
    """Return pixels as embeddings: grey images of 28 x 28, in 0..1."""
    grey = Preprocessing(1, 28, 28)
    pixels = np.stack([grey(image).ravel() for image in images])
    return pixels.astype(np.float32) / np.float32(255)


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
