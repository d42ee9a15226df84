"""The folder of a saved model: what goes into the manifest, and what into each data file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from fewshot.classifiers.few_shot import FewShotClassifier
from fewshot.classifiers.fitted import FittedModel
from fewshot.embedding.backbones import spec_of, why_not_saved
from fewshot.embedding.checkpoint import Checkpoint, build_learner, describe_learner, write_weights
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import choose_device
from fewshot.embedding.own import OwnEmbedder
from fewshot.embedding.sources import OFFLINE_WEIGHTS, Source
from fewshot.errors import ArtifactError, UnknownNameError
from fewshot.images.content import (
    GIVEN,
    read_calibration,
    read_classes,
    read_params,
    read_source,
    read_statistics,
    statistics_to_tensors,
)
from fewshot.images.learned import Learned
from fewshot.images.support import Support
from fewshot.learners.base import Learner
from fewshot.persistence.artifact import Part, Versions, read_artifact, stamp, write_artifact
from fewshot.persistence.content import errors_of_file, labels_to_json
from fewshot.persistence.tensors import read_tensors, write_tensors
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import plain_label

#: How the network is saved: with its weights, or as the name under which they are found and their hash.
WEIGHTS = ("embed", "reference")


@dataclass(frozen=True, eq=False)
class Saved:
    """The content of a folder.

    Attributes
    ----------
    learned : Learned
        Everything that was learned.
    params : dict
        The parameters of the model.
    source : dict
        The parameters of its embedder.
    stored : {"embed", "reference"}
        How its weights are saved.
    versions : dict
        The version of the folder, keyed by its path.
    """

    learned: Learned
    params: dict[str, Any]
    source: dict[str, Any]
    stored: str
    versions: Versions


def save(
    folder: str | Path, learned: Learned, params: Mapping[str, Any], weights: str, known: Versions | None
) -> Versions:
    """Write a model to `folder`; see `FewShotModel.save`, and `write_artifact` for `known`."""
    if weights not in WEIGHTS:
        raise UnknownNameError("weights", weights, WEIGHTS)
    embedder, fitted = learned.embedder, learned.classifier.model_
    network, learner = embedder.network, fitted.learner
    calibration = getattr(learned.classifier, "calibration_", None)
    if weights == "embed" and spec_of(network) is None:
        raise ValueError(
            f"{why_not_saved(network)}; save with weights='reference', and pass the embedder to load, or make the "
            "network with create_backbone and plain arguments"
        )
    fingerprint = embedder.fingerprint
    content: dict[str, Any] = {
        "backbone": spec_of(network),
        "fingerprint": fingerprint,
        "params": {name: plain_label(value) for name, value in {**params, "progress": embedder.progress}.items()},
        "classes": labels_to_json(fitted.classes),
        "n_support": fitted.n_support.tolist(),
        "calibration": None if calibration is None else calibration.to_dict(),
    }
    memory = statistics_to_tensors(fitted.statistics)
    parts: dict[str, Part] = {"memory": (None, partial(write_tensors, tensors=memory))}
    if weights == "embed":
        write = partial(write_weights, backbone=network, learner=learner, preprocessing=embedder.preprocessing)
        parts["weights"] = (_digest(content, learner), write)
    else:
        content |= {"source": _source(embedder), "learner": describe_learner(learner)}
        parts["learner"] = (None, partial(write_tensors, tensors=learner.state_dict()))
    if learned.support is not None:
        parts["support"] = (None, partial(write_tensors, tensors=learned.support.to_tensors(fitted.classes)))
    return write_artifact(folder, "classifier", content, parts, {}, known)


@isolated()
def load(folder: str | Path, device: str, embedder: Any = None) -> Saved:
    """Read what `save` wrote; see `FewShotModel.load`."""
    choose_device(device)  # first: a missing device is not an error of the folder
    while True:
        before = stamp(folder)
        manifest, paths = read_artifact(folder, "classifier")
        try:
            with errors_of_file(folder, "restore it from a copy, or save again"):
                return _rebuild(folder, device, embedder, manifest, paths)
        except (OSError, ArtifactError):
            if stamp(folder) == before and all(path.exists() for path in paths.values()):
                raise
            # Replaced while it was read, maybe by identical content; if a file is really missing, verification says so.


def _rebuild(folder: str | Path, device: str, given: Any, manifest: dict[str, Any], paths: dict[str, Path]) -> Saved:
    params = read_params(manifest["params"])
    embedder, learner, source = _read_embedder(device, given, manifest, paths, params.pop("progress"))
    embedder.set_params(on_error=params["on_error"])
    if embedder.fingerprint != manifest["fingerprint"]:
        raise ArtifactError(_other_network(folder, manifest, embedder.fingerprint, given is not None))
    classes, n_support = read_classes(manifest["classes"], manifest["n_support"])
    statistics = read_statistics(read_tensors(paths["memory"])[0], learner, n_support)
    fitted = FittedModel.of(learner, classes, n_support, statistics)
    _check_answers(embedder, fitted)
    classifier = FewShotClassifier(learner, **{name: value for name, value in params.items() if name != "keep_support"})
    classifier.adopt(fitted)
    if (calibration := read_calibration(manifest.get("calibration"))) is not None:
        classifier.calibration_ = calibration
    d = fitted.memory.keys.shape[-1]
    support = Support.from_tensors(read_tensors(paths["support"])[0], classes, d) if "support" in paths else None
    versions = {os.path.realpath(folder): manifest["digest"]}
    stored = "embed" if "weights" in paths else "reference"
    return Saved(Learned(embedder, classifier, support), params, source, stored, versions)


def _read_embedder(
    device: str, given: Any, manifest: dict[str, Any], paths: dict[str, Path], progress: bool
) -> tuple[Any, Learner, dict[str, Any]]:
    """Return embedder, learner and the parameters of the embedder."""
    checkpoint = Checkpoint.open(paths["weights"]) if "weights" in paths else None
    if checkpoint is not None:
        source: dict[str, Any] = {"backbone": checkpoint.path}
        if manifest["backbone"] != checkpoint.backbone:
            raise ValueError("its manifest names a different network than its weights")
        learner = build_learner(checkpoint.learner, checkpoint.part("learner."))
    else:
        source = read_source(manifest["source"], given is not None)
        learner = build_learner(manifest["learner"], read_tensors(paths["learner"])[0])
    if given is not None:
        source = {"backbone": given}
    if isinstance(given, (Embedder, OwnEmbedder)):
        return clone(given), learner.double(), source
    embedder = Embedder(**source, device=device, progress=progress)
    if checkpoint is not None and given is None:
        embedder.load(checkpoint)
    return embedder, learner.double(), source


def _check_answers(embedder: Any, fitted: FittedModel) -> None:
    """Raise unless keys are finite and the network computes embeddings of their length."""
    if not torch.isfinite(fitted.memory.keys).all():
        raise ValueError("its memory gives keys that are not finite")
    if isinstance(embedder, Embedder):
        embedding = embedder.probe()
        if len(embedding) != (d := fitted.memory.keys.shape[-1]) or not np.isfinite(embedding).all():
            raise ValueError(f"its network does not compute embeddings of {d} finite numbers, like those in its memory")


def _other_network(folder: str | Path, manifest: dict[str, Any], found: str, given: bool) -> str:
    """Return the error message for an embedder that is not the model's."""
    if given:
        return (
            f"the model in {folder} was fitted with the embedder {manifest['fingerprint'][:12]}, and {found[:12]} was "
            "given; pass one of the same name, or with the same network and preprocessing"
        )
    where = "found here" if "source" in manifest else f"in {folder}"
    return (
        f"the weights {where} do not give the network that this model was fitted with; the backbone "
        f"{manifest['backbone']['name']!r:.100} may have changed in the installed timm, or its weights at their source"
    )


def _digest(content: dict[str, Any], learner: Learner) -> str:
    """Return a digest of the weights of a network and of the learner saved with them."""
    described = [content["fingerprint"], content["backbone"], describe_learner(learner)]
    found = hashlib.sha256(json.dumps(described).encode())
    for name, value in sorted(learner.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()


def _source(embedder: Any) -> dict[str, Any]:
    """Return the parameters that locate the weights of a named backbone on any machine.

    For a custom embedder, which the user passes to `load`, return its name.
    """
    if spec_of(embedder.network) is None:
        return {GIVEN: getattr(embedder, "name", type(embedder.network).__name__)}
    parameters = {name: getattr(embedder, name) for name in ("backbone", "weights", "pretrained", "img_size")}
    by_name = isinstance(embedder.backbone, str) and not Source(embedder.backbone).is_checkpoint
    if not by_name or embedder.weights not in (None, OFFLINE_WEIGHTS):
        raise ValueError(
            "the weights of this network cannot be found by name on another machine; only those of a timm backbone "
            "from the hub or from the extra 'offline' can: leave out weights='reference'"
        )
    # Only if set, so that older versions can read the folder otherwise.
    own = {name: getattr(embedder, name) for name in ("bits", "max_pixels")}
    return parameters | {name: int(value) for name, value in own.items() if value is not None}
