"""fit(): a bank's embeddings -> cross-validated top models -> the predictor of the best."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank import Bank, column_of, values_of, weights_of
from featurebank.errors import BankError, ColumnError
from featurebank.folds import fold_numbers, tie
from featurebank.predictor import EMBEDDED, Predictor, PredictorFeature
from featurebank.samples import SampleTable
from featurebank.search import TopModelSearchCV
from featurebank.spec import FeatureSpec

MODELS = ("logreg", "svm", "mlp")


@dataclass
class FitResult:
    """What `fit` found.

    Attributes
    ----------
    search : TopModelSearchCV
        The fitted search, over the blocks of `report`'s features.
    report : dict
        ``n_samples, classes, folds, candidates, best, warnings, seconds, target``.
    predictor : Predictor
        The best candidate, refitted on all rows.
    """

    search: TopModelSearchCV
    report: dict[str, Any]
    predictor: Predictor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor file; see `Predictor.save`."""
        self.predictor.save(path)


def fit(
    bank: str | os.PathLike[str] | Bank,
    *,
    features: str | Sequence[str] | None = None,
    models: Any = MODELS,
    target: str | None = None,
    groups: str | None = None,
    sample_weight: str | None = None,
    folds: int = 5,
    scoring: str = "accuracy",
    seed: int = 0,
    jobs: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> FitResult:
    """Cross-validate top models over a bank's feature sets, on the same folds, and refit the best.

    Parameters
    ----------
    bank : path-like or Bank
    features : str or sequence of str, optional
        Candidates: names of feature sets, ``A+B`` for a concatenation. By default every pooled set of the bank.
    models : str, sequence of str, or mapping of str to grid, default ("logreg", "svm", "mlp")
        See `TopModelSearchCV`.
    target : str, optional
        Column of classes; by default ``label``, or the bank's only column.
    groups : str, optional
        Column of groups that never straddle folds. Rows of identical content never do.
    sample_weight : str, optional
        Column of weights, used in fitting and in scoring.
    folds : int, default 5
        ``StratifiedKFold(folds, shuffle=True, random_state=seed)``, grouped where rows belong together.
    scoring : str, default "accuracy"
        Any scikit-learn scorer.
    seed : int, default 0
        Of the folds and the estimators.
    jobs : int, default -1
        Threads; -1 for one a core.
    progress : callable, optional
        Called with (fits done, fits in all).

    Returns
    -------
    FitResult

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    Examples
    --------
    >>> result = fit("photos.bank", models=["logreg"])  # doctest: +SKIP
    >>> result.report["best"]["mean"]  # doctest: +SKIP
    0.91
    """
    started = time.perf_counter()
    bank = bank if isinstance(bank, Bank) else Bank(bank)
    target = target or default_target(bank)
    candidates = candidate_features(bank, features)
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate))
    table = bank.select(target, *([sample_weight] if sample_weight else []))
    y, warnings = values_of(table, target), _data_warnings(bank, table, target, sample_weight)
    tied = _groups(table, groups)
    weight = weights_of(table, sample_weight) if sample_weight else None
    X = bank.features(names, table)
    search = TopModelSearchCV(
        models,
        cv=folds,
        scoring=scoring,
        blocks=bank.blocks(names),
        features=candidates,
        random_state=seed,
        n_jobs=jobs,
        progress=progress,
    ).fit(X, y, groups=tied, sample_weight=weight)
    report = {
        "n_samples": len(y),
        "classes": search.classes_.tolist(),
        "target": target,
        "scoring": scoring,
        "folds": len(search.folds_),
        "grouped": tied is not None,
        "seed": seed,
        "candidates": [candidate.to_dict() for candidate in search.candidates_],
        "best": search.best_candidate_.to_dict(),
        "warnings": warnings + search.warnings_,
        "seconds": time.perf_counter() - started,
    }
    kept = {**report, "samples": _fold_of_each(table, search)}
    return FitResult(search, report, _predictor(bank, search, X, y, weight, target, kept))


def default_target(bank: Bank) -> str:
    """Return the column that is meant when none is named: ``label``, or the only one.

    Raises
    ------
    ColumnError
        When there is neither.
    """
    columns = list(bank.table.columns)
    if "label" in columns:
        return "label"
    if len(columns) != 1:
        have = ", ".join(map(repr, columns)) or "none"
        raise ColumnError(
            f"the bank has the columns {have}; name the one to learn (--target), or add it with `featurebank label`"
        )
    return columns[0]


def candidate_features(bank: Bank, features: str | Sequence[str] | None) -> list[list[str]]:
    """Return the feature sets of each candidate; by default every pooled set alone.

    Raises
    ------
    BankError
        When the bank has no pooled feature set.
    FeatureSetError
        When a name is not in the bank.
    """
    if features is not None:
        given = [features] if isinstance(features, str) else list(features)
        return [[bank.feature_set(name).name for name in each.split("+")] for each in given]
    pooled = [each.name for each in bank.feature_sets if each.spec.pool != "none" or each.spec.layout == "vector"]
    if not pooled:
        raise BankError(f"{str(bank.path)!r} has no pooled feature set; run `featurebank extract` first")
    return [[name] for name in pooled]


def _groups(table: SampleTable, column: str | None) -> NDArray[np.int64] | None:
    """Return groups that hold identical content together, and the column's groups; None when nothing ties rows."""
    digests = table.rows["digest"].to_numpy()
    if column is not None:
        return tie(values_of(table, column), digests)
    return tie(digests) if len(set(digests)) < len(digests) else None


def _data_warnings(bank: Bank, table: SampleTable, target: str, sample_weight: str | None) -> list[str]:
    """Say what a reader of the scores should know about the rows."""
    notes, readable = [], bank.select()
    for name in filter(None, (target, sample_weight)):
        missing = int(column_of(readable, name).isna().sum())
        if missing:
            notes.append(f"{missing} samples have no {name} and are left out")
    labels: dict[bytes, set[Any]] = {}
    for digest, value in zip(table.rows["digest"], column_of(table, target), strict=True):
        labels.setdefault(digest, set()).add(value)
    torn = sum(len(values) > 1 for values in labels.values())
    if torn:
        notes.append(
            f"{torn} images of identical content carry different values of {target}: "
            "correct them with `featurebank label`"
        )
    repeats = len(table) - len(labels)
    if repeats:
        notes.append(f"{repeats} samples repeat the content of another; folds keep them together")
    return notes


def _fold_of_each(table: SampleTable, search: TopModelSearchCV) -> list[list[Any]]:
    """Return [source, path, fold] of each row, so that others can use the same folds."""
    numbers = fold_numbers(search.folds_, len(table)).tolist()
    paths = (os.fsdecode(path) for path in table.rows["path"])
    return [list(row) for row in zip(table.rows["source"], paths, numbers, strict=True)]


def _predictor(
    bank: Bank,
    search: TopModelSearchCV,
    X: NDArray[np.float32],
    y: NDArray[Any],
    weight: NDArray[np.float64] | None,
    target: str,
    report: dict[str, Any],
) -> Predictor:
    """Make the predictor of a search's best candidate."""
    steps = dict(search.best_estimator_.steps)
    steps.pop("select", None)  # a predictor computes just the features that its model sees
    model = type(search.best_estimator_)(list(steps.items()))
    calibrator = None if hasattr(model, "predict_proba") else search.calibrate(X, y, sample_weight=weight)
    specs = [bank.feature_set(name).spec for name in search.best_features_]
    features = [_predictor_feature(bank, spec) for spec in specs]
    tensors = _tensors(bank, features)
    return Predictor(features, model, target, calibrator=calibrator, fit=report, tensors=tensors)


def _predictor_feature(bank: Bank, spec: FeatureSpec) -> PredictorFeature:
    requests = bank.requests_of(spec)
    if not requests:
        return PredictorFeature(spec, "", None)
    last = requests[-1]
    from_file = last["file"] is not None and last["weights"] != "DEFAULT"
    return PredictorFeature(spec, EMBEDDED if from_file else last["weights"], last["size"])


def _tensors(bank: Bank, features: Sequence[PredictorFeature]) -> dict[str, bytes]:
    """Return the tensors of backbones whose weights came from a file, which no name would find elsewhere."""
    tensors: dict[str, bytes] = {}
    for each in features:
        if each.weights == EMBEDDED and each.spec.weights not in tensors:
            from featurebank.backbones import dump_tensors, load_backbone

            request = bank.requests_of(each.spec)[-1]
            backbone = load_backbone(request["backbone"], request["weights"], request["size"])
            if backbone.weights != each.spec.weights:
                raise BankError(
                    f"{request['weights']!r} has changed since its features were extracted: bring the old file"
                )
            tensors[each.spec.weights] = dump_tensors(backbone)
    return tensors


def default_output(bank: Bank) -> Path:
    """Return where a predictor goes when nothing is said: the bank's stem with ``.featurebank``, beside it."""
    return bank.path.with_suffix(".featurebank")
