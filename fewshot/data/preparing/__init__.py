"""Prepared data: from published archives, or a folder of your own, to one table with splits by class.

One file per data set, each with a function ``prepare``; `splits` holds the published classes of each split, and
`common` what they share. The command is ``fewshot data``.
"""
