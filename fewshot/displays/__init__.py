"""Displays in the manner of scikit-learn: made `from_estimator` or from results, and drawn by `plot`.

They draw with matplotlib, on given axes or on a new figure of pyplot, which a notebook shows. Start at `confusion`.
"""
