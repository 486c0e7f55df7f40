"""Faults planted where they are known, and how many of them are found: near-duplicates and flipped labels.

    python tests/benchmarks/planted_faults.py [--bank solar.bank]

Near-duplicates: of every tenth image a copy is added, resized, re-compressed, mirrored or turned, or all of it. Recall
is the share of copies that are in one group with their original; precision the share of all pairs of a group that show
the same picture: planted ones, and those of the solar cells that show one cell photographed twice (`SAME_CELL`, seen by
eye). The strict precision counts the latter as false.
Flipped labels: of the certain solar cells (protocol C, of the bank of `featurebank demo`) 5 % get the other label.
Recall is the share of them among as many samples from the top of the list as were flipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
from PIL import Image
from planted import COPIES, photograph
from sklearn.datasets import load_digits

from featurebank import Bank, extract
from featurebank.bank.neighbours import groups_of
from featurebank.bank.samples import values_of
from featurebank.explore import duplicates, label_issues
from featurebank_cli.solar_cells import MIDDLE, RECIPE, cells_folder

SHARE = 10
SAME_CELL = [
    *((358, 359), (913, 914), (1085, 1087), (1508, 1509), (1509, 1510), (1739, 2281), (1746, 2288), (1748, 2290)),
    *((1766, 2308), (1775, 2317), (1777, 2319), (1793, 1794), (2031, 2032), (2369, 2370)),
]
"""Solar cells, by the number in their file's name, that were photographed more than once."""
FLIPPED = 0.05


def digits() -> list[Image.Image]:
    """Return scikit-learn's 1,797 handwritten digits, 64 pixels on each side."""
    pixels = (load_digits().images * 15).astype(np.uint8)
    return [Image.fromarray(each).resize((64, 64), Image.Resampling.BICUBIC).convert("RGB") for each in pixels]


def photographs() -> list[Image.Image]:
    """Return 1,000 synthetic photographs."""
    return [photograph(seed) for seed in range(1000)]


def solar_cells() -> list[Image.Image]:
    """Return the 2,624 solar cells."""
    return [Image.open(path).convert("RGB") for path in sorted(cells_folder().rglob("*.png"))]


def planted_copies(images: list[Image.Image], same: list[tuple[int, int]], folder: Path) -> dict[str, Any]:
    """Plant copies among images, look for duplicates, and return recall, precision and what each kind of copy gave."""
    (folder / "images").mkdir()
    random, names = np.random.default_rng(0), list(COPIES)
    for number, image in enumerate(images):
        image.save(folder / "images" / f"{number:05}.png")
    chosen = random.choice(len(images), len(images) // SHARE, replace=False)
    kinds = {number: names[count % len(names)] for count, number in enumerate(chosen.tolist())}
    for number, kind in kinds.items():
        COPIES[kind](images[number]).save(folder / "images" / f"{number:05}_{kind}.png")
    bank = extract(
        folder / "images", folder / "a.bank", backbone="resnet18", weights="random:0", size=32, layers=["layer1"]
    )
    found = duplicates(bank)
    pairs = {pair for _, each in found.groupby("group") for pair in combinations(sorted(each["path"]), 2)}
    edges = np.array(same or [(0, 0)]) - bool(same)  # numbers of files count from 1
    shows = groups_of(edges, len(images))
    right = sum(shows[int(one[:5])] == shows[int(other[:5])] for one, other in pairs)
    planted = {(f"{number:05}.png", f"{number:05}_{kind}.png"): kind for number, kind in kinds.items()}
    hits = pd.Series({kind: np.mean([pair in pairs for pair, own in planted.items() if own == kind]) for kind in names})
    return {
        "images": len(images),
        "copies": len(planted),
        "recall": len(pairs & set(planted)) / len(planted),
        "precision": right / max(len(pairs), 1),
        "strict precision": len(pairs & set(planted)) / max(len(pairs), 1),
        "pairs of originals": sum("_" not in first + second for first, second in pairs),
        "lowest kind": f"{hits.idxmin()} {hits.min():.3f}",
    }


def flipped_labels(bank: Bank, seed: int) -> dict[str, Any]:
    """Flip labels of a copy of a bank of solar cells, look for issues, and return recall and precision."""
    table = bank.select("C")
    given, classes = values_of(table, "C"), np.array(["functional", "defective"])
    wrong = np.random.default_rng(seed).choice(len(given), round(FLIPPED * len(given)), replace=False)
    given[wrong] = np.where(given[wrong] == classes[0], classes[1], classes[0])
    paths = [os.fsdecode(path) for path in table.rows["path"]]
    bank.label(pd.DataFrame({"path": paths, "flipped": given}))
    found = label_issues(bank, target="flipped", features=MIDDLE, models=RECIPE)
    hit = found["path"].isin({paths[number] for number in wrong}).to_numpy()
    return {
        "flipped": len(wrong),
        "recall at that budget": hit[: len(wrong)].sum() / len(wrong),
        "precision there": hit[: len(wrong)].mean(),
        "listed": len(found),
        "recall": hit.sum() / len(wrong),
        "precision": hit.mean(),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bank", type=Path, help="solar.bank of `featurebank demo`; it gets a column flipped")
    options = parser.parse_args()
    rows = {}
    for make in (digits, photographs, solar_cells):
        with tempfile.TemporaryDirectory() as folder:
            rows[make.__name__] = planted_copies(make(), SAME_CELL if make is solar_cells else [], Path(folder))
    print(pd.DataFrame(rows).T.to_string())
    if options.bank is not None:
        print(pd.DataFrame([flipped_labels(Bank(options.bank), seed) for seed in range(3)]).round(3).to_string())


if __name__ == "__main__":
    main()
