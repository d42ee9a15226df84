"""From images to embeddings: networks, their weights and their preprocessing.

Start at `embedder` (`Embedder`). `sources` finds the weights, `network` holds the network on its device, `batches`
embeds a collection, and `cache` stores the results. `checkpoint` is the file format of trained weights, `own` wraps
custom embedders, and `backbones` creates the networks.
"""
