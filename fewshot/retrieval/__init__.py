"""Annotate collections of images, and search stores of their embeddings.

Start at `annotate`, which turns a stream of images into vectors and labels, and `retrieve`, which finds similar
records. `stores` are the collections, `table` is their Parquet form, and `work` annotates a large folder in resumable
shards. For both, `remote` makes a running service the model.
"""
