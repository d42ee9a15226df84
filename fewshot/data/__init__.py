"""Labelled images: finding, opening, decoding and preprocessing them, and two data sets without a download."""
