"""Every solver against scikit-learn's own pipelines on the same folds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR

from featurebank.topmodels.solvers import knn, lda, logistic, plain, ridge, svm
from featurebank.topmodels.solvers.problem import Note, Prediction, Problem, SolverOptions

ONE = SolverOptions(n_jobs=1)
EXACT = LogisticRegression(solver="newton-cholesky")  # lbfgs stops on its loss before it meets a small tol


@dataclass
class Solution:
    """All predictions by (cell, fold), the notes, and whether Ctrl-C ended the work early."""

    predictions: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    interrupted: bool = False

    @property
    def skipped(self):
        """Numbers of the cells that were deliberately not evaluated."""
        return [cell for note in self.notes if note.skipped for cell in note.cells]


def collect(events, progress=None):
    """Gather a solver's events; Ctrl-C returns what is finished."""
    solution = Solution()
    try:
        for event in events:
            if isinstance(event, Note):
                solution.notes.append(event)
                continue
            solution.predictions[event.cell, event.fold] = event
            if progress is not None:
                progress(event)
    except KeyboardInterrupt:
        solution.interrupted = True
    return solution


def grid(**axes):
    return dict(enumerate(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())))


def data(n=120, d=8, k=3, seed=0, dtype=np.float64, strings=False):
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    X = (rng.standard_normal((k, d))[y] * 0.8 + rng.standard_normal((n, d))) * rng.uniform(0.5, 3, d) + 2
    X[:, 0] = 1.5  # a constant column
    return X.astype(dtype), np.array(["ape", "bee", "cat", "dog"])[y] if strings else y


def problem(n=120, d=8, k=3, dtype=np.float64, strings=False, weighted=False, regression=False, **options):
    X, y = data(n, d, k, 0, dtype, strings)
    if regression:
        y = X[:, 1] - 0.5 * X[:, 2] + np.random.default_rng(1).standard_normal(n)
    folds = list((KFold if regression else StratifiedKFold)(3, shuffle=True, random_state=0).split(X, y))
    weight = np.random.default_rng(2).uniform(0.2, 2, n) if weighted else None
    return Problem(X, y, folds, sample_weight=weight, **options)


def pairs(found, given, cells, estimator, settings=ONE):
    """Prediction of the solver and of plain scikit-learn, for each cell and fold."""
    plainly = collect(plain.solve(given, cells, settings, estimator))
    assert set(found.predictions) == set(plainly.predictions)
    return [(found.predictions[key], plainly.predictions[key]) for key in plainly.predictions]


def check(solve, given, cells, estimator, rtol=1e-5, atol=1e-5, passed=True):
    """Labels equal, decisions and probabilities close; no cell solved plainly."""
    found = collect(solve(given, cells, ONE, estimator) if passed else solve(given, cells, ONE))
    assert not found.notes
    for mine, reference in pairs(found, given, cells, estimator):
        if reference.classes is None:
            np.testing.assert_allclose(mine.labels, reference.labels, rtol=rtol, atol=atol)
            continue
        np.testing.assert_array_equal(mine.classes, reference.classes)
        assert (mine.labels != reference.labels).sum() <= 1
        for name in ("decision", "proba"):
            if getattr(mine, name) is not None:
                values = [centred(getattr(p, name)) for p in (mine, reference)]
                np.testing.assert_allclose(*values, rtol=rtol, atol=atol)


def centred(decision):
    """Decisions less their mean over classes: what labels and probabilities depend on."""
    return decision if decision.ndim == 1 else decision - decision.mean(axis=1, keepdims=True)


VARIANTS = {
    "multi": {},
    "binary": {"k": 2},
    "strings": {"strings": True, "k": 4},
    "raw": {"standardize": False},
    "balanced": {"class_weight": "balanced"},
    "wide": {"n": 60, "d": 200},
    "wide-binary": {"n": 60, "d": 200, "k": 2},
    "wide-raw": {"n": 60, "d": 200, "standardize": False},
    "float32": {"dtype": np.float32},
    "weighted": {"weighted": True},
    "weighted-balanced": {"weighted": True, "class_weight": "balanced", "k": 2},
    "weighted-wide": {"weighted": True, "n": 60, "d": 200},
    "classes": {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}},
}
UNWEIGHTED = {name: options for name, options in VARIANTS.items() if not options.get("weighted")}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
class TestAll:
    def test_rbf(self, options):
        cells = grid(C=[0.1, 1.0, 1000.0, 10000.0], gamma=[0.01, 0.5, "scale", "auto"])
        check(svm.solve, problem(**options), cells, SVC(), atol=5e-3)

    def test_linear(self, options):
        check(svm.solve, problem(**options), grid(C=[1e-3, 0.1, 1.0]), SVC(kernel="linear"), atol=2e-2)

    def test_logistic(self, options):
        given = problem(**options)
        cells = grid(C=[1e-3, 1e-1, 10.0], tol=[1e-8], max_iter=[10000])
        loose = given.X.dtype == np.float32
        check(logistic.solve, given, cells, EXACT, atol=1e-2 if loose else 1e-4, passed=False)

    def test_ridge(self, options):
        tolerance = 1e-3 if options.get("dtype") == np.float32 else 1e-6
        check(ridge.solve, problem(**options), grid(alpha=[1e-2, 1.0, 100.0]), RidgeClassifier(), atol=tolerance)


@pytest.mark.parametrize("options", UNWEIGHTED.values(), ids=UNWEIGHTED)
class TestUnweighted:
    def test_shrunk_lda(self, options):
        cells = grid(solver=["lsqr", "eigen"], shrinkage=[0.1, 0.5, 0.9])
        tolerance = 2e-2 if options.get("dtype") == np.float32 else 1e-6
        check(lda.solve, problem(**options), cells, LinearDiscriminantAnalysis(), atol=tolerance, passed=False)

    def test_knn(self, options):
        cells = grid(n_neighbors=[1, 3, 10], weights=["uniform", "distance"], metric=["minkowski", "cosine"])
        check(knn.solve, problem(**options), cells, KNeighborsClassifier())


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("standardize", [True, False])
def test_lda_svd(k, standardize):
    cells = grid(solver=["svd"], tol=[1e-4, 0.5])
    check(lda.solve, problem(k=k, standardize=standardize), cells, LinearDiscriminantAnalysis(), passed=False)


@pytest.mark.parametrize("options", [{}, {"n": 60, "d": 200}, {"weighted": True}], ids=["tall", "wide", "weighted"])
def test_regressors(options):
    given = problem(regression=True, **options)
    check(ridge.solve, given, grid(alpha=[0.01, 1.0, 100.0]), Ridge())
    check(svm.solve, given, grid(C=[0.1, 1.0], gamma=[0.01, "scale"], epsilon=[0.1, 0.5]), SVR(), atol=5e-3)
    if given.sample_weight is None:
        check(knn.solve, given, grid(n_neighbors=[1, 5], weights=["uniform", "distance"]), KNeighborsRegressor())


def test_several_targets():
    given = problem(regression=True)
    given = Problem(given.X, np.column_stack([given.y, given.y**2]), given.folds)
    check(ridge.solve, given, grid(alpha=[1.0, 10.0]), Ridge())
    check(knn.solve, given, grid(n_neighbors=[3]), KNeighborsRegressor())


@pytest.mark.parametrize("k", [3, 4])
def test_fold_without_a_class(k):
    X, y = data(40, 6, k)
    folds = [(np.flatnonzero(y != 0), np.flatnonzero(y == 0)), *StratifiedKFold(2).split(X, y)]
    given = Problem(X, y, folds)
    check(svm.solve, given, grid(C=[1.0]), SVC(), atol=5e-3)
    check(logistic.solve, given, grid(C=[1.0], tol=[1e-8]), EXACT, atol=1e-4, passed=False)
    check(ridge.solve, given, grid(alpha=[1.0]), RidgeClassifier())
    check(lda.solve, given, grid(solver=["svd"]), LinearDiscriminantAnalysis(), passed=False)
    check(knn.solve, given, grid(n_neighbors=[3]), KNeighborsClassifier())


def test_repeated_rows_in_a_training_part():
    X, y = data()
    train = np.random.default_rng(0).integers(100, size=150)
    given = Problem(X, y, [(train, np.arange(100, 120))])
    check(ridge.solve, given, grid(alpha=[1.0]), RidgeClassifier())
    check(logistic.solve, given, grid(C=[1.0], tol=[1e-8]), EXACT, atol=1e-4, passed=False)


@pytest.mark.parametrize("solve", [svm.solve, logistic.solve, lda.solve])
def test_one_class_is_an_error(solve):
    X, y = data()
    given = Problem(X, y, [(np.flatnonzero(y == 0), np.flatnonzero(y == 1))])
    with pytest.raises(ValueError, match="fold 0 trains on one class"):
        collect(solve(given, {0: {"solver": "svd"} if solve is lda.solve else {"C": 1.0}}, ONE))


def test_a_large_kernel_goes_to_plain_scikit_learn_and_says_so():
    given, cells = problem(), grid(C=[1.0], gamma=[0.1])
    found = collect(svm.solve(given, cells, SolverOptions(memory=1000)))
    assert "the budget is 1,000" in found.notes[0].text
    for mine, reference in pairs(found, given, cells, SVC()):
        np.testing.assert_array_equal(mine.labels, reference.labels)


def test_other_parameters_go_to_plain_scikit_learn():
    found = collect(logistic.solve(problem(), {7: {"C": 1.0, "fit_intercept": False}}, ONE))
    assert found.notes[0].cells == (7,)
    assert {cell for cell, _ in found.predictions} == {7}


def accuracy(given):
    return lambda p: float((p.labels == given.y[given.folds[p.fold][1]]).mean())


def test_the_path_stops_after_its_peak():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=600)
    X = rng.standard_normal((600, 450)) + 0.12 * (2 * y[:, None] - 1)
    y = np.where(rng.random(600) < 0.15, 1 - y, y)
    given = Problem(X, y, list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)))
    cells = {0: {"C": 100.0}, 1: {"C": 1e-4}, 2: {"C": 1e-3}, 3: {"C": 10.0}, 4: {"C": 1.0}}
    found = collect(logistic.solve(given, cells, SolverOptions(score=accuracy(given))))
    assert found.skipped
    assert {cell for cell, _ in found.predictions} == set(cells) - set(found.skipped)
    assert {1, 2}.isdisjoint(found.skipped)


def test_threads_give_the_same_numbers():
    given, cells = problem(), grid(C=[0.1, 1.0, 10.0], gamma=[0.01, 0.1])
    runs = [collect(svm.solve(given, cells, SolverOptions(n_jobs=jobs))).predictions for jobs in (1, 2)]
    for key, mine in runs[0].items():
        np.testing.assert_array_equal(mine.decision, runs[1][key].decision)


def test_progress_and_interrupt():
    seen: list[Prediction] = []

    def progress(prediction):
        seen.append(prediction)
        if len(seen) == 2:
            raise KeyboardInterrupt

    found = collect(svm.solve(problem(), grid(C=[0.1, 1.0, 10.0]), SolverOptions()), progress)
    assert found.interrupted
    assert len(found.predictions) == 2
