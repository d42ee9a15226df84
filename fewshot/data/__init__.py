"""Labelled images: the container that the package passes around, and two data sets that need no download."""
