"""Small tools that know nothing of few-shot learning and may be used anywhere.

For example, `containers`, `labels` and `values` convert and check user input, `randomness` and `streams` provide
reproducible random numbers, and `locks`, `threads` and `executors` organise parallel work.
"""
