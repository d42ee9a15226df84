"""Classify and learn images on a device, with numpy, Pillow and onnxruntime only.

`fewshot.export` writes the folder that `load` reads. On the device, ``pip install fewshot-runtime``: a distribution of
its own, without torch, and with the command ``fewshot-runtime``, which `command` defines.

Start at `classifier`. `encoder` runs the network, `model` answers from a `memory` read by a `method`, `graph` checks
untrusted ONNX files, and `saving` defines the folder.
"""

from __future__ import annotations

from fewshot.runtime.classifier import RuntimeClassifier, load

__all__ = ["RuntimeClassifier", "load"]
