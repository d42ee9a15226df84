"""A classifier on a device: it answers and learns from images with numpy, Pillow and onnxruntime alone.

`fewshot.export` writes the folder that `load` reads. On the device, without torch::

    pip install --no-deps fewshot
    pip install numpy Pillow onnxruntime filelock
"""

from __future__ import annotations

from fewshot.runtime.classifier import RuntimeClassifier, load

__all__ = ["RuntimeClassifier", "load"]
