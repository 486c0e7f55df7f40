"""Top models over embeddings: models, solvers, folds, scores, search, calibration, learning curve."""
