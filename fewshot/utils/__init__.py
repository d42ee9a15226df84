"""Small tools that know nothing of few-shot learning and may be used anywhere.

For example, `containers`, `labels` and `values` convert and check user input, `streams` provides reproducible random
numbers, `isolation` shields the library and its host from each other, and `locks`, `threads` and `executors` organise
parallel work.
"""
