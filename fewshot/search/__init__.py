"""Similarity and nearest-neighbour search over labelled keys that change while others search.

From the formula up: `similarity` compares queries with keys, picks the best, and searches an immutable set of keys
exactly; `single` does so for one query. `snapshot` searches it with FAISS (`approximate`), whose index it builds in
the `background` and tunes with queries that have known answers (`trials`). `state` is what a reader sees at one
moment: a large immutable base, a small exact delta, and marks on removed keys.

`index` is the public `PrototypeIndex`. It publishes one state after another. Each shares the base and the delta's rows
with the one before, so adding a key costs the same for a thousand keys as for a million. Once the delta or the removed
keys are many, it compacts all into a new base: at once if that is quick, else in the background.

`growing` is the same for classifiers: versions that may branch, each with a key for each class.

`limits` says from how many keys FAISS is faster, and `packing` keeps keys in half precision or 8 bits. `saving` is the
index's folder, and `faiss_file` checks FAISS's part of it before FAISS reads it.
"""
