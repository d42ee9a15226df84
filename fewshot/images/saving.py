"""The folder of a saved model: what goes into the manifest, and what into each data file.

The folder is untrusted, so everything in it is checked before use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from sklearn.base import clone

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.classifiers.calibration import Calibration, is_score
from fewshot.classifiers.open_set import Background
from fewshot.classifiers.reject_rule import is_reject_rule
from fewshot.data.crop import CROPS, crop_of
from fewshot.data.preprocess import MAPS, SALIENT, Preprocessing
from fewshot.data.views import VIEWS, are_views
from fewshot.embedding.backbones import cached_file, spec_of, why_not_saved
from fewshot.embedding.backbones.limits import MOST_SIDE, is_plain_name
from fewshot.embedding.backbones.presets import located
from fewshot.embedding.checkpoint import Checkpoint, build_learner, describe_learner, write_weights
from fewshot.embedding.domain import Domain
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import choose_device
from fewshot.embedding.own import OwnEmbedder
from fewshot.embedding.sources import OFFLINE_WEIGHTS, Source
from fewshot.errors import ArtifactError, UnknownNameError, brief
from fewshot.images.kept_rows import (
    APPENDED,
    MEMORY,
    SUPPORT,
    is_kept_in_parts,
    read_support,
)
from fewshot.images.learned import Learned, suited
from fewshot.images.memory_files import MemoryFiles, read_learned
from fewshot.images.probe import probe_of, warn_of_code
from fewshot.images.segments import (
    Held,
    Segments,
    large_support_in_parts,
    segments_of,
)
from fewshot.images.stored import backbone_of, described
from fewshot.learners.base import Learner
from fewshot.persistence.arrays import write_arrays
from fewshot.persistence.artifact import Part, load_artifact, version_of, write_artifact
from fewshot.persistence.content import is_number, is_whole, labels_from_json, labels_to_json
from fewshot.persistence.manifest import FORMAT
from fewshot.persistence.tensors import read_tensors, tensors_digest, write_tensors
from fewshot.search.snapshot import INDEXES
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import plain_label
from fewshot.utils.values import ON_ERROR

#: How the network is saved: with its weights, or as the name under which they are found and their hash.
Weights = Literal["embed", "reference"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
#: Key in the manifest for an embedder that only the user can build.
GIVEN = "given"


#: The saved parameters, each with its check; the others follow from the data files.
PARAMS = {
    "on_error": lambda value: value in ON_ERROR,
    "reject": lambda value: value is None or is_score(value) or is_reject_rule(value),
    "unknown_label": lambda value: value is None or isinstance(value, (bool, str)) or is_number(value),
    "index": lambda value: value in INDEXES,
    "keep_support": lambda value: isinstance(value, bool),
    "progress": lambda value: isinstance(value, bool),
}


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
    held : Held
        What the folder holds.
    """

    learned: Learned
    params: dict[str, Any]
    source: dict[str, Any]
    stored: str
    held: Held


def write_model(
    folder: str | Path, learned: Learned, params: Mapping[str, Any], weights: str, held: Held, note: str
) -> Held:
    """Write a model to `folder`; see `FewShotModel.save`, and `write_artifact` for the versions and `note`."""
    if weights not in WEIGHTS:
        raise UnknownNameError("weights", weights, WEIGHTS)
    embedder, fitted = learned.embedder, learned.classifier.model_
    if weights == "embed" and spec_of(embedder.network) is None:
        raise ValueError(
            f"{why_not_saved(embedder.network)}; save with weights='reference', and pass the embedder to load, or make "
            "the network with create_backbone and plain arguments"
        )
    content = _facts(learned, params)
    place, version = os.path.realpath(folder), version_of(folder)
    is_current = version is not None and version == held.versions.get(place)
    sums = held.segments.get(place, Segments()) if is_current else Segments()
    kept = held.rows.get(place, {}) if is_current else {}
    memory = MemoryFiles.of(fitted, sums, kept.get(MEMORY, Segments()))
    parts, rows = memory.parts, {MEMORY: memory.rows}
    content |= memory.content
    if weights == "reference":
        content |= {"source": _source(embedder), "learner": describe_learner(fitted.learner)}
    parts |= _weights_in_parts(embedder, fitted.learner, content, weights)
    if (background := getattr(learned.classifier, "background_", None)) is not None:
        parts["background"] = (None, partial(write_tensors, tensors=background.to_tensors()))
        content["held_out"] = labels_to_json(background.names)
    if learned.support is not None:
        rows[SUPPORT] = large_support_in_parts(kept.get(SUPPORT, Segments()), learned.support)
        if rows[SUPPORT] is None:
            parts["support"] = (None, partial(write_arrays, arrays=learned.support.to_arrays(fitted.classes)))
    found = {name: one for name, one in rows.items() if one is not None}
    if found:
        content |= {"format": FORMAT, APPENDED: {name: one.inline for name, (one, _) in found.items()}}
        parts |= {name: part for _, files in found.values() for name, part in files.items()}
    versions = write_artifact(folder, "classifier", content, parts, {}, held.versions, note)
    in_parts = {name: one for name, (one, _) in found.items()}
    return Held(versions, {**held.segments, place: memory.sums}, {**held.rows, place: in_parts})


def _facts(learned: Learned, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest of a model says of its network, its parameters and its calibration."""
    embedder, calibration = learned.embedder, getattr(learned.classifier, "calibration_", None)
    probe = probe_of(embedder)
    return {
        "backbone": spec_of(embedder.network),
        "fingerprint": embedder.fingerprint,
        "params": {name: plain_label(value) for name, value in {**params, "progress": embedder.progress}.items()},
        "shown": described(learned),
        "calibration": None if calibration is None else calibration.to_dict(),
        **({} if probe is None else {"probe": probe}),
    }


def _weights_in_parts(embedder: Any, learner: Learner, content: Mapping[str, Any], weights: str) -> dict[str, Part]:
    """Return the files with the network, or the learner alone, and with the domain that embeddings are adapted to."""
    parts, state = dict[str, Part](), learner.state_dict()
    if weights == "embed":
        write = partial(write_weights, backbone=embedder.network, learner=learner, preprocessing=embedder.preprocessing)
        described = json.dumps([content["fingerprint"], content["backbone"], describe_learner(learner)])
        parts["weights"] = (tensors_digest(state, {"network": described}), write)
    else:
        parts["learner"] = (tensors_digest(state, {}), partial(write_tensors, tensors=state))
    if (domain := embedder.find_domain()) is not None:
        parts["domain"] = (domain.fingerprint, domain.write)
    return parts


@isolated()
def read_model(folder: str | Path, device: str, embedder: Any = None) -> Saved:
    """Read what `save` wrote; see `FewShotModel.load`."""
    choose_device(device)  # first: a missing device is not an error of the folder
    return load_artifact(folder, "classifier", partial(_rebuild, folder, device, embedder))


def _rebuild(folder: str | Path, device: str, given: Any, manifest: dict[str, Any], paths: dict[str, Path]) -> Saved:
    params = _read_params(manifest["params"])
    embedder, learner, source = _read_embedder(device, given, manifest, paths, params.pop("progress"))
    embedder.set_params(on_error=params["on_error"])
    if "domain" in paths and embedder.domain is None:
        embedder.set_params(domain=Domain.load(paths["domain"]))
        source |= {"domain": embedder.domain} if given is None else {"backbone": embedder}
    if embedder.fingerprint != manifest["fingerprint"]:
        raise ArtifactError(_other_network(folder, manifest, embedder, given is not None))
    fitted, segments, rows = read_learned(manifest, paths, learner)
    _check_answers(embedder, fitted.d)
    warn_of_code(embedder, manifest.get("probe"))
    classifier = FewShotClassifier(learner, **{name: value for name, value in params.items() if name != "keep_support"})
    classifier.adopt(fitted)
    if (calibration := manifest.get("calibration")) is not None:
        classifier.calibration_ = Calibration.from_dict(calibration)
    d = fitted.d
    if "background" in paths:
        tensors, names = read_tensors(paths["background"])[0], labels_from_json(manifest["held_out"])
        classifier.background_ = Background.from_tensors(tensors, names, d)
    support = None
    if SUPPORT in paths:
        states = read_support(manifest, paths, fitted.classes, d)
        support = states[-1][0]
        if is_kept_in_parts(manifest, SUPPORT):
            rows[SUPPORT] = segments_of(states)
    place, stored = os.path.realpath(folder), "embed" if "weights" in paths else "reference"
    held = Held({place: manifest["digest"]}, {place: segments}, {place: rows})
    return Saved(Learned(embedder, classifier, support), params, source, stored, held)


def _read_embedder(
    device: str, given: Any, manifest: dict[str, Any], paths: dict[str, Path], progress: bool
) -> tuple[Any, Learner, dict[str, Any]]:
    """Return embedder, learner and the parameters of the embedder."""
    checkpoint = Checkpoint.open(paths["weights"]) if "weights" in paths else None
    if checkpoint is not None:
        seen = checkpoint.preprocessing
        source: dict[str, Any] = {"backbone": checkpoint.path, "crop": crop_of(seen.crop_mode), "views": seen.views}
        source |= _pool_of(seen)
        if manifest["backbone"] != checkpoint.backbone:
            raise ValueError("its manifest names a different network than its weights")
        learner = build_learner(checkpoint.learner, checkpoint.part("learner."))
    else:
        source = _read_source(manifest["source"], given is not None)
        learner = build_learner(manifest["learner"], read_tensors(paths["learner"])[0])
    if given is not None:
        if isinstance(given, (Embedder, OwnEmbedder)):
            suited(learner, given := clone(given))
            return given, learner.double(), {"backbone": given}
        source = {"backbone": given} | {name: source[name] for name in ("crop", "views", "pool") if name in source}
    embedder = Embedder(**source, device=device, progress=progress)
    if checkpoint is not None and given is None:
        embedder.load(checkpoint)
    return embedder, learner.double(), source


def _check_answers(embedder: Any, d: int) -> None:
    """Raise unless the network computes embeddings of the length `d` of those in the memory."""
    if isinstance(embedder, Embedder):
        embedding = embedder.probe()
        if len(embedding) != d or not np.isfinite(embedding).all():
            raise ValueError(f"its network does not compute embeddings of {d} finite numbers, like those in its memory")


def _other_network(folder: str | Path, manifest: dict[str, Any], embedder: Any, given: bool) -> str:
    """Return the error message for an embedder that is not the model's."""
    if given:
        shown = manifest.get("shown")
        own = str(shown.get("backbone", "") if isinstance(shown, dict) else "") or "another embedder"
        other = backbone_of(embedder)
        if own == other:
            other = f"one of this name with other weights, preprocessing or domain ({embedder.fingerprint[:12]})"
            own = f"{own} ({manifest['fingerprint'][:12]})"
        return (
            f"the model in {folder} was fitted with {brief(own, 200)}, and {other} was given; pass one of the same "
            "name, or with the same network and preprocessing"
        )
    where = "found here" if "source" in manifest else f"in {folder}"
    return (
        f"the weights {where} do not give the network that this model was fitted with; the backbone "
        f"{manifest['backbone']['name']!r:.100} may have changed in the installed timm, or its weights at their source"
    )


def _source(embedder: Any) -> dict[str, Any]:
    """Return the parameters that locate the weights of a named backbone on any machine.

    For a custom embedder, which the user passes to `load`, return its name.
    """
    seen = _changed_look(embedder) if isinstance(embedder, Embedder) else {}
    if spec_of(embedder.network) is None:
        return {GIVEN: getattr(embedder, "name", type(embedder.network).__name__), **seen}
    backbone, pretrained = located(embedder.backbone, embedder.pretrained, embedder.weights)
    parameters = {"backbone": backbone, "weights": embedder.weights, "pretrained": pretrained}
    parameters["img_size"] = embedder.img_size
    by_name = isinstance(embedder.backbone, str) and not Source(embedder.backbone).is_checkpoint
    if not by_name or embedder.weights not in (None, OFFLINE_WEIGHTS):
        raise ValueError(
            "the weights of this network cannot be found by name on another machine; only those of a timm backbone "
            "from the hub or from the extra 'offline' can: leave out weights='reference'"
        )
    # Only if set, so that older versions can read the folder otherwise.
    own = {name: getattr(embedder, name) for name in ("bits", "max_pixels")}
    return parameters | {name: int(value) for name, value in own.items() if value is not None} | seen


def _changed_look(embedder: Embedder) -> dict[str, Any]:
    """Return crop, views and pool if they are not the network's own, so that older versions can read it otherwise."""
    own = Preprocessing.of(getattr(embedder.network, "pretrained_cfg", None) or {}).crop_mode
    seen = embedder.preprocessing
    mode, views = seen.crop_mode, seen.views
    changed = ({} if mode == own else {"crop": crop_of(mode)}) | ({} if views is None else {"views": views})
    return changed | _pool_of(seen)


def _pool_of(seen: Preprocessing) -> dict[str, Any]:
    """Return the parameter `pool` of an embedder, if it is not the default."""
    return {} if seen.pool is None else {"pool": None if seen.pool == MAPS else seen.pool}


# ---- checks ---------------------------------------------------------------------------------------------------------


def _read_params(said: Any) -> dict[str, Any]:
    """Check the saved parameters of a model.

    Raises
    ------
    ValueError
        If one is unknown, missing or invalid.
    """
    params = {"reject": None, **said}  # format 1 did not have it
    if params.keys() != PARAMS.keys():
        raise ValueError(f"its parameters are {list(params)!s:.200}; expected {', '.join(PARAMS)}")
    for name, check in PARAMS.items():
        if not check(params[name]):
            raise ValueError(f"its parameter {name} is {params[name]!r:.60}")
    return params


def _read_source(said: Any, given: bool) -> dict[str, Any]:
    """Check the parameters that locate a network outside the folder.

    Parameters
    ----------
    said : dict
        From the manifest.
    given : bool
        Whether the user has passed the embedder, so that nothing has to be located.

    Raises
    ------
    ValueError
        If it is anything but the name of a timm network and where its weights come from.
    ArtifactError
        If the weights are not on this machine, since loading downloads nothing, or the user must pass the embedder.
    """
    if isinstance(said, dict):
        said = {"crop": None, "views": None, **said}  # older versions had no others
        if said.get("pool") not in (None, SALIENT):
            raise ValueError(f"its pool is {said['pool']!r:.60}; expected {SALIENT}, or null for maps of features")
        if not are_views(said["views"]):
            raise ValueError(f"its views are {said['views']!r:.60}; expected some of {'+'.join(VIEWS)}")
        if said["crop"] is not None and said["crop"] not in list(CROPS):
            raise ValueError(f"its crop is {said['crop']!r:.60}; expected {', '.join(CROPS)}")
    if isinstance(said, dict) and said.keys() - {"pool"} == {GIVEN, "crop", "views"}:
        if not given:
            raise ArtifactError(
                f"the model was fitted with a custom embedder, {said[GIVEN]!r:.60}; pass it to load with embedder="
            )
        return {name: said[name] for name in ("crop", "views", "pool") if name in said}
    always, own = {"backbone", "weights", "pretrained", "img_size", "crop", "views"}, {"bits", "max_pixels", "pool"}
    if not isinstance(said, dict) or said.keys() - own != always:
        raise ValueError(f"its source is {said!r:.100}; expected backbone, weights, pretrained and img_size")
    name, size = said["backbone"], said["img_size"]
    if (
        not is_plain_name(name)
        or said["weights"] not in (None, OFFLINE_WEIGHTS)
        or not isinstance(said["pretrained"], bool)
        or not (size is None or is_whole(size, 1, MOST_SIDE))
        or not is_whole(said.get("bits", 8), 8, 16)
        or not is_whole(said.get("max_pixels", 1), 1, 1 << 40)
    ):
        raise ValueError(f"its source is {said!r:.200}; expected a timm network and the source of its weights")
    if said["pretrained"] and not given and cached_file(name) is None:
        raise ArtifactError(
            f"the weights of {name!r} are not on this machine, and loading a model downloads nothing; download them "
            f"once with Embedder({name!r}, pretrained=True).network, then load it again"
        )
    return said
