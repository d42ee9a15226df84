"""The demonstration: train, learn new classes, cross the domain, add a class, look up.

Start at `story`, which runs the steps in order. `incremental` adds the class and looks up, `result` holds the numbers,
and `page` writes the report.
"""
