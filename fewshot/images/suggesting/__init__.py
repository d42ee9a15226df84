"""Which items of a pool to label next: the pool as a strategy sees it, one strategy per file, and the suggestions.

`STRATEGIES` in `fewshot.images.suggesting.suggest` names the strategies.
"""
