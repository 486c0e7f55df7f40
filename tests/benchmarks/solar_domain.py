"""Domain adaptation on the solar cells: from mono- to polycrystalline and back, unadapted and with each adaptation.

Protocol B (defective from p = 0.5 up), five seeds, five folds. Features and top model are chosen in the source alone;
the target's labels are used for the figures only. The last line of each table is a model that has the target's labels.

    python tests/benchmarks/solar_domain.py solar.bank --seeds 5 --model logreg --model svm
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from featurebank import Bank
from featurebank.bank.samples import values_of
from featurebank.fitting.adaptation.adapt import adapt
from featurebank.topmodels.models import get_top_model
from featurebank.topmodels.scores import corrected_interval
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.transforms import normalization

DIRECTIONS = [("mono", "poly"), ("poly", "mono")]
LABELLED = "labels of the target"

Scores = dict[str, list[tuple[float, float]]]


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--model", action="append", help="may be repeated")
    parser.add_argument("--features", action="append", help="may be repeated; by default every pooled set")
    parser.add_argument("--scorer", default="outputs")
    parser.add_argument("--label", default="B", help="column of classes")
    return parser.parse_args()


def main() -> None:
    """Print a table for each direction."""
    options = read_options()
    bank = Bank(options.bank)
    for source, target in DIRECTIONS:
        scores: Scores = defaultdict(list)
        chosen = []
        for seed in range(options.seeds):
            report, frame = run(bank, source, target, options, seed)
            best = report["chosen"]
            chosen.append(best["adapt"])
            print(f"seed {seed}: {report['best']['model']} on {'+'.join(report['best']['features'])}; {best['adapt']}")
            for name, column in columns(frame).items():
                scores[name] += by_fold(frame, column)
            scores[LABELLED] += labelled(bank, report, target, options.label, frame, seed)
        print_table(f"{source} -> {target}, {options.seeds} seeds, chosen {chosen}", scores)


def run(
    bank: Bank, source: str, target: str, options: argparse.Namespace, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit once; return the report and the out-of-fold predictions of the target's rows."""
    result = adapt(
        bank,
        domain="type",
        source=source,
        target_domain=target,
        target=options.label,
        features=options.features,
        models=options.model,
        scorer=options.scorer,
        random_state=seed,
    )
    return result.report, result.oof[result.oof["domain"] == target]


def columns(frame: pd.DataFrame) -> dict[str, str]:
    """Return the columns of predictions by the name of the adaptation."""
    found = {name.removeprefix("predicted_"): name for name in frame if name.startswith("predicted_")}
    return {**found, "chosen": "predicted"}


def by_fold(frame: pd.DataFrame, column: str) -> list[tuple[float, float]]:
    """Return accuracy and macro F1 of each fold."""
    return [
        (accuracy_score(part["true"], part[column]), f1_score(part["true"], part[column], average="macro"))
        for _, part in frame.groupby("fold")
    ]


def labelled(
    bank: Bank, report: dict[str, Any], target: str, label: str, frame: pd.DataFrame, seed: int
) -> list[tuple[float, float]]:
    """Score the same features and kind of model, fitted to the labels of the target's training rows."""
    best = report["best"]
    table = bank.select(label, "type")
    table = table.take(values_of(table, "type") == target)
    X, y, fold = bank.features(best["features"], table), values_of(table, label), frame["fold"].to_numpy()
    found = []
    for test in (fold == number for number in np.unique(fold)):
        search = TopModelSearchCV([best["model"]], refit=False, random_state=seed).fit(X[~test], y[~test])
        pipeline = get_top_model(best["model"]).pipeline(search.best_params_, seed, normalization("standardize"))
        said = pipeline.fit(X[~test], y[~test]).predict(X[test])
        found.append((accuracy_score(y[test], said), f1_score(y[test], said, average="macro")))
    return found


def print_table(title: str, scores: Scores) -> None:
    """Print mean and 95 % interval (Nadeau and Bengio 2003) of all folds and seeds."""
    print(f"\n{title}\n{'':22}{'accuracy %':>24}{'macro F1 %':>24}")
    for name, values in scores.items():
        cells = []
        for each in zip(*values, strict=True):
            low, high = corrected_interval(each, 4, 1)
            cells.append(f"{100 * np.mean(each):.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        print(f"{name:22}{cells[0]:>24}{cells[1]:>24}", flush=True)
    print()


if __name__ == "__main__":
    main()
