"""Fine-tuning on the solar cells under protocols A and C, beside the frozen features on the same splits.

A: defective where p > 0, weighted by p, five 75/25 splits stratified by label and type. C: only p = 0 or 1, five
stratified folds. In each split the head, the epoch and whatever else is chosen come from its training rows alone. A
third model averages the probabilities of the frozen features' SVM and of the fine-tuned network; with several
backbones so do the SVMs, the networks, and all of them.

    python tests/benchmarks/solar_finetune.py FOLDER --protocol A --cut blocks.5 --size 300 --set epochs=16

FOLDER keeps the bank and the probabilities of every split, so that another run computes only what is new.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.model_selection import StratifiedShuffleSplit

from featurebank import Bank, Recipe
from featurebank.backbones.request import Request
from featurebank.bank.features import as_keys
from featurebank.bank.images import source_of
from featurebank.bank.samples import values_of, weights_of
from featurebank.bank.spec import digest_of
from featurebank.extraction.extract import run_extraction
from featurebank.finetuning.activations import Activations
from featurebank.finetuning.estimate import estimate
from featurebank.finetuning.experiment import Experiment, TrainingSet
from featurebank.finetuning.tuning import train_network
from featurebank.images.scanning import scan
from featurebank.images.views import count_views
from featurebank.topmodels.folds import Fold, make_folds, sizes_of
from featurebank.topmodels.models import get_top_model
from featurebank.topmodels.refitting import fit_pipeline
from featurebank.topmodels.scores import corrected_interval, paired_interval
from featurebank.topmodels.transforms import normalization
from featurebank_cli.solar_cells import BLOCKS, cells_folder, write_manifest

SPLITS = 5


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--protocol", choices=["A", "C"], default="A")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0"])
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
    """Return the bank with the frozen features of each backbone: middle blocks, flips averaged."""
    cells = cells_folder()
    options.folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(cells, options.folder / "solar_cells.csv")
    bank = Bank.create(options.folder / "solar.bank")
    for backbone in options.backbones:
        run_extraction(scan(manifest, root=cells), bank, features_of(backbone, options.size))
    return bank


def features_of(backbone: str, size: int | None) -> Request:
    """Return the demo's features: the middle blocks, flips averaged."""
    return Request(backbone, [f"{block}:avgmax" for block in BLOCKS], size=size, views="flips")


def learn_from(bank: Bank, options: argparse.Namespace) -> TrainingSet:
    """Return the labels and the weights of a protocol."""
    table = bank.select(options.protocol)
    weight = weights_of(table, "A_weight") if options.protocol == "A" else None
    return TrainingSet(values_of(table, options.protocol), list(table.rows["digest"]), None, weight)


def make_splits(bank: Bank, labels: TrainingSet, protocol: str) -> list[Fold]:
    """Return the five splits."""
    X = np.zeros((len(labels.y), 1))
    if protocol == "C":
        return make_folds(SPLITS, X, labels.y, labels.ties, 0)
    strata = np.char.add(labels.y, values_of(bank.select(protocol), "type"))
    return list(StratifiedShuffleSplit(SPLITS, test_size=0.25, random_state=0).split(X, strata))


def make_setup(bank: Bank, backbone: str, labels: TrainingSet, options: argparse.Namespace) -> Experiment:
    """Return what is learned from, and how."""
    chosen = {name: value_of(value) for name, _, value in (text.partition("=") for text in options.set)}
    recipe = Recipe(options.cut, **{"augment": "cached:flips", "views": "flips", "epochs": 16, **chosen})
    request = Request(backbone, size=options.size)
    return Experiment(bank, request, source_of(bank.select(options.protocol)), labels, recipe)


def frozen_embeddings(setup: Experiment) -> NDArray[np.float32]:
    """Return the demo's features of each row, side by side."""
    wanted = features_of(setup.request.backbone, setup.request.size)
    keys = as_keys(setup.data.digests)
    return np.concatenate([setup.bank.feature_set_of(spec).read(keys) for spec in wanted.specs(setup.bank)], axis=1)


def frozen_chances(X: NDArray[np.float32], setup: Experiment, split: Fold) -> NDArray[np.float64]:
    """Return what the demo's SVM makes of a split's test rows: the chance of the second class."""
    part = setup.data.take(split[0])
    model = get_top_model("svm").pipeline({"C": 10.0}, 0, normalization("standardize"))
    return expit(fit_pipeline(model, X[split[0]], part.y, part.weight).decision_function(X[split[1]]))


def tuned_chances(setup: Experiment, feed: Activations, split: Fold) -> NDArray[np.float64]:
    """Return what fine-tuning on a split's training rows makes of its test rows."""
    tell = lambda epoch: print(f"  {epoch}", file=sys.stderr, flush=True)  # noqa: E731
    trained = train_network(setup, feed, rows=np.sort(split[0]), on_epoch=tell)
    logits = trained.network.logits(feed, split[1], count_views(setup.recipe.views), setup.recipe.batch_size)
    return softmax(logits.astype(np.float64), axis=1)[:, 1]


def kept(path: Path, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return what `compute` does, from a file where it was computed before."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.save(path, compute())
    return np.load(path)


def chances_of(setup: Experiment, splits: dict[int, Fold], folder: Path) -> dict[int, dict[str, NDArray[np.float64]]]:
    """Return the chances of each split's test rows, frozen and tuned."""
    setups = [str(setup.request), str(setup.recipe), setup.data.y.tolist()]
    print(f"{setup.request}: {setup.recipe}\nestimate for one training: {estimate(setup)}", flush=True)
    X, (feed, _) = frozen_embeddings(setup), setup.activations()
    found = {}
    for number, split in splits.items():
        started, path = time.perf_counter(), folder / f"{digest_of([*setups, number])}.npy"
        tuned = kept(path, partial(tuned_chances, setup, feed, split))
        found[number] = {"frozen": frozen_chances(X, setup, split), "tuned": tuned}
        print(f"split {number}: {time.perf_counter() - started:.0f} s", flush=True)
    return found


def averaged(chances: list[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """Return the chances over all backbones: frozen, tuned, and both."""
    frozen, tuned = (np.mean([each[name] for each in chances], axis=0) for name in ("frozen", "tuned"))
    return {"frozen": frozen, "tuned": tuned, "averaged": (frozen + tuned) / 2}


def accuracies(chances: dict[str, NDArray[np.float64]], labels: TrainingSet) -> dict[str, float]:
    """Return the (weighted) accuracy of each model on the test rows."""
    classes = np.unique(labels.y)
    right = {name: classes[(each > 0.5).astype(int)] == labels.y for name, each in chances.items()}
    return {name: float(np.average(each, weights=labels.weight)) for name, each in right.items()}


def report(title: str, scores: list[dict[str, float]], splits: list[Fold]) -> None:
    """Print each split's accuracies, their mean with its interval, and the differences to the frozen one."""
    print(title, *map(json.dumps, scores), sep="\n")
    if len(scores) < 2:
        return
    sizes, values = sizes_of(splits), {name: [each[name] for each in scores] for name in scores[0]}
    for name, each in values.items():
        low, high = corrected_interval(each, *sizes)
        print(f"{name}: {np.mean(each):.4f}, 95 % interval [{low:.4f}, {high:.4f}]")
    for name in list(values)[1:]:
        print(f"{name} less frozen: {paired_interval(values[name], values['frozen'], *sizes)}")


def main() -> None:
    """Print the accuracy on each split, frozen, fine-tuned, and of both probabilities averaged; then their means."""
    options = read_options()
    bank = open_bank(options)
    labels = learn_from(bank, options)
    every = make_splits(bank, labels, options.protocol)
    splits = {number: every[number] for number in options.splits}
    setups = {name: make_setup(bank, name, labels, options) for name in options.backbones}
    chances = {name: chances_of(setup, splits, options.folder / "chances") for name, setup in setups.items()}
    chosen = [(name, [name]) for name in chances]
    chosen += [("all backbones", list(chances))] * (len(chances) > 1)
    for title, names in chosen:
        found = [averaged([chances[name][number] for name in names]) for number in splits]
        tested = [labels.take(test) for _, test in splits.values()]
        report(title, list(map(accuracies, found, tested)), list(splits.values()))


if __name__ == "__main__":
    main()
