"""Labelled images: finding, opening, decoding and preprocessing them, and two data sets without a download.

Start at `images` (`LabeledImages`). `scan` finds files in folders and tables, `opening` takes collections and opens
what they hold, `decode` turns any source into 8-bit RGB, `depth` finds the range of 16-bit images, `preprocess`
makes the pixels that a network takes, and `crop` says which part of a long image that is. `glyphs` and `digits` are
the data sets. `preparing` makes others from published archives.
"""
