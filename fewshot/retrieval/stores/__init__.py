"""Stores of embeddings: where the memory lives when it is not in this process."""
