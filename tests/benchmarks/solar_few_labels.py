"""Few labels on the solar cells: does it pay to use the cells that have none?

Under protocol B, in each seed half of the cells are the test part, and of the other half 5, 10 or 50 a class keep
their label. All parameters come from the labelled ones. The intervals are over the seeds (Nadeau and Bengio 2003), and
those of the differences paired.

    python tests/benchmarks/solar_few_labels.py BANK --features penultimate --model logreg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedShuffleSplit

from featurebank import Bank
from featurebank.fitting.semi_supervised import METHODS, TrainingRows, supervised
from featurebank.topmodels.scores import corrected_interval, paired_interval
from featurebank.topmodels.search import TopModelSearchCV

SIZES = (5, 10, 50)
SIDES = {"supervised": supervised, **METHODS}


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path, help="with the solar cells, as the demo makes it")
    parser.add_argument("--features", default="penultimate")
    parser.add_argument("--model", default="logreg")
    parser.add_argument("--target", default="B")
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


def scores(X: np.ndarray, y: np.ndarray, model: str, size: int, seed: int) -> dict[str, float]:
    """Return the balanced accuracy of each side for one draw of labels."""
    half, test = next(StratifiedShuffleSplit(1, test_size=0.5, random_state=seed).split(X, y))
    random = np.random.default_rng(seed)
    labelled = np.concatenate([random.choice(half[y[half] == name], size, replace=False) for name in np.unique(y)])
    part = TrainingRows(X[labelled], y[labelled], None, X[np.setdiff1d(half, labelled)])
    search = TopModelSearchCV({model: None}, random_state=seed)
    return {name: balanced_accuracy_score(y[test], side(search, part).predict(X[test])) for name, side in SIDES.items()}


def main() -> None:
    """Print a table, and the same as JSON."""
    options = read_options()
    X, y = Bank(options.bank).load(options.features, options.target)
    rows = []
    for size in SIZES:
        found = [scores(X, y, options.model, size, seed) for seed in range(options.seeds)]
        base = [each["supervised"] for each in found]
        for name in SIDES:
            own, n = [each[name] for each in found], len(y) / 2
            row = {"labels": size, "method": name, "mean": np.mean(own), "ci95": corrected_interval(own, n, n)}
            rows.append({**row, "gain": paired_interval(own, base, n, n)})
            low, high = (100 * end for end in rows[-1]["ci95"])
            gain = " {:+5.1f} [{:+.1f}, {:+.1f}]".format(
                100 * rows[-1]["gain"]["difference"], *(100 * end for end in rows[-1]["gain"]["ci95"])
            )
            print(f"{size:3} a class  {name:14} {100 * np.mean(own):5.1f} [{low:.1f}, {high:.1f}] {gain}", flush=True)
    print(json.dumps({**vars(options), "bank": str(options.bank), "rows": rows}))


if __name__ == "__main__":
    main()
