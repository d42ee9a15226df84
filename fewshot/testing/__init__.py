"""Checks for plug-ins: that a learner fulfils the contract, and that an image classifier follows scikit-learn.

Start at `learner` (`check_learner`). The tests of this package run the same checks on every registered learner.
"""

from __future__ import annotations

from fewshot.images.estimator_checks import check_image_estimator
from fewshot.testing.learner import check_learner, learner_checks

__all__ = ["check_image_estimator", "check_learner", "learner_checks"]
