"""Write and read files safely: whole-file writes, artifact folders, locks, tensors, labels as JSON, provenance."""
