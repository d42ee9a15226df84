"""From images to embeddings: networks, their weights and their preprocessing.

Start at `embedder` (`Embedder`). `sources` finds the network, `network` embeds with it, and `cache` stores the
results. `checkpoint` is the file format of trained weights, `own` wraps custom embedders, `base` is what both embedders
are, and `backbones` creates the networks.
"""
