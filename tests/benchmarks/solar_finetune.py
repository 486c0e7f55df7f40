"""Fine-tuning on the solar cells under protocols A and C, beside the frozen features on the same splits.

A: defective where p > 0, weighted by p, five 75/25 splits stratified by label and type. C: only p = 0 or 1, five
stratified folds. In each split the head, the epoch and whatever else is chosen come from its training rows alone.

    python tests/benchmarks/solar_finetune.py FOLDER --protocol A --cut blocks.5 --size 300 --set epochs=16

FOLDER keeps the bank, so that another run with the same cut and size computes no activations.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

from featurebank import Bank, Recipe
from featurebank.bank import values_of, weights_of
from featurebank.demo import BLOCKS, cells_folder, write_manifest
from featurebank.extraction import run_extraction
from featurebank.features import as_keys
from featurebank.finetuning.compare import Frozen, compare
from featurebank.finetuning.estimate import estimate
from featurebank.finetuning.labels import Labels
from featurebank.finetuning.setup import Origin, Setup
from featurebank.folds import Fold, make_folds
from featurebank.request import ask
from featurebank.sources import scan, source_of
from featurebank.topmodels import get_top_model
from featurebank.transforms import normalization

SPLITS = 5


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--protocol", choices=["A", "C"], default="A")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--cut", default="blocks.5")
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--splits", type=int, default=SPLITS, help="how many of the five are run")
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
    return setup, splits[: options.splits]


def frozen_side(bank: Bank, setup: Setup, options: argparse.Namespace) -> Frozen:
    """Return the recipe of the demo: an SVM on the middle blocks."""
    wanted = ask(options.backbone, [f"{block}:avgmax" for block in BLOCKS], size=options.size, views="flips")
    table = bank.select(options.protocol)
    keys = as_keys(table.rows["digest"])
    X = np.concatenate([bank.feature_set_of(spec).read(keys) for spec in wanted.specs(bank)], axis=1)
    model = get_top_model("svm").pipeline({"C": 10.0}, 0, normalization("standardize"))
    return Frozen(X, "middle blocks, flips, svm C=10", model, setup)


def main() -> None:
    """Print the comparison as JSON, and a sentence."""
    options = read_options()
    bank = open_bank(options)
    setup, splits = make_setup(bank, options)
    print(f"estimate for one training: {estimate(setup)}", flush=True)
    feed, _ = setup.feed()
    progress = lambda done, total: print(f"{done}/{total} splits", flush=True)  # noqa: E731
    found = compare(setup, feed, frozen_side(bank, setup, options), splits, progress=progress)
    print(json.dumps({"recipe": setup.recipe.to_dict(), **found}, indent=2))
    print(found["sentence"])


if __name__ == "__main__":
    main()
