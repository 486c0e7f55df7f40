"""Fits of embeddings that stay on the disk: read in batches, by top models that learn from batches.

How it fits in: `BankMatrix` stands in for X in a search. It is sliced without being read, so that rows, folds,
candidates and reports are those of any fit; what reads is the `trainer` that `topmodels.search_plan.in_batches` puts in
the place of a model's solver. `exact` learns ridge and discriminants from sums over the folds' rows (`sums`), one pass
for all folds and parameters; `minibatch` gives batches to an estimator's own ``partial_fit``. Scalers and whitenings
before a model learn in a pass too (`sums`). All leave fitted scikit-learn estimators, whose out-of-fold answers another
pass collects (`trainer`, which also refuses what cannot do without all rows).
"""
