"""The demonstration: 2,624 photographs of solar cells, three protocols, the published figures beside ours.

The photographs come with the package ``elpv-dataset`` (Deitsch et al. 2019, CC BY-NC-SA 4.0), which the extra
``demo`` installs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit

from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.samples import values_of, weights_of
from featurebank.errors import NotInstalledError, install_hint
from featurebank.explore.plots import require_matplotlib
from featurebank.extraction.extract import run_extraction
from featurebank.fitting.fit import fit
from featurebank.fitting.result import FitResult
from featurebank.images.scanning import scan
from featurebank.report import make_report
from featurebank.storage import files
from featurebank.topmodels.search import TopModelSearchCV

BLOCKS = ("blocks.2", "blocks.3", "blocks.4", "blocks.5")
LAYERS = ("penultimate", *(f"{block}:avgmax" for block in BLOCKS))
BACKBONE = "efficientnet_lite0"
MIDDLE = "+".join(f"{BACKBONE}/{block}:avgmax" for block in BLOCKS)
FEATURES = (*(f"{BACKBONE}/{layer}" for layer in LAYERS), MIDDLE)
MODELS = {"logreg": {"C": [1e-3, 1e-2]}, "svm": {"C": [1.0, 3.0, 10.0]}, "mlp": {"alpha": [1.0]}}
RECIPE = {"svm": {"C": [10.0]}}
REPEATS = 5
PUBLISHED = {
    "A": [("KAZE/VGG features + SVM, Deitsch et al. 2019", 0.8244), ("fine-tuned VGG-19, Deitsch et al. 2019", 0.8842)],
    "B": [("always the larger class", 0.687)],
    "C": [("VGG-16, early layers frozen, Demirci 2024", 0.8970), ("the same, class-weighted", 0.9154)],
}
NOTE = "No module ids are published with the cells, so cells of one module may lie in different folds."

Say = Callable[[str], None]
MakeProgress = Callable[[str], Callable[[int, int], None] | None]


def run_demo(folder: Path, *, say: Say, make_progress: MakeProgress) -> dict[str, Any]:
    """Extract the solar cells, fit top models under three protocols, save bank, predictor and report, predict three.

    Parameters
    ----------
    folder : Path
        Where ``solar.bank``, ``solar.featurebank``, ``solar.report.html`` and ``solar_cells.csv`` go.
    say : callable
        Called with each line for the reader.
    make_progress : callable
        Called with a title; returns a progress callback (done, all) or None.

    Returns
    -------
    dict
        ``extract, fit, protocols, predictions, bank, predictor, report, seconds``.

    Raises
    ------
    NotInstalledError
        When the extra ``demo`` is not installed.
    """
    started = time.perf_counter()
    cells = cells_folder()
    require_matplotlib()
    manifest = write_manifest(cells, folder / "solar_cells.csv")
    bank = Bank.create(folder / "solar.bank")
    say(f"Embedding {LAYERS[0]} and {len(BLOCKS)} middle blocks of {BACKBONE} in one pass …")
    extracted = run_extraction(
        scan(manifest, root=cells), bank, Request(BACKBONE, list(LAYERS)), progress=make_progress("extract")
    )
    say(f"Protocol B: {len(FEATURES)} features x 3 top models, 5-fold …")
    result = fit(bank, features=FEATURES, models=MODELS, target="B", progress=make_progress("fit"))
    predictor = folder / "solar.featurebank"
    result.save(predictor)
    say("Protocols A and C with one recipe chosen beforehand (middle blocks, svm, C=10) …")
    protocols = {
        "A": protocol_a(bank),
        "B": _protocol(result),
        "C": _protocol(fit(bank, features=MIDDLE, models=RECIPE, target="C")),
    }
    say("The report …")
    report = folder / "solar.report.html"
    files.commit(report, make_report(bank, predictor, progress=make_progress).encode())
    return {
        "extract": extracted.to_dict(),
        "fit": result.report,
        "protocols": protocols,
        "predictions": _predict_three(result, cells),
        "bank": str(bank.path),
        "predictor": str(predictor),
        "report": str(report),
        "seconds": time.perf_counter() - started,
    }


def cells_folder() -> Path:
    """Return the folder of the installed photographs.

    Raises
    ------
    NotInstalledError
        When the package is not installed.
    """
    package = find_spec("elpv_dataset")
    if package is None or not package.submodule_search_locations:
        raise NotInstalledError(f"the solar cells are not installed; expected the extra demo: {install_hint('demo')}")
    return Path(package.submodule_search_locations[0]) / "data"


def write_manifest(cells: Path, path: Path) -> Path:
    """Write a manifest of the cells with a column for each protocol.

    A is ``defective`` where the probability p of a defect is above 0, with the weight p (1 where p = 0); B is
    ``defective`` from p = 0.5 up; C is known only where p is 0 or 1.
    """
    table = pd.read_csv(cells / "labels.csv", sep=r"\s+", names=["path", "probability", "type"])
    p = table["probability"]
    table["A"] = np.where(p > 0, "defective", "functional")
    table["A_weight"] = np.where(p > 0, p, 1.0)
    table["B"] = np.where(p >= 0.5, "defective", "functional")
    table["C"] = np.where(p == 1, "defective", np.where(p == 0, "functional", ""))
    files.commit(path, table.to_csv(index=False).encode())
    return path


def protocol_a(bank: Bank) -> dict[str, Any]:
    """Score the recipe under protocol A: 75/25 splits stratified by label and type, weights p, five repeats."""
    table = bank.select("A")
    y, weight = values_of(table, "A"), weights_of(table, "A_weight")
    strata = np.char.add(y, values_of(table, "type"))
    X = bank.features(MIDDLE.split("+"), table)
    splits = list(StratifiedShuffleSplit(REPEATS, test_size=0.25, random_state=0).split(X, strata))
    search = TopModelSearchCV(RECIPE, cv=splits).fit(X, y, sample_weight=weight)
    best = search.best_candidate_
    return {"score": best.mean, "ci95": list(best.ci95), "features": MIDDLE.split("+"), "model": best.model}


def _protocol(result: FitResult) -> dict[str, Any]:
    best = result.report["best"]
    return {"score": best["mean"], "ci95": best["ci95"], "features": best["features"], "model": best["model"]}


def _predict_three(result: FitResult, cells: Path) -> list[dict[str, Any]]:
    paths = [cells / "images" / name for name in ("cell0001.png", "cell0007.png", "cell2624.png")]
    table = result.predictor.predict_table(paths)
    return [
        {"path": path.name, "label": row.label, "probability": row.probability}
        for path, row in zip(paths, table.itertuples(), strict=True)
    ]
