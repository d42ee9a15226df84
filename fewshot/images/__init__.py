"""From items to answers: the few-shot model, how it is saved, its pages and its export.

Start at `model` (`FewShotModel`, with ``fit``, ``partial_fit``, ``predict``, ``save``); `image_classifier` adds the
parameters of an embedder. `learned` is the immutable state behind it: each change returns a new one. `saving` writes
and checks the saved folder, and `exporting` writes the folder for devices.
"""
