"""Which top models learn from batches."""

from __future__ import annotations

from dataclasses import replace

from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge, RidgeClassifier

from featurebank.errors import TopModelError
from featurebank.topmodels.models import TopModel
from featurebank.topmodels.streaming.exact import Exact
from featurebank.topmodels.streaming.minibatch import Minibatch

DEFAULT = {"classification": ("ridge", "lda", "sgd-logreg"), "regression": ("ridge", "mlp")}
KNOWN = {"classification": "ridge, lda, sgd-logreg, sgd-svm, mlp", "regression": "ridge, mlp"}


def streamed(model: TopModel, task: str, seed: int, n_jobs: int) -> TopModel:
    """Return a top model that is trained on a matrix which is read in batches.

    Raises
    ------
    TopModelError
        When it needs all rows at once.
    """
    if isinstance(model.estimator, (Ridge, RidgeClassifier, LinearDiscriminantAnalysis)):
        return replace(model, trainer=Exact(model.estimator, seed, n_jobs), refined=())
    if hasattr(model.estimator, "partial_fit"):
        return replace(model, trainer=Minibatch(model.estimator, seed, n_jobs), refined=())
    raise TopModelError(
        f"{model.name} needs all rows in memory, which these do not fit into; expected {KNOWN[task]}, or an estimator "
        "with partial_fit; or give the fit more memory"
    )
