"""Stores of embeddings: in memory, PostgreSQL or Qdrant.

Start at `base` (`Store`, the interface). There is one store per file: `faiss`, `pgvector`, `qdrant`. `records`
checks what goes in; `memory` is a classifier whose memory is a store.
"""
