"""What a notebook shows of a fitted model."""

from __future__ import annotations

from fewshot.images.learned import Learned
from fewshot.utils import notebook
from fewshot.utils.text import counted


def model_html(learned: Learned, name: str) -> str:
    """Return the classes with their first pictures, and what the model is made of.

    Parameters
    ----------
    learned : Learned
        What the model has learned.
    name : str
        Name of its class.
    """
    classifier, support, embedder = learned.classifier, learned.support, learned.embedder
    shown, some = notebook.MOST_CLASSES, notebook.MOST_CLASSES + notebook.LISTED
    labels, counts = classifier.classes_, classifier.n_support_
    first = labels[:some].tolist()
    pictures = {label: () if support is None else support.of(label).thumbnails for label in first[:shown]}
    said = notebook.classes(pictures, dict(zip(first, counts[:some].tolist(), strict=True)), len(labels))
    spec = getattr(embedder.network, "fewshot_spec", None)
    network = spec["name"] if spec else getattr(embedder, "name", type(embedder.network).__name__)
    calibrated = ", calibrated" if hasattr(classifier, "calibration_") else ""
    made_of = f"{network}, {classifier.learner_.name}{calibrated}"
    lead = f"{counted(len(labels), 'class')} from {counted(int(counts.sum()), 'item')}; {made_of}"
    return notebook.fragment(name, lead, said)
