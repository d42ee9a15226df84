"""Many images: annotated, and found again among stored embeddings."""
