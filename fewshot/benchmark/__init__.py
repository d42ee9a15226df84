"""Grids of data sets, backbones and learners, compared on the same episodes.

Start at `run_grid`, which runs a whole grid. `grid_file` reads the TOML file, `sources` opens the images, `backbones`
trains and checks the networks, `embeddings` embeds each data set once, `methods` builds the learners, `references` the
classifiers of scikit-learn, `tasks` answers the episodes, `frozen` pins them, `table` and `page` report the results.
"""
