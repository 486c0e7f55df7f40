"""Committees across backbones: solar cells under protocol B, nested; digits; random labels; what a predictor costs.

In each outer fold everything is chosen inside the training part: the one backbone and its parameters, and the committee
among all candidates (each backbone, and the concatenations of two and of three). Both give calibrated probabilities of
the outer test part; beside them stands the plain mean of the three backbones. Each repeat draws five new outer folds.

    python tests/benchmarks/committee.py FOLDER [--only solar|digits|random|predictor] [--protocol B] [--repeats 5]

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
from featurebank.topmodels.comparison import selection_bias
from featurebank.topmodels.folds import make_folds, sizes_of
from featurebank.topmodels.scores import paired_interval
from featurebank.topmodels.search import TopModelSearchCV
from featurebank_cli.solar_cells import cells_folder, write_manifest

LITE = [f"blocks.{number}:avgmax" for number in (2, 3, 4, 5)]
MOBILE = [f"features.{number}:avgmax" for number in (6, 10, 13, 17)]
BACKBONES = {"efficientnet_lite0": LITE, "efficientnet_lite1": LITE, "mobilenet_v2": MOBILE}
MODELS = {"svm": {"C": [3.0, 10.0]}}


class Compared(TopModelSearchCV):
    """A search that keeps, fitted: the best of one backbone and of each, the best single candidate, the committee."""

    def _keep(self, run: Any) -> None:
        found, every = run.finished(), run.groups
        ways = {"one backbone": (1, self.alone), "single": (1, None), "committee": (None, None)}
        ways |= {features[0]: (1, [features]) for features in self.alone}
        self.formed = {}
        for name, (members, features) in ways.items():
            run.groups = [each for each in every if features is None or each.features in features]
            some = [(group, candidate) for group, candidate in found if group in run.groups]
            formed = form_committee(run, some, members, ())
            self.formed[name] = formed, formed.fitted(run, 0)
        run.groups = every
        super()._keep(run)

    def told(self, X: Any) -> dict[str, Any]:
        """Return the probabilities of each, and their plain mean over the backbones."""
        said = {name: model.predict_proba(X) for name, (_, model) in self.formed.items()}
        alone = [said.pop(features[0]) for features in self.alone]
        return said | {"plain mean": np.mean(alone, axis=0)}


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


def solar(bank: Bank, protocol: str, repeats: int) -> dict[str, Any]:
    """Compare one backbone with a committee, everything chosen inside the training part of five folds."""
    families = sets_of(bank)
    names = [name for family in families for name in family]
    X, y = bank.load(names, protocol)
    candidates = [list(chain(*some)) for count in (1, 2, 3) for some in combinations(families, count)]
    options = {"models": MODELS, "blocks": bank.blocks(names), "features": candidates}
    return nested(X, y, options, [tuple(each) for each in families], repeats)


def digits(repeats: int) -> dict[str, Any]:
    """Compare, nested, the best model of the digits with a committee of models."""
    X, y = load_digits(return_X_y=True)
    blocks = {"all": slice(0, 64), "upper": slice(0, 32), "lower": slice(32, 64)}
    models = {"svm": {"C": [1.0, 10.0]}, "logreg": {"C": [0.1]}, "knn": {"n_neighbors": [3]}, "lda": {}}
    return nested(X, y, {"models": models, "blocks": blocks}, [("all",)], repeats)


def nested(X: Any, y: Any, options: dict[str, Any], alone: list[tuple[str, ...]], repeats: int) -> dict[str, Any]:
    """Compare the committee with the best of `alone` and the best single candidate, on rows that none has seen."""
    classes = np.unique(y)
    folds = [fold for seed in range(repeats) for fold in make_folds(5, X, y, None, seed)]
    scores: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    seconds = []
    for number, (train, test) in enumerate(folds):
        search = Compared(**options, ensemble=True, refine=0, n_jobs=1, refit=False)
        search.alone = alone
        search.fit(X[train], y[train])
        chosen = search.formed["committee"][0]
        seconds.append(chosen.report["seconds"])
        for name, proba in search.told(X[test]).items():
            scores.setdefault(name, []).append(float(np.mean(classes[proba.argmax(axis=1)] == y[test])))
            losses.setdefault(name, []).append(float(log_loss(y[test], proba, labels=classes)))
            print(f"fold {number}, {name}: {scores[name][-1]:.4f}, log loss {losses[name][-1]:.4f}", flush=True)
        pairs = zip(chosen.members, chosen.weights, strict=True)
        print("   ", [(each.candidate.model, len(each.candidate.features), weight) for each, weight in pairs])
    mean_loss = {name: float(np.mean(each)) for name, each in losses.items()}
    return {
        "accuracy": {name: float(np.mean(each)) for name, each in scores.items()},
        "log_loss": mean_loss,
        "log_loss_change": mean_loss["committee"] / mean_loss["one backbone"] - 1,
        **{f"gain_over_{name}": against(scores, name, folds) for name in scores if name != "committee"},
        "selection_seconds": {"median": float(np.median(seconds)), "highest": max(seconds)},
        "fold_scores": scores,
    }


def against(scores: dict[str, list[float]], name: str, folds: Any) -> dict[str, Any]:
    """Return the gain of the committee over another, with its interval and in how many folds it is the better one."""
    pairs = list(zip(scores["committee"], scores[name], strict=True))
    counts = {"better": sum(one > other for one, other in pairs), "worse": sum(one < other for one, other in pairs)}
    return paired_interval(scores["committee"], scores[name], *sizes_of(folds)) | counts | {"folds": len(pairs)}


def random_labels(bank: Bank, repeats: int) -> dict[str, Any]:
    """Score committees on labels that are drawn at random, beside chance and what the search says of its luck.

    The standard error is of the draws: answers to cells that look alike go together, so that the rows tell less than
    their number.
    """
    names = [name for family in sets_of(bank) for name in family]
    X, _ = bank.load(names, "B")
    random = np.random.default_rng(0)
    found: dict[str, list[float]] = {"committee": [], "single, selected": [], "luck of the single": []}
    for _ in range(repeats):
        rows = random.choice(len(X), 600, replace=False)
        y = random.permutation(np.arange(600) % 2)
        search = TopModelSearchCV(["svm"], blocks=bank.blocks(names), ensemble=True, n_jobs=1, refit=False)
        search.fit(X[rows], y)
        single = [each for each in search.candidates_ if each.model != "committee"]
        best = max(single, key=lambda each: each.mean)
        found["committee"].append(search.committee_.candidate.mean)
        found["single, selected"].append(best.mean)
        found["luck of the single"].append(selection_bias(single, best))
        print(f"random labels, {len(single)} candidates:", {name: each[-1] for name, each in found.items()}, flush=True)
    error = float(np.std(found["committee"], ddof=1) / np.sqrt(repeats)) if repeats > 1 else None
    return {**{name: float(np.mean(each)) for name, each in found.items()}, "chance": 0.5, "standard_error": error}


def predictor(bank: Bank, folder: Path) -> dict[str, Any]:
    """Make a predictor of three backbones; compare it with the mean of its members, and its cost with a clock.

    It is chosen by log loss, by which averaging surely pays, so that it is shipped.
    """
    families = ["+".join(each) for each in sets_of(bank)]
    options = {"models": {"svm": {"C": [10.0]}}, "target": "B", "scoring": "neg_log_loss"}
    result = fit(bank, features=families, **options, ensemble=True, n_jobs=1)
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
    parser.add_argument("--repeats", type=int, default=1, help="of the outer folds, and of drawing random labels")
    options = parser.parse_args()
    wanted = options.only or ["solar", "digits", "random", "predictor"]
    bank = solar_bank(options.folder) if set(wanted) - {"digits"} else None
    run = {
        "solar": lambda: solar(bank, options.protocol, options.repeats),
        "digits": lambda: digits(options.repeats),
        "random": lambda: random_labels(bank, options.repeats),
        "predictor": lambda: predictor(bank, options.folder),
    }
    for name in wanted:
        print(json.dumps({name: run[name]()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
