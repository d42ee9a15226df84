"""What is written to disk: whole files, artifact folders, tensors, labels, and where they came from."""
