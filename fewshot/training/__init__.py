"""Meta-training: improve an embedding on many small learning tasks.

Start at `trainer` (`MetaTrainer`), with its settings in `config`. `run` is the loop, `step` one optimiser
step, `validation` keeps the best weights, and `folder` saves what a resumed run needs.
"""
