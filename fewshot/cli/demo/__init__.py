"""The demonstration: train, learn new classes, cross the domain, add a class, look up.

Start at `story`, which runs the steps in order. `measures` holds what it measures and how, `page` writes the report,
and `command` is ``fewshot demo``.
"""
