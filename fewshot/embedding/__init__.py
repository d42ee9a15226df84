"""From images to embeddings: networks, their weights and their preprocessing."""
