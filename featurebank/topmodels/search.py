"""TopModelSearchCV: which features, which top model, which parameters, on the same folds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils import ClassifierTags, RegressorTags, check_consistent_length, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from featurebank.bank.features import VIEWS
from featurebank.bank.matrix import BankMatrix
from featurebank.errors import TopModelError, near_names
from featurebank.images.columns import check_labels
from featurebank.images.reading import Progress
from featurebank.storage.memory import physical_memory
from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.candidates import Candidate, CandidateGroup, best_of, to_results
from featurebank.topmodels.class_weights import ClassWeight, under_looked_up_names
from featurebank.topmodels.committees.search import GivenMember, form_committee
from featurebank.topmodels.comparison import compared
from featurebank.topmodels.evaluation import SearchData, refitted, scorer_of
from featurebank.topmodels.folds import make_folds, rare_class_notes
from featurebank.topmodels.models import DEFAULT_MODELS, KNOWN, TASKS, Models, TopModel
from featurebank.topmodels.out_of_fold import OutOfFold, gather
from featurebank.topmodels.refitting import score_fitted
from featurebank.topmodels.scorers import check_test_parts, positive_note, positive_of, resolved_scorer
from featurebank.topmodels.search_plan import (
    DEFAULT_IN_BATCHES,
    Blocks,
    cells_for,
    check_weights,
    checked_groups,
    checked_target,
    in_batches,
    models_to_try,
)
from featurebank.topmodels.search_run import SearchRun, recorded_warnings
from featurebank.topmodels.solvers.problem import SolverOptions
from featurebank.topmodels.streaming.trainer import check_streamed

RULES = ("best", "one-se")


def _best_has(method: str) -> Callable[[Any], bool]:
    return lambda search: hasattr(getattr(search, "best_estimator_", None), method)


class TopModelSearchCV(MetaEstimatorMixin, BaseEstimator):
    """Cross-validate top models over embeddings and refit the best one on all rows.

    Every candidate is a plain scikit-learn pipeline whose every step is fitted inside the fold, and all candidates
    see the same folds. The scores are those of scikit-learn; the solvers behind them (`topmodels.solvers`) share
    the work between cells and folds.

    Parameters
    ----------
    models : str, sequence, or mapping of str to grid, optional
        Top models (`featurebank.topmodels.models`): names, import paths or estimators; a mapping gives the grid in the
        estimator's own parameter names. By default ``logreg svm mlp``, or ``ridge svr mlp`` for numbers; with a
        time limit, all of them.
    task : str, default "classification"
        ``"classification"``, ``"multilabel"`` (y of 0 and 1, shape (n, labels)) or ``"regression"``.
    cv : int, splitter or iterable, default 5
        An integer means ``StratifiedKFold(k, shuffle=True, random_state=random_state)``, or
        `StratifiedGroupKFold` alike when groups are given (`KFold` and `GroupKFold` for numbers).
    scoring : str or callable, optional
        Any scikit-learn scorer; accuracy by default, R² for numbers.
    positive : optional
        The one of two classes that f1, precision, recall and the like are of; by default 1 or True, else the rarer.
    blocks : mapping of str to slice, optional
        Names the columns of each feature set in a wide X (`Bank.blocks`); by default X is one block ``"X"``.
    features : "all", or sequence of sequences of str, optional
        Which blocks to concatenate for each candidate; by default each block alone. ``"all"`` adds concatenations:
        the two best blocks by a quick ridge on the same folds, the three best, and so on to all of them.
    views : str or sequence of str, default "mean"
        What is learned from where an image has several views: their ``"mean"``, the ``"first"``, or ``"all"`` as rows
        of their own, of which none is in another fold than its image; what a model says of them is averaged
        (`featurebank.topmodels.multiview`). Several are tried.
    n_views : int or mapping of str to int, default 1
        Views of an image that lie side by side in X, or in each block: ``bank.load(name, views="all").reshape(n, -1)``.
    normalize : str or sequence of str, default "standardize"
        What is done to the rows inside the fold (`featurebank.topmodels.transforms.normalization`); several are tried.
    select : float or sequence of float or None, optional
        Share of the dimensions to keep, selected inside the fold (`SelectRelevant`); several are tried.
    class_weight : "balanced" or mapping, optional
        Weights of the classes in fitting.
    rule : str, default "best"
        ``"best"``, or ``"one-se"``: the simplest candidate within one standard error of the best.
    ensemble : bool, default False
        Also average what several of the candidates say: those that together are the best, by log loss or the scoring
        asked for, chosen greedily from out-of-fold answers (`featurebank.topmodels.committees.selection`). It is one
        more candidate, ``committee``, and scored on rows that had no part in choosing it.
    members : int, optional
        At most so many models in it.
    given : sequence of GivenMember, optional
        Models from elsewhere that may be in it (`featurebank.topmodels.committees.search.GivenMember`).
    refine : int, default 1
        Rounds of refinement of C and gamma around the best cell of each model whose grid is the default one.
    refit : bool, default True
        Fit the best pipeline on all rows; without it there is no `best_estimator_`, only scores.
    time_limit : float, optional
        Seconds. Cheap models come first, then the promising ones by successive halving over the folds; at least one
        candidate is always finished.
    random_state : int, default 0
        Seed of the folds and of the estimators.
    n_jobs : int, default -1
        Threads; -1 for one a core.
    memory : int, optional
        Bytes that shared work may take; by default a quarter of the machine's. What does not fit is solved plainly.
    progress : callable, optional
        Called with (fits done, fits in all).

    Attributes
    ----------
    candidates_ : list of Candidate
        Everything that was evaluated on all folds.
    cv_results_ : dict of arrays
        The same in scikit-learn's form, ready for a DataFrame.
    best_candidate_ : Candidate
        The one with the highest mean; the first of equals. Its score is selected, hence optimistic.
    best_estimator_ : Pipeline
        The best pipeline, refitted on all rows of X.
    best_score_, best_params_, best_model_, best_features_, best_index_
        Facts of the best candidate.
    committee_ : Committee or None
        With `ensemble`, the committee that was chosen, whether or not it is the best
        (`featurebank.topmodels.committees.search.Committee`).
    comparison_ : dict or None
        The best candidate against the best of another recipe: difference, interval and a sentence.
    positive_ : class or None
        The positive one of two classes.
    scorer_ : callable
        The scorer, which knows the positive class where it looks at one.
    oof_ : OutOfFold
        What the best candidate said of the rows when they were in a test part.
    folds_ : list of (train, test)
        Row numbers of each fold.
    classes_ : ndarray, shape (k,)
        The classes, sorted.
    trials_ : Trials
        How many rows of equal weight, and groups of them, a score stands on.
    interrupted_, timed_out_ : bool
        Whether Ctrl-C, or the time limit, ended the search early.
    warnings_ : list of str
        What was solved another way or left out, and what scikit-learn warned about, with counts.

    See Also
    --------
    fit : The same over a bank, with a predictor as the result.
    sklearn.model_selection.GridSearchCV : What it is measured against.

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
        models: Models | None = None,
        *,
        task: str = "classification",
        cv: Any = 5,
        scoring: Any = None,
        positive: Any = None,
        blocks: Mapping[str, slice] | None = None,
        features: str | Sequence[Sequence[str]] | None = None,
        views: str | Sequence[str] = "mean",
        n_views: int | Mapping[str, int] = 1,
        normalize: str | Sequence[str] = "standardize",
        select: float | Sequence[float | None] | None = None,
        class_weight: ClassWeight = None,
        rule: str = "best",
        ensemble: bool = False,
        members: int | None = None,
        given: Sequence[GivenMember] = (),
        refine: int = 1,
        refit: bool = True,
        time_limit: float | None = None,
        random_state: int = 0,
        n_jobs: int | None = -1,
        memory: int | None = None,
        progress: Progress | None = None,
    ):
        self.models = models
        self.task = task
        self.cv = cv
        self.scoring = scoring
        self.positive = positive
        self.blocks = blocks
        self.features = features
        self.views = views
        self.n_views = n_views
        self.normalize = normalize
        self.select = select
        self.class_weight = class_weight
        self.rule = rule
        self.ensemble = ensemble
        self.members = members
        self.given = given
        self.refine = refine
        self.refit = refit
        self.time_limit = time_limit
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.progress = progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        is_regression = self.task == "regression"
        tags.estimator_type = "regressor" if is_regression else "classifier"
        tags.classifier_tags = None if is_regression else ClassifierTags(multi_label=self.task == "multilabel")
        tags.regressor_tags = RegressorTags() if is_regression else None
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any, *, groups: Any = None, sample_weight: Any = None) -> TopModelSearchCV:
        """Evaluate every candidate and refit the best.

        Ctrl-C ends the search with what is finished, if anything is.

        Parameters
        ----------
        X : array-like of float, shape (n, d), or BankMatrix
            Embeddings, the blocks side by side. A matrix that is read in batches (`featurebank.Bank.matrix`) is for
            models that learn from batches, by default ``ridge lda sgd-logreg``, or ``ridge mlp`` for numbers.
        y : array-like, shape (n,) or (n, labels)
            Classes (text or numbers), numbers, or columns of 0 and 1.
        groups : array-like, shape (n,), optional
            Rows of one group never straddle folds.
        sample_weight : array-like of float, shape (n,), optional
            Used in fitting and in scoring.

        Raises
        ------
        TopModelError
            When a name, a grid or the folds do not fit, or a row has no label.
        """
        started = time.perf_counter()
        self._check_options()
        check_labels(y, TopModelError)
        X, y = self._check_rows(X, y)
        y, classes = checked_target(y, self.task)
        if classes is not None:
            self.classes_ = classes
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        groups = checked_groups(groups, len(y))
        with recorded_warnings() as self.warnings_:
            self.folds_ = make_folds(self.cv, X, y, groups, int(self.random_state), self.task)
            data = SearchData(X, y, {}, self.folds_, self.task, weight, under_looked_up_names(self.class_weight))
            deadline = None if self.time_limit is None else started + self.time_limit
            self.positive_ = positive_of(classes, y, self.positive) if self.task == "classification" else None
            self.scorer_ = self._scorer()
            check_test_parts(self.scoring, self.folds_)
            if weight is not None:
                check_weights(weight, y, classes, self.folds_)
            known: dict[str, Any] = {"scorer": self.scorer_, "for_committee": self.ensemble}
            run = SearchRun(data, self.scoring, self._options(), groups, deadline, self.progress, **known)
            self._evaluate(run)
            self._keep(run)
        notes = positive_note(self.scorer_, self.scoring) if self.positive is None else []
        notes += rare_class_notes(self.cv, y) if self.task == "classification" else []
        self.warnings_[:0] = [*notes, *run.notes]
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class (or number, or labels) of each row; see `best_estimator_`."""
        return self._best(X).predict(X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities, shape (n, k), where the best estimator has them."""
        return self._best(X).predict_proba(X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return decision values, where the best estimator has them."""
        return self._best(X).decision_function(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return what `scoring` says of the best estimator: by default the accuracy, or R² for numbers."""
        return score_fitted(self._scorer(), self._best(X), X, y, sample_weight)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a candidate, the best first: what `Candidate.to_dict` holds."""
        check_is_fitted(self)
        return pd.DataFrame([candidate.to_dict() for candidate in self.candidates_]).sort_values(
            "mean", ascending=False, kind="stable", ignore_index=True
        )

    def _scorer(self) -> Any:
        return resolved_scorer(self.scoring, self.task, getattr(self, "classes_", None), self.positive_)

    def _best(self, X: Any) -> Any:
        check_is_fitted(self)
        validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        return self.best_estimator_

    def calibrate(self, method: str = "sigmoid") -> Calibrator:
        """Fit a calibrator that turns the best estimator's scores into probabilities.

        It learns from out-of-fold scores: log-probabilities where the model has probabilities, else decision values.

        Parameters
        ----------
        method : str, default "sigmoid"
            A method of `featurebank.topmodels.calibration.Calibrator`.

        Raises
        ------
        TopModelError
            When the method is unknown, or no row is of a class that its fold had learned and that the method needs.
        """
        check_is_fitted(self)
        found = self.oof_.learned(self.best_model_)
        return Calibrator(method).fit(found.scores, found.true, found.weight, self.classes_)

    # --- checks --------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        for name, value, known in (("task", self.task, TASKS), ("rule", self.rule, RULES)):
            if value not in known:
                raise TopModelError(f"no {name} {value!r}; {near_names(str(value), known)}")
        for views in _several(self.views):
            if views not in VIEWS:
                raise TopModelError(f"no views {views!r}; {near_names(str(views), VIEWS)}")
        if self.task == "multilabel" and "all" in _several(self.views) and self.select is not None:
            raise TopModelError("dimensions selected for several labels from all views; leave out one of the three")
        if self.n_jobs == 0:
            raise TopModelError("0 jobs; expected a number of threads, or -1 for one a core")
        if self.time_limit is not None and not self.time_limit > 0:
            raise TopModelError(f"a time limit of {self.time_limit!r}; expected seconds above 0")
        if self.members is not None and self.members < 1:
            raise TopModelError(f"{self.members} members of a committee; expected at least 1")
        if not self.ensemble and (self.members is not None or len(self.given)):
            raise TopModelError("members without a committee; expected ensemble=True (--ensemble) beside them")
        scorer_of(self.scoring, self.task)

    def _check_rows(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        if isinstance(X, BankMatrix):
            self.n_features_in_ = X.shape[1]
            asked = {
                "select": self.select is not None,
                "views": self.n_views != 1 and self.n_views != {},
                "several labels an image": self.task == "multilabel",
                "center-l2": "center-l2" in _several(self.normalize),
                "a committee": self.ensemble,
            }
            check_streamed(asked)
            check_consistent_length(X, y)
            return X, column_or_1d(y)
        X, y = validate_data(
            self,
            X,
            y,
            dtype=(np.float32, np.float64),
            multi_output=self.task == "multilabel",
            y_numeric=self.task == "regression",
        )
        return X, y

    def _options(self) -> SolverOptions:
        memory = physical_memory() // 4 if self.memory is None else int(self.memory)
        return SolverOptions(int(effective_n_jobs(self.n_jobs)), memory, int(self.random_state))

    # --- plan ----------------------------------------------------------------------------------------------

    def _evaluate(self, run: SearchRun) -> None:
        is_streamed = isinstance(run.data.X, BankMatrix)
        models = self._models(run.data.weight is not None, is_streamed)
        quick = TASKS[self.task]["ridge"]
        wanted = self._features(run, self._streamed(quick) if is_streamed else quick)
        groups = [
            CandidateGroup(features, select, normalize, model, cells_for(model, run.data.folds), views, widths)
            for features in wanted
            for widths in [run.data.widths[features]]
            for views in _several(self.views)[: None if features in run.data.layouts else 1]
            for select in _several(self.select)
            for normalize in _several(self.normalize)
            for model in models
        ]
        for group in groups:  # an unknown normalisation is an error before any work
            group.before()
        if self.time_limit is None:
            run.all(groups)
        else:
            run.halving(groups)
        for _ in range(self.refine):
            run.refine(groups)
        if self.time_limit is not None:
            run.catch_up(groups)

    def _models(self, weighted: bool, is_streamed: bool) -> list[TopModel]:
        """Return the models to try, by default those that can use the weights."""
        weights = [name for name, given in (("sample_weight", weighted), ("class_weight", self.class_weight)) if given]
        default: str | tuple[str, ...] = DEFAULT_MODELS[self.task] if self.time_limit is None else "all"
        if is_streamed:
            default = DEFAULT_IN_BATCHES[self.task]
        models = models_to_try(self.models, default, self.task, weights, int(self.random_state))
        return [self._streamed(model) for model in models] if is_streamed else models

    def _streamed(self, model: TopModel) -> TopModel:
        return in_batches(model, self.task, int(self.random_state), self._options().threads)

    def _features(self, run: SearchRun, quick: TopModel) -> list[tuple[str, ...]]:
        """Name the blocks of each candidate's features, and tell the data which columns those are.

        `quick` is the model that ranks single blocks, where concatenations are to be chosen.
        """
        width = run.data.X.shape[1]
        columns = {"X": slice(0, width)} if self.blocks is None else self.blocks
        blocks = Blocks(columns, self.n_views, width)
        wanted = blocks.wanted(None if self.blocks is None else self.features)
        for names in wanted:
            blocks.tell(run.data, names)
        if self.blocks is None or not (isinstance(self.features, str) and self.features == "all"):
            return wanted
        order = run.ranked(wanted, quick)
        more = [tuple(sorted(order[:m], key=list(self.blocks).index)) for m in range(2, len(order) + 1)]
        for names in more:
            blocks.tell(run.data, names)
        return wanted + more

    # --- results -------------------------------------------------------------------------------------------

    def _keep(self, run: SearchRun) -> None:
        found = run.finished()
        self.interrupted_, self.timed_out_ = run.interrupted, run.timed_out
        run.set_intervals(found)
        self.trials_ = run.uncertainty.trials
        self.committee_ = form_committee(run, found, self.members, self.given) if self.ensemble else None
        committees = [] if self.committee_ is None or self.committee_.is_one else [self.committee_]
        self.candidates_ = [candidate for _, candidate in found] + [each.candidate for each in committees]
        best = self._choose()
        chosen = next((each for each in committees if each.candidate is best), None)
        said = run.predictions_of(*found[self.best_index_]) if chosen is None else chosen.predictions
        self.oof_: OutOfFold = gather(run.data, said)
        known = {**run.kept(), **{id(each.candidate): each.predictions for each in committees}, id(best): said}
        self.comparison_ = compared(run.uncertainty, best, self.candidates_, known)
        for each in run.groups:
            each.predictions.clear()  # of many rows they take much memory
        if self.refit and chosen is not None:
            self.best_estimator_ = chosen.fitted(run, int(self.random_state))
        elif self.refit:
            self.best_estimator_ = refitted(run.data, found[self.best_index_][0], best, int(self.random_state))

    def _choose(self) -> Candidate:
        """Keep the facts of the best candidate, and return it."""
        order = sorted(KNOWN[self.task], key=lambda name: KNOWN[self.task][name].simplicity)
        self.best_index_ = best_of(self.candidates_, self.rule, order)
        best = self.best_candidate_ = self.candidates_[self.best_index_]
        self.best_score_, self.best_params_ = best.mean, best.params
        self.best_model_, self.best_features_ = best.model, best.features
        self.cv_results_ = to_results(self.candidates_)
        return best


def _several(value: Any) -> list[Any]:
    return [value] if value is None or isinstance(value, (str, int, float)) else list(value)
