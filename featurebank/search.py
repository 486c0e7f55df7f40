"""TopModelSearchCV: which features, which top model, which parameters, on the same folds."""

from __future__ import annotations

import difflib
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from featurebank.errors import TopModelError, one_line
from featurebank.folds import Fold, make_folds
from featurebank.scores import corrected_interval
from featurebank.topmodels import TopModel, cells
from featurebank.transforms import SelectDimensions


@dataclass
class Candidate:
    """One features × top model × parameters, with its scores on the shared folds.

    Attributes
    ----------
    features : tuple of str
        Names of the blocks it sees, concatenated.
    model : str
        Name of the top model.
    params : dict
        In the estimator's own names.
    fold_scores : list of float
        One score a fold.
    ci95 : tuple of float
        Nadeau-Bengio corrected 95 % interval of the mean.
    seconds : float
        Time spent in its fits and scores, added up over the folds.
    """

    features: tuple[str, ...]
    model: str
    params: dict[str, Any]
    fold_scores: list[float] = field(default_factory=list)
    ci95: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.fold_scores))

    @property
    def std(self) -> float:
        """Standard deviation over the folds (ddof 0)."""
        return float(np.std(self.fold_scores))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank fit --json`` prints."""
        return {
            "features": list(self.features),
            "model": self.model,
            "params": self.params,
            "mean": self.mean,
            "std": self.std,
            "ci95": list(self.ci95),
            "fold_scores": self.fold_scores,
            "seconds": self.seconds,
        }


def _best_has(method: str) -> Callable[[Any], bool]:
    return lambda search: hasattr(search.best_estimator_, method)


class TopModelSearchCV(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Cross-validate top models over embeddings and refit the best one on all rows.

    Every candidate is a plain scikit-learn pipeline whose every step is fitted inside the fold, and all
    candidates see the same folds.

    Parameters
    ----------
    models : sequence of str, or mapping of str to grid, default ("logreg", "svm", "mlp")
        Top models (`featurebank.topmodels`); a mapping gives the grid in the estimator's own parameter names.
    cv : int, splitter or iterable, default 5
        An integer means ``StratifiedKFold(k, shuffle=True, random_state=random_state)``, or
        `StratifiedGroupKFold` alike when groups are given.
    scoring : str or callable, optional
        Any scikit-learn scorer; accuracy by default.
    blocks : mapping of str to slice, optional
        Names the columns of each feature set in a wide X (`Bank.blocks`); by default X is one block ``"X"``.
    features : sequence of sequences of str, optional
        Which blocks to concatenate for each candidate; by default each block alone.
    random_state : int, default 0
        Seed of the folds and of the estimators.
    n_jobs : int, default -1
        Threads; -1 for one a core.
    progress : callable, optional
        Called with (fits done, fits in all).

    Attributes
    ----------
    candidates_ : list of Candidate
        Everything that was evaluated.
    cv_results_ : dict of arrays
        The same in scikit-learn's form, ready for a DataFrame.
    best_candidate_ : Candidate
        The one with the highest mean; the first of equals. Its score is selected, hence optimistic.
    best_estimator_ : Pipeline
        The best pipeline, refitted on all rows of X.
    best_score_, best_params_, best_model_, best_features_, best_index_
        Facts of the best candidate.
    folds_ : list of (train, test)
        Row numbers of each fold.
    classes_ : ndarray, shape (k,)
        The classes, sorted.
    warnings_ : list of str
        What scikit-learn warned about, with counts.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> search = TopModelSearchCV(models={"svm": {"C": [1, 10]}}).fit(X, y)
    >>> search.best_model_, search.best_score_ > 0.95
    ('svm', True)
    """

    def __init__(
        self,
        models: Any = ("logreg", "svm", "mlp"),
        *,
        cv: Any = 5,
        scoring: Any = None,
        blocks: Mapping[str, slice] | None = None,
        features: Sequence[Sequence[str]] | None = None,
        random_state: int = 0,
        n_jobs: int | None = -1,
        progress: Callable[[int, int], None] | None = None,
    ):
        self.models = models
        self.cv = cv
        self.scoring = scoring
        self.blocks = blocks
        self.features = features
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.progress = progress

    def fit(self, X: Any, y: Any, *, groups: Any = None, sample_weight: Any = None) -> TopModelSearchCV:
        """Evaluate every candidate and refit the best.

        Parameters
        ----------
        X : array-like of float, shape (n, d)
            Embeddings, the blocks side by side.
        y : array-like, shape (n,)
            Classes: text or numbers.
        groups : array-like, shape (n,), optional
            Rows of one group never straddle folds.
        sample_weight : array-like of float, shape (n,), optional
            Used in fitting and in scoring.

        Raises
        ------
        TopModelError
            When a name, a grid or the folds do not fit.
        """
        X, y = validate_data(self, X, y, dtype=(np.float32, np.float64))
        _check_classes(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise TopModelError(f"y has one class, {self.classes_.tolist()[0]!r}; expected at least two classes")
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        data = _Data(X, y, weight, self._columns(X.shape[1]), int(self.random_state))
        with _recorded_warnings() as self.warnings_:
            self.folds_ = make_folds(self.cv, X, y, None if groups is None else np.asarray(groups), data.seed)
            self._evaluate(data)
            self._refit(data)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class of each row; see `best_estimator_`."""
        return self._best(X).predict(X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities, shape (n, k), where the best estimator has them."""
        return self._best(X).predict_proba(X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return decision values, where the best estimator has them."""
        return self._best(X).decision_function(X)

    def _best(self, X: Any) -> Any:
        check_is_fitted(self)
        validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        return self.best_estimator_

    def _columns(self, width: int) -> dict[tuple[str, ...], NDArray[np.int64] | None]:
        """Return the columns of X that each candidate's features take; None for all of them."""
        if self.blocks is None:
            return {("X",): None}
        wanted = [(name,) for name in self.blocks] if self.features is None else [tuple(f) for f in self.features]
        unknown = {name for names in wanted for name in names} - set(self.blocks)
        if unknown or not wanted:
            have = ", ".join(self.blocks)
            raise TopModelError(f"features name {sorted(unknown) or 'nothing'}; expected some of the blocks {have}")
        wide = [name for name, block in self.blocks.items() if (block.stop or 0) > width]
        if wide:
            raise TopModelError(f"block {wide[0]!r} ends after the last of {width} columns; expected blocks inside X")
        every = np.arange(width)
        columns = {names: np.concatenate([every[self.blocks[name]] for name in names]) for names in wanted}
        return {names: None if np.array_equal(taken, every) else taken for names, taken in columns.items()}

    def _evaluate(self, data: _Data) -> None:
        tried = [
            (Candidate(names, model.name, params), model)
            for names in data.columns
            for model, params in cells(self.models)
        ]
        for candidate, model in tried:  # a wrong parameter, scoring or number of jobs is an error before any work
            model.pipeline(candidate.params, data.seed)
        _check_scoring(self.scoring)
        jobs = self._jobs()
        tasks = [(number, fold) for number in range(len(tried)) for fold in range(len(self.folds_))]
        scores = np.empty((len(tried), len(self.folds_)))
        runs = self._run(data, tried, tasks, jobs)
        for done, (number, fold, score, seconds) in enumerate(runs, 1):
            scores[number, fold] = score
            tried[number][0].seconds += seconds
            if self.progress is not None:
                self.progress(done, len(tasks))
        self.candidates_ = [candidate for candidate, _ in tried]
        n_train, n_test = (float(np.mean([len(fold[side]) for fold in self.folds_])) for side in (0, 1))
        for candidate, row in zip(self.candidates_, scores, strict=True):
            candidate.fold_scores = row.tolist()
            candidate.ci95 = corrected_interval(row.tolist(), n_train, n_test)

    def _jobs(self) -> int:
        if self.n_jobs == 0:
            raise TopModelError("0 jobs; expected a number of threads, or -1 for one a core")
        return int(effective_n_jobs(self.n_jobs))

    def _run(
        self, data: _Data, tried: list[tuple[Candidate, TopModel]], tasks: list[tuple[int, int]], jobs: int
    ) -> Iterator[tuple[int, int, float, float]]:
        with threadpool_limits(1 if jobs > 1 else None):
            parallel = Parallel(jobs, prefer="threads", return_as="generator_unordered")
            yield from parallel(
                delayed(_score_fold)(data, *tried[number], self.folds_[fold], self.scoring, number, fold)
                for number, fold in tasks
            )

    def _refit(self, data: _Data) -> None:
        means = [candidate.mean for candidate in self.candidates_]
        if not np.isfinite(means).any():
            raise TopModelError("no candidate has a score that is a number; check scoring and the classes in each fold")
        self.best_index_ = int(np.nanargmax(means))
        best = self.best_candidate_ = self.candidates_[self.best_index_]
        self.best_score_, self.best_params_ = best.mean, best.params
        self.best_model_, self.best_features_ = best.model, best.features
        model = next(model for model, _ in cells({best.model: best.params}))
        taken = data.columns[best.features]
        select = [] if taken is None else [("select", SelectDimensions(taken))]
        self.best_estimator_ = Pipeline(select + model.pipeline(best.params, data.seed).steps)
        _fit(self.best_estimator_, data.X, data.y, data.weight)
        self.cv_results_ = _results(self.candidates_)

    def calibrate(self, X: Any, y: Any, *, sample_weight: Any = None) -> LogisticRegression:
        """Fit a calibrator that turns the best estimator's decision values into probabilities.

        The decision values are out-of-fold: the best pipeline is fitted on each fold's training rows again. For
        two classes this is Platt's (1999) method, for more its multinomial form.

        Parameters
        ----------
        X, y, sample_weight
            The rows that `fit` saw.

        Returns
        -------
        LogisticRegression
            Fitted on decision values of shape (n, 1) or (n, k).
        """
        X, y = np.asarray(X), np.asarray(y)
        weight = None if sample_weight is None else np.asarray(sample_weight)
        whole = [fold for fold in self.folds_ if len(np.unique(y[fold[0]])) == len(self.classes_)]
        tested: set[Any] = set().union(*(y[test].tolist() for _, test in whole))
        unseen = [name for name in self.classes_.tolist() if name not in tested]
        if unseen:
            raise TopModelError(
                f"no fold both learns and tests the class {unseen[0]!r}, so {self.best_model_} gets no probabilities: "
                "use logreg or mlp, or other groups"
            )
        with threadpool_limits(1):
            decisions = Parallel(self._jobs(), prefer="threads")(
                delayed(_decide)(clone(self.best_estimator_), X, y, weight, fold) for fold in whole
            )
        tests = np.concatenate([test for _, test in whole])
        values = np.concatenate(decisions).reshape(len(tests), -1)
        return LogisticRegression(max_iter=1000).fit(
            values, y[tests], sample_weight=None if weight is None else weight[tests]
        )


@dataclass(frozen=True)
class _Data:
    """What every fit of a search shares."""

    X: NDArray[Any]
    y: NDArray[Any]
    weight: NDArray[np.float64] | None
    columns: dict[tuple[str, ...], NDArray[np.int64] | None]
    seed: int


def _check_classes(y: NDArray[Any]) -> None:
    try:
        check_classification_targets(y)
    except ValueError as error:
        raise TopModelError(f"{one_line(error)} Expected a column of classes") from error


def _check_scoring(scoring: Any) -> None:
    if isinstance(scoring, str) and scoring not in get_scorer_names():
        near = difflib.get_close_matches(scoring, get_scorer_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else "expected one of scikit-learn's, e.g. accuracy"
        raise TopModelError(f"no scoring {scoring!r}; {hint}")


def _fit(pipeline: Any, X: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64] | None) -> None:
    """Fit a pipeline whose last step takes the weights, whether or not the caller has metadata routing on."""
    options = {} if weight is None else {"model__sample_weight": weight}
    with config_context(enable_metadata_routing=False):
        pipeline.fit(X, y, **options)


def _score_fold(
    data: _Data, candidate: Candidate, model: TopModel, fold: Fold, scoring: Any, number: int, fold_number: int
) -> tuple[int, int, float, float]:
    """Fit one candidate on one fold's training rows and score it on its test rows."""
    started = time.perf_counter()
    taken, (train, test) = data.columns[candidate.features], fold
    rows = data.X if taken is None else data.X[:, taken]
    weight = data.weight
    pipeline = model.pipeline(candidate.params, data.seed)
    try:
        _fit(pipeline, rows[train], data.y[train], None if weight is None else weight[train])
    except ValueError as error:
        raise TopModelError(f"{candidate.model} {candidate.params} cannot be fitted: {one_line(error)}") from error
    score = _score(pipeline, rows[test], data.y[test], None if weight is None else weight[test], scoring)
    return number, fold_number, score, time.perf_counter() - started


def _score(pipeline: Any, X: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64] | None, scoring: Any) -> float:
    options = {} if weight is None else {"sample_weight": weight}
    try:
        with config_context(enable_metadata_routing=False):
            return float(check_scoring(pipeline, scoring)(pipeline, X, y, **options))
    except (ValueError, TypeError, AttributeError) as error:  # a scorer that needs what the model or y does not have
        name = type(pipeline[-1]).__name__
        raise TopModelError(
            f"scoring {scoring!r} does not fit {name} here: {one_line(error)[:160]}; choose another scoring or model"
        ) from error


def _decide(
    estimator: Any, X: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64] | None, fold: Fold
) -> NDArray[np.float64]:
    train, test = fold
    _fit(estimator, X[train], y[train], None if weight is None else weight[train])
    return estimator.decision_function(X[test])


@contextmanager
def _recorded_warnings() -> Iterator[list[str]]:
    """Collect what is warned about inside, from every thread, as messages with counts."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    counts = Counter(one_line(each.message) for each in caught if isinstance(each.message, Warning))
    messages += [text if times == 1 else f"{text} ({times} times)" for text, times in counts.items()]


def _results(candidates: list[Candidate]) -> dict[str, Any]:
    """Return the candidates as scikit-learn's ``cv_results_``."""
    scores = np.array([candidate.fold_scores for candidate in candidates])
    means = scores.mean(axis=1)
    ranks = np.array([1 + int((means > mean).sum()) for mean in means])
    return {
        "features": [list(candidate.features) for candidate in candidates],
        "model": [candidate.model for candidate in candidates],
        "params": [candidate.params for candidate in candidates],
        "mean_test_score": means,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": ranks,
        "seconds": np.array([candidate.seconds for candidate in candidates]),
        **{f"split{fold}_test_score": scores[:, fold] for fold in range(scores.shape[1])},
    }
