"""Grids of data sets, backbones and learners, compared on the same episodes."""
