"""Meta-training: improve an embedding on many small learning tasks.

Start at `trainer` (`MetaTrainer`), with its settings in `config`. `run` is the loop, `step` one optimiser step, `tasks`
the split of an episode into support and queries, `validation` keeps the best weights, and `state` saves what a resumed
run needs.
"""
