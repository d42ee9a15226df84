"""Stores of embeddings: in memory, PostgreSQL or Qdrant."""
