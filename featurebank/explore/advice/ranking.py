"""Which features carry the target: a real top model on the same folds, beside measures that need no training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from featurebank.bank.bank import Bank, BankLike
from featurebank.bank.defaults import candidate_features, default_target
from featurebank.bank.display import as_html, records
from featurebank.errors import renamed
from featurebank.explore.advice.measures import h_score, logme
from featurebank.explore.advice.networks import complete_sets
from featurebank.explore.advice.probe import PROBE, Interval, best_by_features, compared, search_rows
from featurebank.fitting.targets import Target
from featurebank.fitting.training_data import TrainingData, load_rows, straddling
from featurebank.images.progress import shown
from featurebank.images.reading import Progress
from featurebank.topmodels.folds import Folds, default_kind, fold_numbers, sizes_of
from featurebank.topmodels.formatting import score_name, score_text
from featurebank.topmodels.search import TopModelSearchCV

MODELS = {"classification": "logreg", "regression": "svr"}
"""The real top model when none is named: quick, and not the ridge that is one of the measures."""
MEASURES = ("logme", "h_score", PROBE)
LEAST_SETS = 3
"""Feature sets that a rank correlation takes."""
COLUMNS = [
    *("features", "dimensions", "rows", "missing", "score", "ci_low", "ci_high"),
    *("difference", "difference_low", "difference_high", "told_apart", *MEASURES, "seconds"),
]


@dataclass(frozen=True, repr=False)
class Ranking:
    """Feature sets, the best first, and how far each measure ranks them as a real top model does.

    Attributes
    ----------
    table : DataFrame
        One row a candidate: ``features, dimensions, rows, missing`` (labelled samples with and without a row),
        ``score, ci_low, ci_high`` (of the real top model on the folds), ``difference, difference_low,
        difference_high, told_apart`` (to the best, on the same folds), ``logme``, ``h_score`` (NaN for numbers),
        ``ridge`` (its score on the same folds) and ``seconds`` (of the top model's fits). What lacks rows comes last,
        with NaN.
    correlations : DataFrame
        One row a measure: ``measure, spearman, kendall, sets``; NaN for fewer than `LEAST_SETS` sets.
    report : dict
        What ``featurebank compare --json`` prints beside these two.

    See Also
    --------
    featurebank.rank_features : What makes it.

    Examples
    --------
    >>> rank_features("photos.bank").table["features"].str.contains("penultimate").tolist().count(True)
    1
    """

    table: pd.DataFrame
    correlations: pd.DataFrame
    report: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``featurebank compare --json`` prints, missing values as None."""
        tables = {"features": self.table, "correlations": self.correlations}
        return {**self.report, **{name: records(each) for name, each in tables.items()}}

    def to_frame(self) -> pd.DataFrame:
        """Return the table."""
        return self.table

    def __repr__(self) -> str:
        best, report = self.table.iloc[0], self.report
        score = score_text(best["score"], report["scoring"])
        return f"<Ranking: {best['features']} first of {len(self.table)}, {report['model']} {score}>"

    def _repr_html_(self) -> str:
        return as_html(self, self.table)


@renamed(seed="random_state", jobs="n_jobs")
def rank_features(
    bank: BankLike,
    *,
    features: str | Sequence[str] | None = None,
    model: str | None = None,
    target: str | None = None,
    task: str | None = None,
    groups: str | None = None,
    sample_weight: str | None = None,
    folds: int = 5,
    repeats: int = 1,
    scoring: str | None = None,
    random_state: int = 0,
    n_jobs: int = -1,
    progress: Progress | None = None,
) -> Ranking:
    """Rank a bank's feature sets by a real top model, and by measures that need no training.

    Parameters
    ----------
    bank : path-like or Bank
    features : str or sequence of str, optional
        Feature sets, ``A+B`` for a concatenation; by default every pooled set. One that is named and lacks rows is an
        error; of all, one that does is listed without scores.
    model : str, optional
        The real top model (`featurebank.topmodels.models`), the best cell of its grid for each candidate; by default
        ``logreg``, or ``svr`` for numbers.
    target, task, groups, sample_weight, folds, repeats, scoring, random_state, n_jobs, progress
        See `featurebank.fit`. LogME and the H-score know no weights.

    Returns
    -------
    Ranking

    Raises
    ------
    FeatureBankError
        A child of it says what was found, what was expected and what to do.

    See Also
    --------
    advise : Which transfer, from the same evidence.
    fit : The real search.

    Examples
    --------
    >>> rank_features("photos.bank").table["score"].tolist()
    [1.0, 1.0]
    """
    started = time.perf_counter()
    bank = Bank.of(bank)
    wanted = Target([target or default_target(bank)], task=task)
    candidates = candidate_features(bank, features)
    lacking: dict[str, int] = {}
    notes: list[str] = []
    if features is None:
        table = bank.select(wanted.name, *([sample_weight] if sample_weight else []))
        candidates, lacking, notes = complete_sets(bank, candidates, table)
    names = list(dict.fromkeys(name for each in candidates for name in each))
    rows = load_rows(bank, names, wanted, groups, sample_weight)
    model = model or MODELS[rows.task]
    models = list(dict.fromkeys([model, PROBE]))
    cv = Folds(default_kind(rows.task, rows.groups is not None), folds, repeats, random_state)
    search = search_rows(
        rows, candidates, models, cv, scoring=scoring, n_jobs=n_jobs, progress=shown(progress, "compare")
    )
    ranked = pd.concat([_scored(rows, search, model), _unscored(len(rows.y), lacking)], ignore_index=True)[COLUMNS]
    ranked = ranked.astype({"dimensions": "Int64", "rows": int, "missing": int, "told_apart": "boolean"})
    report = {
        "n_samples": len(rows.y),
        "classes": np.unique(rows.y).tolist() if rows.task == "classification" else [],
        "target": wanted.name,
        "task": rows.task,
        "model": model,
        "scoring": scoring or ("r2" if rows.task == "regression" else "accuracy"),
        "folds": len(search.folds_),
        "seed": random_state,
        "warnings": notes + rows.notes + straddling(rows, fold_numbers(search.folds_, len(rows.y)), groups),
        "seconds": time.perf_counter() - started,
    }
    return Ranking(ranked, correlations(ranked), report)


def _scored(rows: TrainingData, search: TopModelSearchCV, model: str) -> pd.DataFrame:
    """Return the rows of the table that have scores, the best first."""
    real, probe = (best_by_features(search.candidates_, name) for name in (model, PROBE))
    best = max(real.values(), key=lambda each: each.mean)
    scoring, found = score_name(search.scoring, search.task), []
    for names, each in real.items():
        X = rows.features(names)
        gap = Interval(0.0, 0.0, 0.0)  # the best, to itself
        if each is not best:
            gap = compared(each.fold_scores, best.fold_scores, sizes_of(search.folds_), scoring, search.trials_)
        found.append(
            {
                "features": "+".join(names),
                "dimensions": X.shape[1],
                "rows": len(X),
                "missing": 0,
                "score": each.mean,
                **dict(zip(("ci_low", "ci_high"), each.ci95, strict=True)),
                **dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True)),
                "told_apart": gap.low > 0 or gap.high < 0,
                "logme": logme(X, rows.y, task=rows.task),
                "h_score": h_score(X, rows.y) if rows.task == "classification" else np.nan,
                PROBE: probe[names].mean,
                "seconds": sum(
                    one.seconds for one in search.candidates_ if (one.features, one.model) == (names, model)
                ),
            }
        )
    return pd.DataFrame(found).sort_values("score", ascending=False, kind="stable")


def _unscored(count: int, lacking: Mapping[str, int]) -> pd.DataFrame:
    """Return the rows of the table for sets that lack rows of some of `count` samples."""
    found = [{"features": name, "rows": count - missing, "missing": missing} for name, missing in lacking.items()]
    return pd.DataFrame(found, columns=COLUMNS if found else ["features"])


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlation of each measure with the scores of a real top model.

    Spearman's (1904) and Kendall's (1938, tau-b) over the feature sets that have scores.

    Examples
    --------
    >>> table = pd.DataFrame({"score": [0.7, 0.8, 0.9], "logme": [1, 2, 3], "h_score": [3, 2, 1], "ridge": [1, 3, 2]})
    >>> correlations(table)[["measure", "spearman"]].values.tolist()
    [['logme', 1.0], ['h_score', -1.0], ['ridge', 0.5]]
    """
    found = []
    for measure in MEASURES:
        pairs = table[["score", measure]].dropna()
        enough = len(pairs) >= LEAST_SETS and pairs.nunique().min() > 1  # a constant has no ranks
        ways = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}
        values = {name: float(way(*pairs.to_numpy().T).statistic) if enough else np.nan for name, way in ways.items()}
        found.append({"measure": measure, **values, "sets": len(pairs)})
    return pd.DataFrame(found)
