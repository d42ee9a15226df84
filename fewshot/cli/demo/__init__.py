"""The demonstration: train, learn new classes, cross the domain, add a class, look up.

Start at `story`, which runs the steps in order. `measures` holds what it measures and how, and `page` writes the
report.
"""
