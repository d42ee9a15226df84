"""The scikit-learn estimators on embeddings.

Start at `base`: ``fit``, ``partial_fit``, ``predict``, editing and calibration, shared by all estimators. `fitted` is
the immutable model behind them, made from a `summary` of the support: each change returns a new one. `live` is the
model of many classes (`known`), of which a change touches only what it changes, as `changes` tells; `taught` makes
their keys in the metric of the default learner; `clashes` are labels that no change may bring in. `methods` has one
estimator per method, `any_learner` the estimators of any learner, inductive or transductive. `reject_rule` says what is
unknown, by a threshold (`rejection`) on scores (`open_set`); `calibration` refines probabilities, `conformal` gives
sets of classes.
"""
