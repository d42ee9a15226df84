"""The scikit-learn estimators on embeddings.

Start at `base`: ``fit``, ``partial_fit``, ``predict``, editing and calibration, shared by all estimators. `fitted` is
the immutable model behind them: each change returns a new one. `methods` has one estimator per method, `any_learner`
the estimators of any learner, inductive or transductive. `reject_rule` says what is unknown, by a threshold
(`rejection`) on scores (`open_set`); `calibration` refines probabilities, `conformal` gives sets of classes.
"""
