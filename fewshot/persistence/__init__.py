"""Write and read files safely: atomic writes, artifact folders, locks, tensors, labels as JSON, provenance.

Start at `artifact`: every saved folder is a manifest and data files named by content, replaced in one step. `files`
does the same for single files, `locking` admits one writer at a time, and `tensors` reads and writes safetensors. What
a folder contains is decided by its owner, such as `fewshot.images.saving`.
"""
