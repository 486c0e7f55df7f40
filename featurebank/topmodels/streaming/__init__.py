"""Fits of embeddings that stay on the disk: read in batches, by top models that learn from batches.

How it fits in: `matrix.BankMatrix` stands in for X in a search. It is sliced without being read, so that rows, folds,
candidates and reports are those of any fit; what reads is the `trainer` that `models.streamed` puts in the place of a
model's solver. `exact` learns ridge and discriminants from sums over the folds' rows (`sums`), one pass for all folds
and parameters; `minibatch` gives batches to an estimator's own ``partial_fit``. What stands before a model learns in a
pass too (`steps`). All leave fitted scikit-learn estimators, whose out-of-fold answers another pass collects.
`memory` says how much is free, and refuses what cannot do without all rows.
"""
