"""Keys that come and go while others search: a large immutable base, a small exact delta, and tombstones.

A writer never changes what readers see: it publishes a new state that shares the base and the rows of the delta with
the one before. Adding a key costs the same whether there are a thousand others or a million. Where the delta or the
dead have become many, they are merged into a new base: at once where that is quick, else in the background.
"""
