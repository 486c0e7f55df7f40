"""adapt(): a top model from a labelled source domain for a target domain with few labels or none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import candidate_features, default_target
from featurebank.errors import notice
from featurebank.fitting.adaptation.adapters import Adaptation, AdaptedModel, candidates, choose_adaptations
from featurebank.fitting.adaptation.domains import DomainPair, Domains, check_sizes, domain_shift, load_domains
from featurebank.fitting.adaptation.trials import Comparison, Trial, TrialSettings, check_scorer, run_trial
from featurebank.fitting.result import FitResult
from featurebank.fitting.training_data import straddling
from featurebank.images.reading import Progress
from featurebank.predictor.evaluation import contents_of
from featurebank.predictor.features import predictor_features
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.serialization import check_savable
from featurebank.predictor.task import Task
from featurebank.topmodels.folds import Fold, Folds, default_kind, fold_numbers
from featurebank.topmodels.models import DEFAULT_MODELS, Models, TopModel, is_ours, parse_models
from featurebank.topmodels.refitting import over_folds
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.transforms import normalization


def adapt(
    bank: BankLike,
    *,
    domain: str,
    source: str,
    target_domain: str,
    methods: str | Sequence[str] | None = None,
    features: str | Sequence[str] | None = None,
    models: Models | None = None,
    target: str | None = None,
    groups: str | None = None,
    normalize: str | Sequence[str] = "standardize",
    scorer: str = "outputs",
    target_labels: int = 0,
    folds: int = 5,
    random_state: int = 0,
    n_jobs: int = -1,
    on_shift: Callable[[list[str], str], None] | None = None,
    progress: Progress | None = None,
    on_compared: Progress | None = None,
) -> FitResult:
    """Learn from a labelled source domain for a target domain whose labels are few or unknown.

    First, how far the domains lie apart is measured. Then a search on the source alone chooses features and top
    model, and the model's parameters anew for the source's rows as each adaptation moves or weighs them. On each of
    the folds, which divide both domains, every adaptation learns from the labelled training rows of the source and
    the unlabelled training rows of the target; the test parts give the figures, so that no target row is scored by a
    model that was adapted on it, or that learned from an image of the same content. The target's labels take part in
    these figures and in nothing else (but see `target_labels`): an unsupervised scorer chooses the adaptation, and
    the unadapted model where it cannot tell the two apart. At last the chosen one is fitted to all rows. The choices
    of parameters and of the adaptation, which no label of the target enters, are made once for all folds.

    Parameters
    ----------
    bank : path-like or Bank
    domain : str
        Column of domains.
    source, target_domain : str
        Its values: the domain that has labels, and the one the predictor is for.
    methods : str or sequence of str, optional
        The adaptations to choose from, of ``"none"``, ``"coral"``, ``"subspace"``, ``"reweight"`` and ``"ot"`` (see
        `featurebank.fitting.adaptation.adapters.Adaptation`); by default all of them. The unadapted model is scored
        in any case.
    features, models, normalize, groups, folds, random_state, n_jobs
        Of the search on the source; see `featurebank.fit`.
    target : str, optional
        Column of classes; by default ``label``, or the bank's only column. Rows of the target may lack it.
    scorer : str, default "outputs"
        What chooses without labels of the target. ``"outputs"``: accuracy on held-out rows of the source less the
        distance of the model's outputs on held-out rows of both
        (`featurebank.fitting.adaptation.trials.outputs_distance`), in the spirit of the bound of
        Ben-David et al. (2010); it takes the classes to be about as frequent in both. By skada:
        ``"circular"`` (circular validation, Bruzzone and Marconcini 2010), ``"entropy"`` (prediction entropy,
        Morerio et al. 2018), ``"density"`` (soft neighbourhood density, Saito et al. 2021).
    target_labels : int, default 0
        Labelled rows of each class of the target, drawn with `random_state`, that join the training rows.
    on_shift : callable, optional
        Called first, with each candidate's feature sets and a line about the shift.
    progress, on_compared : callable, optional
        Called with (fits done, fits in all) of the search on the source, and of the adaptations.

    Returns
    -------
    FitResult
        ``search`` is that of the source. The report has ``shift`` (one for each candidate's features),
        ``adaptations`` (for each: ``source`` and ``target`` with accuracy, macro F1 and 95 % intervals,
        ``unsupervised``, ``difference`` to the unadapted model) and ``chosen``, one of them.

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    See Also
    --------
    fit : All rows of one domain.
    fit_semi_supervised : Images without labels of the same domain.

    Notes
    -----
    The intervals are Wilson's for accuracies and a bootstrap of rows for F1, given these fits.

    Examples
    --------
    >>> bank = Bank("photos.bank")
    >>> bank.label(pd.read_csv("labels.csv"))
    24
    >>> result = adapt(bank, domain="site", source="A", target_domain="B", target="label", models=["logreg"])
    >>> result.report["chosen"]["target"]["accuracy"]
    1.0
    """
    opened = Bank.of(bank)
    pair = DomainPair(domain, source, target_domain, target or default_target(opened))
    asked = (methods, features, models, groups, normalize, scorer, target_labels, folds, random_state, n_jobs)
    return _Fit(opened, pair, *asked, on_shift, progress, on_compared).run()


def fit_domain(bank: BankLike, **options: Any) -> FitResult:
    """Do what `adapt` does, under its old name and with a notice."""
    notice("fit_domain(adapt=)", "adapt(methods=)")
    new = {"adapt": "methods", "seed": "random_state", "jobs": "n_jobs"}
    return adapt(bank, **{new.get(name, name): value for name, value in options.items()})


@dataclass
class _Fit:
    """One run of `adapt`: load, measure, search the source, try the adaptations, fit the chosen one."""

    bank: Bank
    pair: DomainPair
    methods: str | Sequence[str] | None
    features: str | Sequence[str] | None
    models: Any
    groups: str | None
    normalize: str | Sequence[str]
    scorer: str
    target_labels: int
    folds: int
    random_state: int
    n_jobs: int
    on_shift: Callable[[list[str], str], None] | None
    progress: Progress | None
    on_compared: Progress | None

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.wanted = candidate_features(self.bank, self.features)
        names = list(dict.fromkeys(name for each in self.wanted for name in each))
        self.rows, self.both = load_domains(self.bank, names, self.pair, self.groups)
        check_sizes(self.both, self.pair, self.folds, self.target_labels)
        self.known = self._known()
        self.names, self.notes = choose_adaptations(self.methods, list(self.known.values()), *self.both.counts)

    def run(self) -> FitResult:
        """Do all of it."""
        shifts = [self._shift(names) for names in self.wanted]
        search = self._search(self.models, self.progress)
        features = "all" if self.features == "all" else self.wanted
        search.set_params(blocks=self.rows.blocks, features=features, normalize=self.normalize)
        _fit_source(search, self.both, self.both.X)
        found, fitted = self._adapt(search)
        oof = found.frame(self.rows.table, self.pair)
        report = {**self._facts(search), "shift": shifts, **found.report()}
        report["warnings"] += straddling(self.rows, fold_numbers(found.folds, len(oof)), self.groups)
        report["seconds"] = time.perf_counter() - self.started
        kept = {
            **report,
            "samples": oof[["source", "path", "fold"]].values.tolist(),
            "contents": contents_of(self.rows.table.rows["digest"]),
        }
        table = oof.drop(columns=["source", "path"]).assign(row=np.arange(len(oof), dtype=np.int32))
        predictor = self._predictor(search, fitted, found.calibrator(fitted.model_), kept, table)
        return FitResult(report, predictor, search=search)

    def _known(self) -> dict[str, TopModel]:
        """Return the top models by name; one that cannot be saved, or scored as asked, is an error before any work."""
        models = parse_models(DEFAULT_MODELS["classification"] if self.models is None else self.models)
        for model in models:
            check_scorer(self.scorer, model.estimator)
            if not is_ours(model):
                check_savable(model.estimator)
        return {model.name: model for model in models}

    def _shift(self, names: Sequence[str]) -> dict[str, Any]:
        """Measure the shift in some features, and tell it."""
        both = self.both
        X = self.rows.features(names)
        found = domain_shift(X, both.is_source, groups=both.groups, folds=self.folds, random_state=self.random_state)
        if self.on_shift is not None:
            self.on_shift(list(names), found.sentence(self.pair.source, self.pair.target_domain))
        return {"features": list(names), **found.to_dict()}

    def _search(self, models: Any, progress: Progress | None) -> TopModelSearchCV:
        """Return a search over rows of the source."""
        seed = self.random_state
        cv = Folds(default_kind("classification", self.both.groups is not None), self.folds, random_state=seed)
        return TopModelSearchCV(models, cv=cv, refit=False, random_state=seed, n_jobs=self.n_jobs, progress=progress)

    def _adapt(self, search: TopModelSearchCV) -> tuple[Comparison, AdaptedModel]:
        """Try the adaptations with the search's best features and model; return what came of it and the one to ship."""
        best, top, seed = search.best_candidate_, self.known[search.best_model_], self.random_state
        both = replace(self.both, X=self.rows.features(best.features))
        model = top.pipeline(best.params, seed)[-1]
        before = normalization(best.normalize, widths=self.rows.widths(best.features))
        plain = TrialSettings(before, model, self.scorer, self.target_labels, seed)
        parts = both.folds(self.folds, seed)
        fewest = min(int((~both.is_source[train]).sum()) for train, _ in parts)
        tried = candidates(self.names, both.counts[0], fewest, both.X.shape[1])
        tuning = self._search(_only(self.models, best.model), None).set_params(normalize="none")
        params = [best.params, *(_tuned(tuning, each, plain, both) for each in tried[1:])]
        settings = [replace(plain, model=top.pipeline(each, seed)[-1]) for each in params]
        trials = self._trials(tried, settings, both, parts)
        found = Comparison(both, parts, tried, params, trials, self.names, seed)
        everyone, chosen = np.arange(len(both.y)), settings[found.best]
        return found, chosen.fit(tried[found.best], both, everyone, chosen.learned(both, everyone))

    def _trials(
        self, tried: Sequence[Adaptation], settings: Sequence[TrialSettings], both: Domains, parts: Sequence[Fold]
    ) -> list[list[Trial]]:
        """Return the trials of every adaptation, one a fold."""
        total, done = len(tried) * len(parts), count(1)

        def run(train: NDArray[np.int64], test: NDArray[np.int64]) -> list[Trial]:
            trials = []
            for adaptation, each in zip(tried, settings, strict=True):
                trials.append(run_trial(adaptation, each, both, (train, test)))
                if self.on_compared is not None:
                    self.on_compared(next(done), total)
            return trials

        return [list(each) for each in zip(*over_folds(run, parts), strict=True)]

    def _facts(self, search: TopModelSearchCV) -> dict[str, Any]:
        """Return the part of the report that is not about the adaptations."""
        both, pair = self.both, self.pair
        n_source, n_target = both.counts
        return {
            "n_samples": len(both.y),
            "classes": both.classes[np.unique(both.y[both.is_source])].tolist(),
            "target": pair.target,
            "task": "classification",
            "scoring": "accuracy",
            "domain": {
                "column": pair.column,
                "source": pair.source,
                "target": pair.target_domain,
                "n_source": n_source,
                "n_target": n_target,
                "n_target_labelled": int(both.is_scored.sum()),
            },
            "folds": self.folds,
            "grouped": both.groups is not None,
            "seed": self.random_state,
            "candidates": [candidate.to_dict() for candidate in search.candidates_],
            "best": search.best_candidate_.to_dict(),
            "scorer": self.scorer,
            "target_labels": self.target_labels,
            "warnings": self.rows.notes + self.notes + search.warnings_,
        }

    def _predictor(
        self,
        search: TopModelSearchCV,
        fitted: AdaptedModel,
        calibrator: Any,
        report: dict[str, Any],
        oof: pd.DataFrame,
    ) -> Predictor:
        features, tensors = predictor_features(self.bank, search.best_features_)
        task = Task(features, fitted.pipeline_, self.pair.target, calibrator=calibrator, report=report, out_of_fold=oof)
        return Predictor(task, tensors=tensors)


def _fit_source(search: TopModelSearchCV, both: Domains, X: NDArray[Any], weight: NDArray[Any] | None = None) -> None:
    """Fit a search to the source's rows of X; Ctrl-C ends all, since no adaptation is scored yet."""
    chosen = both.is_source
    groups, weight = (None if each is None else each[chosen] for each in (both.groups, weight))
    search.fit(X[chosen], both.classes[both.y[chosen]], groups=groups, sample_weight=weight)
    if search.interrupted_:
        raise KeyboardInterrupt


def _only(models: Any, name: str) -> Any:
    """Return one of the models, as the search takes it."""
    if isinstance(models, Mapping):
        return {name: models[name]}
    given = models if isinstance(models, (list, tuple)) else [models]
    return next(([each] for each in given if type(each).__name__ == name), [name])


def _tuned(search: TopModelSearchCV, adaptation: Adaptation, plain: TrialSettings, both: Domains) -> dict[str, Any]:
    """Return the top model's best parameters for the source's rows as an adaptation moves or weighs them."""
    fitted = plain.fit(adaptation, both, np.arange(len(both.y)), np.flatnonzero(both.is_source))
    _fit_source(search, both, fitted.moved_, fitted.weight_)
    return dict(search.best_params_)
