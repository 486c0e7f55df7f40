"""fit(): a bank's embeddings -> cross-validated top models -> the predictor of the best."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import check_scoring

from featurebank.bank import Bank, column_of, values_of, weights_of
from featurebank.errors import BankError, ColumnError
from featurebank.folds import fold_numbers, tie
from featurebank.neighbours import THRESHOLD, near_duplicate_groups, near_duplicate_pairs
from featurebank.predictor import Predictor
from featurebank.predictor_file import EMBEDDED, PredictorFeature
from featurebank.samples import SampleTable
from featurebank.scores import corrected_interval
from featurebank.search import TopModelSearchCV
from featurebank.spec import FeatureSpec

MODELS = ("logreg", "svm", "mlp")
NEAR_DUPLICATES = ("@near-duplicates", "near-duplicates")
NEAR_DUPLICATE_ROWS = 20_000

Progress = Callable[[int, int], None]


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
    nested: bool = False,
    scoring: str = "accuracy",
    seed: int = 0,
    jobs: int = -1,
    progress: Progress | None = None,
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
        Column of groups that never straddle folds, or ``"@near-duplicates"`` to tie images that look alike. Rows of
        identical content never straddle folds.
    sample_weight : str, optional
        Column of weights, used in fitting and in scoring.
    folds : int, default 5
        ``StratifiedKFold(folds, shuffle=True, random_state=seed)``, grouped where rows belong together.
    nested : bool, default False
        Also score the whole procedure, selection included, on test parts that the search never saw.
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
    rows = _load_rows(bank, candidates, target, groups, sample_weight)
    search = TopModelSearchCV(
        models,
        cv=folds,
        scoring=scoring,
        blocks=rows.blocks,
        features=candidates,
        random_state=seed,
        n_jobs=jobs,
        progress=_part(progress, 0, folds + 1 if nested else 1),
    ).fit(rows.X, rows.y, groups=rows.groups, sample_weight=rows.weight)
    report = {
        "n_samples": len(rows.y),
        "classes": search.classes_.tolist(),
        "target": target,
        "scoring": scoring,
        "folds": len(search.folds_),
        "grouped": rows.groups is not None,
        "seed": seed,
        "candidates": [candidate.to_dict() for candidate in search.candidates_],
        "best": search.best_candidate_.to_dict(),
        "warnings": rows.notes + _straddling(rows, search, groups) + search.warnings_,
    }
    if nested:
        report["nested"] = _nested(search, rows, progress)
    report["seconds"] = time.perf_counter() - started
    kept = {**report, "samples": _fold_of_each(rows.table, search)}
    return FitResult(search, report, _predictor(bank, search, rows, target, kept))


@dataclass(frozen=True)
class _Rows:
    """The rows of a fit: samples, embeddings of all feature sets side by side, labels, weights, groups."""

    table: SampleTable
    X: NDArray[np.float32]
    blocks: dict[str, slice]
    y: NDArray[Any]
    weight: NDArray[np.float64] | None
    groups: NDArray[np.int64] | None
    notes: list[str]

    @property
    def alike(self) -> NDArray[np.float32]:
        """The embeddings that near-duplicates are looked for in: the penultimate ones, else the first set's."""
        names = sorted(self.blocks, key=lambda name: "/penultimate" not in name)
        return self.X[:, self.blocks[names[0]]]


def _load_rows(
    bank: Bank, candidates: list[list[str]], target: str, groups: str | None, sample_weight: str | None
) -> _Rows:
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate))
    table = bank.select(target, *([sample_weight] if sample_weight else []))
    rows = _Rows(
        table,
        bank.features(names, table),
        bank.blocks(names),
        values_of(table, target),
        weights_of(table, sample_weight) if sample_weight else None,
        None,
        _data_warnings(bank, table, target, sample_weight),
    )
    return replace(rows, groups=_groups(rows, groups))


def _part(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Return a progress callback for one of several searches of equal size."""
    if progress is None:
        return None
    return lambda done, total: progress(part * total + done, parts * total)


def _nested(search: TopModelSearchCV, rows: _Rows, progress: Progress | None) -> dict[str, Any]:
    """Score the whole procedure: the search runs again inside each fold's training part."""
    scores = []
    parts = len(search.folds_) + 1
    for number, (train, test) in enumerate(search.folds_, 1):
        inner = clone(search).set_params(progress=_part(progress, number, parts))
        weight = None if rows.weight is None else rows.weight[train]
        inner.fit(
            rows.X[train],
            rows.y[train],
            groups=None if rows.groups is None else rows.groups[train],
            sample_weight=weight,
        )
        options = {} if rows.weight is None else {"sample_weight": rows.weight[test]}
        scorer = check_scoring(inner.best_estimator_, search.scoring)
        scores.append(float(scorer(inner.best_estimator_, rows.X[test], rows.y[test], **options)))
    sizes = [(len(train), len(test)) for train, test in search.folds_]
    n_train, n_test = (float(np.mean(side)) for side in zip(*sizes, strict=True))
    return {
        "mean": float(np.mean(scores)),
        "ci95": list(corrected_interval(scores, n_train, n_test)),
        "fold_scores": scores,
    }


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


def _groups(rows: _Rows, column: str | None) -> NDArray[np.int64] | None:
    """Return groups that hold identical content together, and what the user named; None when nothing ties rows."""
    digests = rows.table.rows["digest"].to_numpy()
    if column in NEAR_DUPLICATES:
        return tie(near_duplicate_groups(rows.alike), digests)
    if column is not None:
        return tie(values_of(rows.table, column), digests)
    return tie(digests) if len(set(digests)) < len(digests) else None


def _straddling(rows: _Rows, search: TopModelSearchCV, groups: str | None) -> list[str]:
    """Say how many rows have a near-duplicate in another fold, whose score is then too good."""
    if groups in NEAR_DUPLICATES:
        return []
    if len(rows.y) > NEAR_DUPLICATE_ROWS:
        return [f"not checked for near-duplicates (over {NEAR_DUPLICATE_ROWS} rows); --groups @near-duplicates does"]
    pairs = near_duplicate_pairs(rows.alike)
    fold = fold_numbers(search.folds_, len(rows.y))
    torn = pairs[fold[pairs[:, 0]] != fold[pairs[:, 1]]]
    if not len(torn):
        return []
    return [
        f"{len(np.unique(torn))} samples have a near-duplicate (cosine distance below {THRESHOLD:g}) in another fold, "
        "which flatters every score; --groups @near-duplicates keeps them together"
    ]


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


def _predictor(bank: Bank, search: TopModelSearchCV, rows: _Rows, target: str, report: dict[str, Any]) -> Predictor:
    """Make the predictor of a search's best candidate."""
    steps = dict(search.best_estimator_.steps)
    steps.pop("select", None)  # a predictor computes just the features that its model sees
    model = type(search.best_estimator_)(list(steps.items()))
    calibrator = (
        None if hasattr(model, "predict_proba") else search.calibrate(rows.X, rows.y, sample_weight=rows.weight)
    )
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
