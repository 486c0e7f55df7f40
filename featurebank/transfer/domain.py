"""fit_domain(): a top model from a labelled source domain for a target domain with few labels or none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import Bank
from featurebank.fitting import FitResult, candidate_features, contents_of, default_target, predictor_features
from featurebank.folds import Fold, Folds, default_kind
from featurebank.predictor import Predictor
from featurebank.rows import Rows
from featurebank.search import TopModelSearchCV
from featurebank.topmodels import DEFAULT_MODELS, parse_models
from featurebank.transfer.adapters import Adaptation, candidates, choose_adaptations
from featurebank.transfer.domains import Domains, Question, check_sizes, load_domains
from featurebank.transfer.outcome import Outcome
from featurebank.transfer.shift import domain_shift
from featurebank.transfer.trials import Recipe, Trial, check_scorer, run_trial
from featurebank.transforms import normalization

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Hooks:
    """Who is told what, while it runs.

    Attributes
    ----------
    on_shift : callable, optional
        Called first, with each candidate's feature sets and a line about the shift.
    on_search, on_adapt : callable, optional
        Called with (fits done, fits in all) of the search on the source, and of the adaptations.
    """

    on_shift: Callable[[list[str], str], None] | None = None
    on_search: Progress | None = None
    on_adapt: Progress | None = None


def fit_domain(
    bank: str | os.PathLike[str] | Bank,
    *,
    domain: str,
    source: str,
    target_domain: str,
    adapt: str | Sequence[str] | None = None,
    features: str | Sequence[str] | None = None,
    models: Any = None,
    target: str | None = None,
    groups: str | None = None,
    normalize: str | Sequence[str] = "standardize",
    scorer: str = "outputs",
    target_labels: int = 0,
    folds: int = 5,
    seed: int = 0,
    jobs: int = -1,
    hooks: Hooks | None = None,
) -> FitResult:
    """Learn from a labelled source domain for a target domain whose labels are few or unknown.

    First, how far the domains lie apart is measured. Then a search on the source alone chooses features and top
    model, and the model's parameters anew for the source's rows as each adaptation moves or weighs them. On each of the folds, which divide both domains, every adaptation learns from the labelled training rows of
    the source and the unlabelled training rows of the target; the test parts give the figures, so that no target row
    is scored by a model that was adapted on it, or on an image of the same content. The target's labels take part in
    these figures and in nothing else (but see `target_labels`): an unsupervised scorer chooses the adaptation, and the
    unadapted model where it cannot tell the two apart. At last the chosen one is fitted to all rows.

    Parameters
    ----------
    bank : path-like or Bank
    domain : str
        Column of domains.
    source, target_domain : str
        Its values: the domain that has labels, and the one the predictor is for.
    adapt : str or sequence of str, optional
        The adaptations to choose from, of ``"none"``, ``"coral"``, ``"subspace"``, ``"reweight"`` and ``"ot"`` (see
        `featurebank.transfer.adapters.Adaptation`); by default all of them. The unadapted model is scored in any case.
    features, models, normalize : optional
        What the search on the source tries; see `featurebank.fit`.
    target : str, optional
        Column of classes; by default ``label``, or the bank's only column. Rows of the target may lack it.
    groups : str, optional
        Column of groups that never straddle folds, or ``"@near-duplicates"``. Identical content never does.
    scorer : str, default "outputs"
        What chooses without labels of the target. ``"outputs"``: accuracy on held-out rows of the source less the
        distance of the model's outputs on held-out rows of both (`featurebank.transfer.trials.outputs_distance`), in
        the spirit of the bound of Ben-David et al. (2010); it takes the classes to be about as frequent in both. By
        skada: ``"circular"`` (circular validation, Bruzzone and Marconcini 2010), ``"entropy"`` (prediction entropy,
        Morerio et al. 2018), ``"density"`` (soft neighbourhood density, Saito et al. 2021).
    target_labels : int, default 0
        Labelled rows of each class of the target, drawn with the seed, that join the training rows.
    folds : int, default 5
    seed : int, default 0
    jobs : int, default -1
        Threads of the search.
    hooks : Hooks, optional

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

    Notes
    -----
    The intervals are Wilson's for accuracies and a bootstrap of rows for F1, given these fits.

    Examples
    --------
    >>> result = fit_domain("solar.bank", domain="type", source="mono", target_domain="poly")  # doctest: +SKIP
    >>> result.report["chosen"]["target"]["accuracy"]  # doctest: +SKIP
    0.76
    """
    started, hooks = time.perf_counter(), hooks or Hooks()
    bank = bank if isinstance(bank, Bank) else Bank(bank)
    question = Question(target or default_target(bank), domain, source, target_domain)
    wanted = candidate_features(bank, features)
    names = list(dict.fromkeys(name for each in wanted for name in each))
    rows, both = load_domains(bank, names, question, groups)
    check_sizes(both, question, folds, target_labels)
    given = {each.name: each for each in parse_models(DEFAULT_MODELS["classification"] if models is None else models)}
    adaptations, notes = choose_adaptations(adapt, list(given.values()), *_counts(both))
    for model in given.values():
        check_scorer(scorer, model.estimator)
    shifts = _shifts(rows, both, wanted, folds, seed, question, hooks)
    search = _search(models, both, folds, seed, jobs, hooks.on_search).set_params(
        blocks=rows.blocks, features="all" if features == "all" else wanted, normalize=normalize
    )
    _fit_source(search, both, both.X)
    best, top = search.best_candidate_, given[search.best_model_]
    both = replace(both, X=np.concatenate([rows.X[:, rows.blocks[name]] for name in best.features], axis=1))
    plain = Recipe(normalization(best.normalize), top.pipeline(best.params, seed)[-1], scorer, target_labels, seed)
    parts = both.folds(folds, seed)
    tried = candidates(adaptations, _counts(both)[0], _fewest(both, parts), both.X.shape[1])
    tuning = _search(_only(models, best.model), both, folds, seed, jobs, None).set_params(normalize="none")
    params = [best.params, *(_tuned(tuning, each, plain, both) for each in tried[1:])]
    recipes = [replace(plain, model=top.pipeline(each, seed)[-1]) for each in params]
    trials = _run_all(tried, recipes, both, parts, hooks.on_adapt)
    found = Outcome(both, parts, tried, params, trials, adaptations, seed)
    everyone, recipe = np.arange(len(both.y)), recipes[found.best]
    fitted = recipe.fit(tried[found.best], both, everyone, recipe.learned(both, everyone))
    oof = found.frame(rows.table, question)
    report = {
        "n_samples": len(both.y),
        "classes": both.classes[np.unique(both.y[both.is_source])].tolist(),
        "target": question.target,
        "task": "classification",
        "scoring": "accuracy",
        "domain": _domain_facts(both, question),
        "folds": folds,
        "grouped": both.groups is not None,
        "seed": seed,
        "shift": shifts,
        "candidates": [candidate.to_dict() for candidate in search.candidates_],
        "best": best.to_dict(),
        "scorer": scorer,
        "target_labels": target_labels,
        "adaptations": [found.adaptation(number) for number in range(len(tried))],
        "chosen": found.chosen(),
        "warnings": rows.notes + notes + search.warnings_,
        "seconds": time.perf_counter() - started,
    }
    kept = {**report, "samples": oof[["source", "path", "fold"]].values.tolist(), "contents": contents_of(rows)}
    held, tensors = predictor_features(bank, best.features)
    calibrator = found.calibrator(fitted.model_)
    predictor = Predictor(held, fitted.pipeline_, question.target, calibrator=calibrator, fit=kept, tensors=tensors)
    return FitResult(search, report, predictor, oof)


def _counts(both: Domains) -> tuple[int, int]:
    return int(both.is_source.sum()), int((~both.is_source).sum())


def _domain_facts(both: Domains, question: Question) -> dict[str, Any]:
    n_source, n_target = _counts(both)
    return {
        "column": question.column,
        "source": question.source,
        "target": question.target_domain,
        "n_source": n_source,
        "n_target": n_target,
        "n_target_labelled": int(both.is_scored.sum()),
    }


def _shifts(
    rows: Rows,
    both: Domains,
    wanted: Sequence[Sequence[str]],
    folds: int,
    seed: int,
    question: Question,
    hooks: Hooks,
) -> list[dict[str, Any]]:
    """Measure the shift in each candidate's features."""
    shifts = []
    for names in wanted:
        X = np.concatenate([rows.X[:, rows.blocks[name]] for name in names], axis=1)
        found = domain_shift(X, both.is_source, groups=both.groups, folds=folds, seed=seed)
        if hooks.on_shift is not None:
            hooks.on_shift(list(names), found.sentence(question.source, question.target_domain))
        shifts.append({"features": list(names), **found.to_dict()})
    return shifts


def _search(
    models: Any, both: Domains, folds: int, seed: int, jobs: int, progress: Progress | None
) -> TopModelSearchCV:
    """Return a search over rows of the source."""
    cv = Folds(default_kind("classification", both.groups is not None), folds, seed=seed)
    return TopModelSearchCV(models, cv=cv, refit=False, random_state=seed, n_jobs=jobs, progress=progress)


def _fit_source(search: TopModelSearchCV, both: Domains, X: NDArray[Any], weight: NDArray[Any] | None = None) -> None:
    """Fit a search to the source's rows of X; Ctrl-C ends all, since no adaptation is scored yet."""
    chosen = both.is_source
    labels = both.classes[both.y[chosen]]
    groups, weight = (None if each is None else each[chosen] for each in (both.groups, weight))
    search.fit(X[chosen], labels, groups=groups, sample_weight=weight)
    if search.interrupted_:
        raise KeyboardInterrupt


def _only(models: Any, name: str) -> Any:
    """Return one of the models, as the search takes it."""
    if isinstance(models, Mapping):
        return {name: models[name]}
    own = [] if models is None or isinstance(models, str) else [each for each in models if not isinstance(each, str)]
    return next(([each] for each in own if type(each).__name__ == name), [name])


def _tuned(search: TopModelSearchCV, adaptation: Adaptation, plain: Recipe, both: Domains) -> dict[str, Any]:
    """Return the top model's best parameters for the source's rows as an adaptation moves or weighs them."""
    fitted = plain.fit(adaptation, both, np.arange(len(both.y)), np.flatnonzero(both.is_source))
    _fit_source(search, both, fitted.moved_, fitted.weight_)
    return dict(search.best_params_)


def _fewest(both: Domains, parts: Sequence[Fold]) -> int:
    """Return the rows of the target in the smallest training part."""
    return min(int((~both.is_source[train]).sum()) for train, _ in parts)


def _run_all(
    tried: Sequence[Adaptation],
    recipes: Sequence[Recipe],
    both: Domains,
    parts: Sequence[Fold],
    progress: Progress | None,
) -> list[list[Trial]]:
    """Run every adaptation on every fold."""
    trials: list[list[Trial]] = []
    for number, (adaptation, recipe) in enumerate(zip(tried, recipes, strict=True)):
        trials.append([])
        for fold in parts:
            trials[-1].append(run_trial(adaptation, recipe, both, fold))
            if progress is not None:
                progress(number * len(parts) + len(trials[-1]), len(tried) * len(parts))
    return trials
