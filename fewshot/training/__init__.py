"""Meta-training: improve an embedding on many small learning tasks.

Start at `trainer` (`MetaTrainer`), with its settings in `config`. `run` is the loop, which validates and keeps
the best weights, `step` is one optimiser step, and `folder` saves what a resumed run needs.
"""
