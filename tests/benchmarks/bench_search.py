"""`TopModelSearchCV` against `GridSearchCV` of the same pipeline: same data, folds and cores, one run, neither refits.

Every side runs in its own process, ours before and after scikit-learn's; memory is the largest proportional
set size of its process tree.
Run without arguments for all cases, or name some: `python bench_search.py svm logistic`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold
from threadpoolctl import threadpool_info

from featurebank import TopModelSearchCV
from featurebank.storage.cores import usable_cores
from featurebank.topmodels.models import CLASSIFIERS
from featurebank.topmodels.transforms import normalization

JOBS, SEED = 2, 0
C_PATH = {"C": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]}
RBF = {"C": [0.1, 1.0, 10.0, 100.0], "gamma": [1e-5, 1e-4, 1e-3, 1e-2]}
WIDE_RBF = {"C": [0.1, 1.0, 10.0, 100.0], "gamma": [1e-6, 1e-5, 1e-4, 1e-3]}
ALPHAS = {"alpha": [float(a) for a in np.logspace(-2, 5, 15)]}
SHRINKAGES = {"shrinkage": [0.01, 0.1, 0.5, 0.9]}
NEIGHBOURS = {"n_neighbors": [1, 3, 5, 9, 15, 25, 41, 65]}

CASES: dict[str, tuple[str, str, dict[str, list[Any]], float]] = {
    "svm": ("solar", "svm", RBF, 12),
    "linear-svm": ("solar", "linear-svm", C_PATH, 5),
    "ridge-solar": ("solar", "ridge", ALPHAS, 5),
    "knn-solar": ("solar", "knn", NEIGHBOURS, 6),
    "logistic": ("many", "logreg", C_PATH, 3),
    "ridge": ("many", "ridge", ALPHAS, 5),
    "knn": ("many", "knn", NEIGHBOURS, 6),
    "lda": ("many", "lda", SHRINKAGES, 0),
    "wide-logistic": ("wide", "logreg", C_PATH, 10),
    "wide-svm": ("wide", "svm", WIDE_RBF, 10),
    "wide-linear-svm": ("wide", "linear-svm", C_PATH, 10),
    "wide-ridge": ("wide", "ridge", ALPHAS, 0),
}
SHAPES = {"solar": (2624, 1280, 2), "many": (10_000, 1280, 10), "wide": (600, 25_088, 3)}


def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Seeded rows like rectified, pooled activations: (n, d) float32 and labels (n,).

    The spectrum of their correlation falls like that of real `efficientnet_lite0` embeddings of solar cells
    (eigenvalues 245, 102, 72, 44 ... 0.3 at 400); one label in ten is wrong, of few and wide rows three in ten, so
    that accuracy peaks inside the grid.
    """
    n, d, k = SHAPES[name]
    real = Path(__file__).with_name("elpv.npz")
    if name == "solar" and real.exists():
        stored = np.load(real)
        return stored["X"], (stored["p"] >= 0.5).astype(int)
    rng = np.random.default_rng(SEED)
    q = min(d, 1280)
    y = rng.integers(k, size=n)
    deviation = np.arange(1, q + 1) ** -0.75
    latent = (0.3 * rng.standard_normal((k, q))[y] + rng.standard_normal((n, q))) * deviation
    mixed = latent @ (rng.standard_normal((q, d)) / np.sqrt((deviation**2).sum()))
    wrong = rng.random(n) < (0.3 if name == "wide" else 0.1)
    return np.maximum(mixed - 0.3, 0).astype(np.float32), np.where(wrong, rng.integers(k, size=n), y)


def ours(case: str, X: Any, y: Any, folds: Any) -> np.ndarray:
    """Accuracy (cells, folds) by the search; NaN where the path stopped before."""
    _, name, grid, _ = CASES[case]
    search = TopModelSearchCV({name: grid}, cv=folds, n_jobs=JOBS, refit=False).fit(X, y)
    found = {str(candidate.params): candidate.fold_scores for candidate in search.candidates_}
    missing = [np.nan] * len(folds)
    return np.array([found.get(str(cell), missing) for cell in ParameterGrid(grid)])


def theirs(case: str, X: Any, y: Any, folds: Any) -> np.ndarray:
    """Accuracy (cells, folds) by `GridSearchCV`."""
    _, name, grid, _ = CASES[case]
    pipe = CLASSIFIERS[name].pipeline({}, SEED, normalization("standardize"))
    named = {f"model__{parameter}": values for parameter, values in grid.items()}
    search = GridSearchCV(pipe, named, cv=folds, n_jobs=JOBS, refit=False).fit(X, y)
    return np.stack([search.cv_results_[f"split{fold}_test_score"] for fold in range(len(folds))], axis=1)


def child(case: str, side: str) -> None:
    """Run one side and print its seconds and scores as JSON."""
    warnings.filterwarnings("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
    X, y = rows(CASES[case][0])
    folds = list(StratifiedKFold(5, shuffle=True, random_state=SEED).split(X, y))
    start = time.perf_counter()
    scores = (ours if side == "ours" else theirs)(case, X, y, folds)
    seconds = time.perf_counter() - start
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    print(json.dumps({"seconds": seconds, "scores": scores.tolist(), "blas": blas}))


def tree_bytes(root: int) -> int:
    """Proportional set size of a process and its descendants (Linux)."""
    total, queue = 0, [root]
    while queue:
        pid = queue.pop()
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
            for task in Path(f"/proc/{pid}/task").iterdir():
                queue += [int(number) for number in (task / "children").read_text().split()]
    return total


def measure(case: str, side: str) -> dict[str, Any]:
    """One side in its own process, with its peak memory."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", case, side],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(0.05)
    assert process.stdout is not None
    result: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return result | {"peak": peak, "scores": np.array(result["scores"], float)}


def report(case: str) -> None:
    """Measure both sides of a case, ours twice around scikit-learn's, and print what they show."""
    data, _, grid, bar = CASES[case]
    cells = list(ParameterGrid(grid))
    first, reference, second = measure(case, "ours"), measure(case, "theirs"), measure(case, "ours")
    seconds, runs = reference["seconds"], [first["seconds"], second["seconds"]]
    mine, scores = first["scores"].mean(axis=1), reference["scores"].mean(axis=1)  # (cells,)
    gaps, best = np.abs(mine - scores), int(np.nanargmax(mine))
    same = "same" if best == scores.argmax() else "OTHER"
    one = 1 / SHAPES[data][0]
    peaks = [run["peak"] / 2**20 for run in (first, reference)]
    print(
        f"{case}: {len(cells)} cells, {int(np.isnan(mine).sum())} skipped, bar {bar:g}x\n"
        f"  seconds {seconds:.1f} / {runs[0]:.2f}, {runs[1]:.2f}"
        f" = {seconds / runs[0]:.1f}x, {seconds / runs[1]:.1f}x\n"
        f"  mean scores differ by {np.nanmax(gaps):.5f}, to the best by {np.nanmax(gaps[: best + 1]):.5f}"
        f" (a sample is {one:.5f}); best {mine[best]:.4f} / {scores.max():.4f}, {same} cell\n"
        f"  peak {peaks[0]:.0f} / {peaks[1]:.0f} MiB;"
        f" BLAS threads {first['blas']} / {reference['blas']}, 1 in its workers",
        flush=True,
    )


def main(names: list[str]) -> None:
    for data, shape in SHAPES.items():
        kind = "ELPV lite0" if data == "solar" and Path(__file__).with_name("elpv.npz").exists() else "seeded"
        print(f"{data}: {kind}, (n, d, classes) = {shape}, seed {SEED}")
    print(f"5 stratified folds (seed {SEED}), jobs {JOBS}, cores {usable_cores()}")
    for case in names or CASES:
        report(case)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:4])
    else:
        main(sys.argv[1:])
