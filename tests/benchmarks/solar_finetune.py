"""Fine-tuning on the solar cells under protocols A and C, beside the frozen features on the same splits.

A: defective where p > 0, weighted by p, five 75/25 splits stratified by label and type. C: only p = 0 or 1, five
stratified folds. In each split the head, the epoch and whatever else is chosen come from its training rows alone. A
third model averages the probabilities of the frozen features' SVM and of the fine-tuned network.

    python tests/benchmarks/solar_finetune.py FOLDER --protocol A --cut blocks.5 --size 300 --set epochs=16

FOLDER keeps the bank, so that another run with the same cut and size computes no activations.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.model_selection import StratifiedShuffleSplit

from featurebank import Bank, Recipe
from featurebank.bank import values_of, weights_of
from featurebank.demo import BLOCKS, cells_folder, write_manifest
from featurebank.evaluation import fit_pipeline
from featurebank.extraction import run_extraction
from featurebank.features import as_keys
from featurebank.finetuning.estimate import estimate
from featurebank.finetuning.labels import Labels
from featurebank.finetuning.network import Feed
from featurebank.finetuning.setup import Origin, Setup
from featurebank.finetuning.tuning import Watch, train_network
from featurebank.folds import Fold, make_folds, sizes_of
from featurebank.request import ask
from featurebank.scores import corrected_interval, paired_interval
from featurebank.sources import scan, source_of
from featurebank.topmodels import get_top_model
from featurebank.transforms import normalization
from featurebank.views import count_views

SPLITS = 5


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--protocol", choices=["A", "C"], default="A")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--cut", default="blocks.5")
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--splits", type=int, nargs="+", default=range(SPLITS), help="which of the five are run")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of Recipe")
    return parser.parse_args()


def value_of(text: str) -> Any:
    """Return a number where the text is one, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def open_bank(options: argparse.Namespace) -> Bank:
    """Return the bank with the frozen features: middle blocks, flips averaged."""
    cells = cells_folder()
    options.folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(cells, options.folder / "solar_cells.csv")
    bank = Bank.create(options.folder / "solar.bank")
    layers = [f"{block}:avgmax" for block in BLOCKS]
    wanted = ask(options.backbone, layers, size=options.size, views="flips")
    run_extraction(scan(manifest, root=cells), bank, wanted)
    return bank


def make_setup(bank: Bank, options: argparse.Namespace) -> tuple[Setup, list[Fold]]:
    """Return what is learned from, and the splits."""
    table = bank.select(options.protocol)
    y = values_of(table, options.protocol)
    weight = weights_of(table, "A_weight") if options.protocol == "A" else None
    chosen = {name: value_of(value) for name, _, value in (text.partition("=") for text in options.set)}
    recipe = Recipe(options.cut, **{"augment": "cached:flips", "views": "flips", "epochs": 16, **chosen})
    labels = Labels(y, list(table.rows["digest"]), None, weight)
    setup = Setup(bank, Origin(options.backbone, "DEFAULT", options.size), source_of(table), labels, recipe)
    X = np.zeros((len(y), 1))
    if options.protocol == "A":
        strata = np.char.add(y, values_of(table, "type"))
        splits = list(StratifiedShuffleSplit(SPLITS, test_size=0.25, random_state=0).split(X, strata))
    else:
        splits = make_folds(SPLITS, X, y, labels.ties, 0)
    return setup, [splits[number] for number in options.splits]


def frozen_embeddings(bank: Bank, options: argparse.Namespace) -> NDArray[np.float32]:
    """Return the demo's features of each row: the middle blocks, flips averaged, side by side."""
    wanted = ask(options.backbone, [f"{block}:avgmax" for block in BLOCKS], size=options.size, views="flips")
    keys = as_keys(bank.select(options.protocol).rows["digest"])
    return np.concatenate([bank.feature_set_of(spec).read(keys) for spec in wanted.specs(bank)], axis=1)


def frozen_chances(X: NDArray[np.float32], setup: Setup, split: Fold) -> NDArray[np.float64]:
    """Return what the demo's SVM makes of a split's test rows: the chance of the second class."""
    part = setup.labels.take(split[0])
    model = get_top_model("svm").pipeline({"C": 10.0}, 0, normalization("standardize"))
    return expit(fit_pipeline(model, X[split[0]], part.y, part.weight).decision_function(X[split[1]]))


def tuned_chances(setup: Setup, feed: Feed, split: Fold) -> NDArray[np.float64]:
    """Return what fine-tuning on a split's training rows makes of its test rows."""
    tell = lambda epoch: print(f"  {epoch}", file=sys.stderr, flush=True)  # noqa: E731
    trained = train_network(setup, feed, rows=np.sort(split[0]), watch=Watch(on_epoch=tell))
    logits = trained.network.logits(feed, split[1], count_views(setup.recipe.views), setup.recipe.batch_size)
    return softmax(logits.astype(np.float64), axis=1)[:, 1]


def accuracies(chances: dict[str, NDArray[np.float64]], setup: Setup, test: NDArray[np.int64]) -> dict[str, float]:
    """Return the (weighted) accuracy of each model on the test rows."""
    classes, part = np.unique(setup.labels.y), setup.labels.take(test)
    right = {name: classes[(each > 0.5).astype(int)] == part.y for name, each in chances.items()}
    return {name: float(np.average(each, weights=part.weight)) for name, each in right.items()}


def report(scores: list[dict[str, float]], splits: list[Fold]) -> None:
    """Print the mean of each model with its interval, and the differences to the frozen one."""
    sizes = sizes_of(splits)
    values = {name: [each[name] for each in scores] for name in scores[0]}
    for name, each in values.items():
        low, high = corrected_interval(each, *sizes)
        print(f"{name}: {np.mean(each):.4f}, 95 % interval [{low:.4f}, {high:.4f}]")
    for name in list(values)[1:]:
        print(f"{name} less frozen: {paired_interval(values[name], values['frozen'], *sizes)}")


def main() -> None:
    """Print the accuracy on each split, frozen, fine-tuned, and of both probabilities averaged; then their means."""
    options = read_options()
    bank = open_bank(options)
    setup, splits = make_setup(bank, options)
    X, scores = frozen_embeddings(bank, options), []
    print(f"{setup.recipe}\nestimate for one training: {estimate(setup)}", flush=True)
    feed, _ = setup.feed()
    for split in splits:
        started = time.perf_counter()
        chances = {"frozen": frozen_chances(X, setup, split), "tuned": tuned_chances(setup, feed, split)}
        chances["averaged"] = (chances["frozen"] + chances["tuned"]) / 2
        scores.append(accuracies(chances, setup, split[1]))
        print(json.dumps({**scores[-1], "seconds": time.perf_counter() - started}), flush=True)
    if len(scores) > 1:
        report(scores, splits)


if __name__ == "__main__":
    main()
