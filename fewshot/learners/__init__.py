"""Learners: one method per file, with its formula and its paper in the class docstring.

Start at `base` (`Learner`, the contract), then read `prototypical`, the simplest method. `memory` has the
statistics that support sets add up to, and the keys that queries are compared with. Each class registers itself with
``@register_learner``; `registry` imports the files on demand, so nothing is imported here.
"""
