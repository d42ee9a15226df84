"""A classifier as a folder: what of it goes into the manifest, what into which data file."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from fewshot.artifact import Part, read_artifact, stamp, write_artifact
from fewshot.backbones import spec_of
from fewshot.calibration.choice import Calibration
from fewshot.classifier import FewShotClassifier
from fewshot.embedding.checkpoint import Checkpoint
from fewshot.embedding.sources import OFFLINE_WEIGHTS, Source
from fewshot.errors import ArtifactError, UnknownNameError
from fewshot.fitted import FittedModel
from fewshot.labels import labels_from_json, labels_to_json
from fewshot.learners.base import Learner
from fewshot.model.inputs import on_invalid
from fewshot.statistics import Statistics
from fewshot.stored import write_tensors
from fewshot.support import Support
from fewshot.weights import build_learner, describe_learner, write_weights

if TYPE_CHECKING:
    from fewshot.model.image_classifier import FewShotImageClassifier

#: What of the network is written: its weights, or the name by which they are found and their hash.
WEIGHTS = ("embed", "reference")
#: Names in the manifest an embedder that only its user can make.
GIVEN = "given"
M = TypeVar("M", bound="FewShotImageClassifier")
#: Parameters of the classifier that are saved; the others follow from the data files.
_PARAMS = ("on_error", "reject", "unknown_label", "index", "keep_support", "progress")
#: Fields of `Statistics` that hold tensors by name.
_FIELDS = ("sums", "totals", "support")


def save(model: FewShotImageClassifier, folder: str | Path, weights: str) -> None:
    """Write `model` to `folder`; see `FewShotImageClassifier.save`."""
    if weights not in WEIGHTS:
        raise UnknownNameError("weights", weights, WEIGHTS)
    embedder, fitted = model.embedder_, model.classifier_.model_
    network, learner = embedder.network, fitted.learner
    calibration = getattr(model.classifier_, "calibration_", None)
    if weights == "embed" and spec_of(network) is None:
        raise ValueError(
            "the network was made by hand, so no file can say how to build it; save with weights='reference', and "
            "give the embedder to load, or make the network with create_backbone"
        )
    fingerprint = embedder.fingerprint
    content: dict[str, Any] = {
        "backbone": spec_of(network),
        "fingerprint": fingerprint,
        "params": {name: plain(getattr(model, name)) for name in _PARAMS},
        "classes": labels_to_json(fitted.classes),
        "n_support": fitted.n_support.tolist(),
        "calibration": None if calibration is None else calibration.to_dict(),
    }
    memory = _statistics_to_tensors(fitted.statistics)
    parts: dict[str, Part] = {"memory": (None, partial(write_tensors, tensors=memory))}
    if weights == "embed":
        write = partial(write_weights, backbone=network, learner=learner, preprocessing=embedder.preprocessing)
        parts["weights"] = (_digest(content, learner), write)
    else:
        content |= {"source": _source(embedder), "learner": describe_learner(learner)}
        parts["learner"] = (None, partial(write_tensors, tensors=learner.state_dict()))
    if model.support_ is not None:
        parts["support"] = (None, partial(write_tensors, tensors=model.support_.to_tensors(fitted.classes)))
    write_artifact(folder, "classifier", content, parts, caches={})


def load(cls: type[M], folder: str | Path, device: str, embedder: Any = None) -> M:
    """Return the classifier that `save` wrote; see `FewShotImageClassifier.load`."""
    while True:
        before = stamp(folder)
        manifest, paths = read_artifact(folder, "classifier")
        try:
            return _rebuild(cls, folder, device, embedder, manifest, paths)
        except (OSError, RuntimeError, ValueError):  # safetensors raises RuntimeError for a file gone
            if stamp(folder) == before and all(path.exists() for path in paths.values()):
                raise
            # Replaced meanwhile, maybe by what was there before; where a file is really missing, verifying says so.


def _rebuild(
    cls: type[M], folder: str | Path, device: str, given: Any, manifest: dict[str, Any], paths: dict[str, Path]
) -> M:
    if "weights" in paths:
        checkpoint = Checkpoint.open(paths["weights"])
        source: dict[str, Any] = {"backbone": checkpoint.path}
        learner = build_learner(checkpoint.learner, checkpoint.part("learner."))
    else:
        source = manifest["source"]
        learner = build_learner(manifest["learner"], load_file(paths["learner"]))
    params = {"reject": None, **manifest["params"]}  # format 1 had none
    if given is not None:
        source = {"backbone": given}
    elif GIVEN in source:
        raise ArtifactError(
            f"the classifier in {folder} was fitted with an embedder of one's own, {source[GIVEN]!r}; give it: "
            "FewShotImageClassifier.load(folder, embedder=...)"
        )
    model = cls(**source, learner=learner, device=device, **params)
    embedder = model._make_embedder()
    if embedder.fingerprint != manifest["fingerprint"]:
        raise ArtifactError(_other_network(folder, manifest, embedder.fingerprint, given is not None))
    classifier = FewShotClassifier(
        learner,
        index=params["index"],
        on_invalid=on_invalid(params["on_error"]),
        reject=params["reject"],
        unknown_label=params["unknown_label"],
    )
    classes = labels_from_json(manifest["classes"])
    statistics = _statistics_from_tensors(load_file(paths["memory"]), len(classes))
    n_support = np.array(manifest["n_support"], dtype=np.int64)
    classifier.adopt(FittedModel.of(learner.double(), classes, n_support, statistics, params["index"]))
    if calibration := manifest.get("calibration"):
        classifier.calibration_ = Calibration(**calibration)
    support = Support.from_tensors(load_file(paths["support"]), classes) if "support" in paths else None
    model._stored = "embed" if "weights" in paths else "reference"
    return model.publish(embedder, classifier, support)


def _other_network(folder: str | Path, manifest: dict[str, Any], found: str, given: bool) -> str:
    """Return in a sentence that the embedder is not that of the classifier."""
    if given:
        return (
            f"the classifier in {folder} was fitted with the embedder {manifest['fingerprint'][:12]}, and {found[:12]} "
            "was given; give the one of the same name, or of the same network and preprocessing"
        )
    where = "found here" if "source" in manifest else f"in {folder}"
    return (
        f"the weights {where} do not make the network that this classifier was fitted with; the backbone "
        f"{manifest['backbone']['name']!r} may have changed in the installed timm, or its weights where they come from"
    )


def _digest(content: dict[str, Any], learner: Learner) -> str:
    """Return what stands for the weights of a network, and for the learner that is kept with them."""
    described = [content["fingerprint"], content["backbone"], describe_learner(learner)]
    found = hashlib.sha256(json.dumps(described).encode())
    for name, value in sorted(learner.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()


def _source(embedder: Any) -> dict[str, Any]:
    """Return the parameters that find the weights of a named backbone again, wherever its package or the hub is.

    For an embedder that the user has made it is what that is called: `load` is given it.
    """
    if spec_of(embedder.network) is None:
        return {GIVEN: getattr(embedder, "name", type(embedder.network).__name__)}
    parameters = {name: getattr(embedder, name) for name in ("backbone", "weights", "pretrained", "img_size")}
    by_name = isinstance(embedder.backbone, str) and not Source(embedder.backbone).is_checkpoint
    if not by_name or embedder.weights not in (None, OFFLINE_WEIGHTS):
        raise ValueError(
            "the weights of this network have no name by which they could be found elsewhere; only those of a timm "
            "backbone from the hub or from the extra 'offline' have: save with weights='embed'"
        )
    # Only where they were given: so that older versions can read what does not need them.
    own = {name: getattr(embedder, name) for name in ("bits", "max_pixels")}
    return parameters | {name: int(value) for name, value in own.items() if value is not None}


def plain(value: Any) -> Any:
    """Return a scalar of numpy as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _statistics_to_tensors(statistics: Statistics) -> dict[str, Tensor]:
    tensors = {f"{part}.{name}": value for part in _FIELDS for name, value in getattr(statistics, part).items()}
    return {"count": statistics.count, **tensors}


def _statistics_from_tensors(tensors: dict[str, Tensor], n_way: int) -> Statistics:
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _FIELDS}
    for name, value in tensors.items():
        if name != "count":
            part, _, key = name.partition(".")
            parts[part][key] = value
    return Statistics(n_way, tensors["count"], **parts)
