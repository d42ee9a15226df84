"""Grids of data sets, backbones and learners, compared on the same episodes.

Start at `run`, which runs a whole grid. `grid` reads the TOML file, `sources` opens the images, `embeddings` embeds
each data set once, `tasks` answers the episodes, and `table` and `page` report the results.
"""
