"""From the containers in which people keep labels and embeddings to numpy arrays, with the same rules everywhere.

Needs nothing but numpy, so that a device can use it, too.
"""
