"""A learner that is given by its name: its parameters, as a grid search sets them, and its class in pickles."""

from __future__ import annotations

from typing import Any, Self

from fewshot.learners.registry import CarriedLearner, as_learner
from fewshot.utils.carried import carrying, unloaded

PREFIX = "learner__"


class ReachesLearner:
    """Mixin of estimators with a parameter `learner`, whose own parameters can be set although it is a name.

    scikit-learn reaches the parameters of objects only. List it before `BaseEstimator`. A pickle has the class of a
    learner that was registered by hand, so that another process finds it by its name.
    """

    learner: Any

    def set_params(self, **params: Any) -> Self:
        """Set parameters, and those of the learner as ``learner__temperature``.

        A learner given by name is replaced by one built with its defaults, which has such parameters.

        Raises
        ------
        ValueError
            If a parameter is unknown or out of range, or `learner` is None and its parameters are set.
        """
        if asked := next((name for name in params if name.startswith(PREFIX)), None):
            learner = params.get("learner", self.learner)
            if learner is None:
                raise ValueError(
                    f"learner is None, so {asked} cannot be set; give a learner as well, such as learner='discriminant'"
                )
            params["learner"] = as_learner(learner)
        parent: Any = super()
        parent.set_params(**params)
        return self

    def __getstate__(self) -> dict[str, Any]:
        parent: Any = super()
        return carrying(parent.__getstate__(), CarriedLearner.of(getattr(self, "learner", None)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        parent: Any = super()
        parent.__setstate__(unloaded(state))
