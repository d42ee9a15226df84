"""Annotate collections of images, and search stores of their embeddings."""
