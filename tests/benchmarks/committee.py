"""Committees across backbones: solar cells under protocol B, nested; digits; random labels; what a predictor costs.

In each of five outer folds everything is chosen inside the training part: the one backbone and its parameters, and the
committee among all candidates (each backbone, and the concatenations of two and of three). Both give calibrated
probabilities of the outer test part.

    python tests/benchmarks/committee.py FOLDER [--only solar|digits|random|predictor] [--protocol B] [--out FILE]

FOLDER gets ``solar.bank`` (three backbones at 224 px, minutes on a CPU) where it is not there yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import chain, combinations
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from mobilenet import mobilenet_weights
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from featurebank import Bank, Predictor, extract, fit
from featurebank.bank.images import source_of
from featurebank.topmodels.committees.models import probabilities_of
from featurebank.topmodels.committees.search import form_committee
from featurebank.topmodels.folds import make_folds, sizes_of
from featurebank.topmodels.scores import paired_interval
from featurebank.topmodels.search import TopModelSearchCV
from featurebank_cli.solar_cells import cells_folder, write_manifest

LITE = [f"blocks.{number}:avgmax" for number in (2, 3, 4, 5)]
MOBILE = [f"features.{number}:avgmax" for number in (6, 10, 13, 17)]
BACKBONES = {"efficientnet_lite0": LITE, "efficientnet_lite1": LITE, "mobilenet_v2": MOBILE}
MODELS = {"svm": {"C": [3.0, 10.0]}}


class Compared(TopModelSearchCV):
    """A search that keeps the best of one backbone, the best single candidate and the committee, all fitted."""

    def _keep(self, run: Any) -> None:
        found, every = run.finished(), run.groups
        ways = {"one backbone": (1, self.alone), "single": (1, None), "committee": (None, None)}
        self.formed = {}
        for name, (members, features) in ways.items():
            run.groups = [each for each in every if features is None or each.features in features]
            some = [(group, candidate) for group, candidate in found if group in run.groups]
            formed = form_committee(run, some, members, ())
            self.formed[name] = formed, formed.fitted(run, 0)
        run.groups = every
        super()._keep(run)


def solar_bank(folder: Path) -> Bank:
    """Extract the solar cells with three backbones, what is missing of it."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest, bank = write_manifest(cells_folder(), folder / "solar.csv"), folder / "solar.bank"
    weights = folder / "mobilenet_v2.pth"
    if not weights.exists():
        mobilenet_weights(weights)
    for name, layers in BACKBONES.items():
        own = str(weights) if name == "mobilenet_v2" else "DEFAULT"
        extract(str(manifest), bank, root=cells_folder(), backbone=name, layers=layers, weights=own, size=224)
    return Bank(bank)


def sets_of(bank: Bank) -> list[list[str]]:
    """Return the middle layers of each backbone."""
    return [[f"{name}/{layer}" for layer in layers] for name, layers in BACKBONES.items()]


def solar(bank: Bank, protocol: str) -> dict[str, Any]:
    """Compare one backbone with a committee, everything chosen inside the training part of five folds."""
    families = sets_of(bank)
    names = [name for family in families for name in family]
    X, y = bank.load(names, protocol)
    classes = np.unique(y)
    blocks = bank.blocks(names)
    candidates = [list(chain(*some)) for count in (1, 2, 3) for some in combinations(families, count)]
    folds = make_folds(5, X, y, None, 0)
    scores: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    seconds = []
    for number, (train, test) in enumerate(folds):
        search = Compared(MODELS, blocks=blocks, features=candidates, ensemble=True, refine=0, n_jobs=1, refit=False)
        search.alone = [tuple(each) for each in families]
        search.fit(X[train], y[train])
        seconds.append(search.formed["committee"][0].report["seconds"])
        for name, (formed, model) in search.formed.items():
            proba = model.predict_proba(X[test])
            scores.setdefault(name, []).append(float(np.mean(classes[proba.argmax(axis=1)] == y[test])))
            losses.setdefault(name, []).append(float(log_loss(y[test], proba, labels=classes)))
            about = [
                (len(each.candidate.features), weight)
                for each, weight in zip(formed.members, formed.weights, strict=True)
            ]
            print(
                f"fold {number}, {name}: {scores[name][-1]:.4f}, log loss {losses[name][-1]:.4f}, {about}", flush=True
            )
    sizes = sizes_of(folds)
    return {
        "accuracy": {name: float(np.mean(each)) for name, each in scores.items()},
        "log_loss": {name: float(np.mean(each)) for name, each in losses.items()},
        "gain": paired_interval(scores["committee"], scores["one backbone"], *sizes),
        "gain_over_single": paired_interval(scores["committee"], scores["single"], *sizes),
        "folds_better": int(np.sum(np.array(scores["committee"]) > scores["one backbone"])),
        "selection_seconds": seconds,
        "fold_scores": scores,
    }


def digits() -> dict[str, Any]:
    """Compare, nested over five folds, the best model of the digits with a committee of models."""
    X, y = load_digits(return_X_y=True)
    blocks = {"all": slice(0, 64), "upper": slice(0, 32), "lower": slice(32, 64)}
    scores: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    folds = make_folds(5, X, y, None, 0)
    for train, test in folds:
        models = {"svm": {"C": [1.0, 10.0]}, "logreg": {"C": [0.1]}, "knn": {"n_neighbors": [3]}, "lda": {}}
        search = Compared(models, blocks=blocks, ensemble=True, refine=0, n_jobs=1, refit=False)
        search.alone = [("all",)]
        search.fit(X[train], y[train])
        for name, (_, model) in search.formed.items():
            proba = model.predict_proba(X[test])
            scores.setdefault(name, []).append(float(np.mean(proba.argmax(axis=1) == y[test])))
            losses.setdefault(name, []).append(float(log_loss(y[test], proba)))
    return {
        "accuracy": {name: float(np.mean(each)) for name, each in scores.items()},
        "log_loss": {name: float(np.mean(each)) for name, each in losses.items()},
        "gain": paired_interval(scores["committee"], scores["single"], *sizes_of(folds)),
    }


def random_labels(bank: Bank, repeats: int = 3) -> dict[str, Any]:
    """Score committees on labels that are drawn at random, beside chance."""
    names = [name for family in sets_of(bank) for name in family]
    X, _ = bank.load(names, "B")
    random, found = np.random.default_rng(0), {"committee": [], "single, selected": []}
    for _ in range(repeats):
        rows = random.choice(len(X), 600, replace=False)
        y = random.permutation(np.arange(600) % 2)
        search = TopModelSearchCV(["svm", "lda"], blocks=bank.blocks(names), ensemble=True, n_jobs=1, refit=False)
        search.fit(X[rows], y)
        found["committee"].append(search.committee_.candidate.mean)
        found["single, selected"].append(search.committee_.report["best_single"]["mean"])
    error = 0.5 / np.sqrt(600 * repeats)
    return {**{name: float(np.mean(each)) for name, each in found.items()}, "chance": 0.5, "standard_error": error}


def predictor(bank: Bank, folder: Path) -> dict[str, Any]:
    """Make a predictor of three backbones; compare it with the mean of its members, and its cost with a clock."""
    families = ["+".join(each) for each in sets_of(bank)]
    result = fit(bank, features=families, models={"svm": {"C": [10.0]}}, target="B", ensemble=True, n_jobs=1)
    result.save(folder / "committee.featurebank")
    made = Predictor.load(folder / "committee.featurebank", allow_download=False)
    about = {"sentence": result.report["ensemble"]["sentence"], "is_shipped": result.report["ensemble"]["is_shipped"]}
    if not about["is_shipped"]:
        return about
    table = bank.select("B")
    files = [os.fsdecode(path) for path in source_of(table).paths[:208]]
    X = made.load_rows(bank, table)
    committee = made.model.steps[-1][1]
    fixed = [each and each.estimator for each in committee.calibrators]
    members = [probabilities_of(*pair, X) for pair in zip(committee.members_, fixed, strict=True)]
    mean = sum(weight * each for weight, each in zip(committee.weights, members, strict=True))
    made.predict_table(files[:16])
    started = time.perf_counter()
    made.predict_table(files)
    measured = (time.perf_counter() - started) / len(files)
    cost = result.report["ensemble"]["cost"]
    return {
        **about,
        "off_the_mean_of_members": float(np.abs(made.probabilities(X) - mean).max()),
        "bank_against_images": float(np.abs(made.predict_proba(files[:16]) - made.probabilities(X)[:16]).max()),
        "cost": cost,
        "clock": measured,
        "cost_over_clock": cost["seconds_an_image"] / measured,
        "members": [[each["features"][0], each["weight"]] for each in result.report["ensemble"]["members"]],
    }


def main() -> None:
    """Run what is asked for, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["solar", "digits", "random", "predictor"], action="append")
    parser.add_argument("--protocol", choices=["B", "C"], default="B")
    options = parser.parse_args()
    wanted = options.only or ["solar", "digits", "random", "predictor"]
    bank = solar_bank(options.folder) if set(wanted) - {"digits"} else None
    run = {
        "solar": lambda: solar(bank, options.protocol),
        "digits": digits,
        "random": lambda: random_labels(bank),
        "predictor": lambda: predictor(bank, options.folder),
    }
    for name in wanted:
        print(json.dumps({name: run[name]()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
