"""The advisor on the solar cells: layer curve, verdict, and the fine-tuning cut that it names, for each protocol.

B: p >= 0.5. C: only p = 0 or 1. type: mono or poly, which every layer tells apart. shuffled: the labels of B in another
order, which nothing can learn. small: 300 cells of B, drawn by seed.

    python tests/benchmarks/solar_advice.py solar.bank [--targets B C type shuffled small] [--seed 0]

The bank is one of the demo, with the penultimate layer; it is copied before labels are added.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from featurebank import Advice, Bank, advise, rank_features

SMALL = 300


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("--targets", nargs="+", default=["B", "C", "type", "shuffled", "small"])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def with_controls(path: Path, folder: str, seed: int) -> Bank:
    """Return a copy of the bank with the columns ``shuffled`` and ``small``."""
    bank = Bank(shutil.copytree(path, Path(folder) / "solar.bank"))
    random = np.random.default_rng(seed)
    frame = bank.samples[["path", "B"]].dropna()
    few = frame.sample(SMALL, random_state=seed).index
    bank.label(
        pd.DataFrame(
            {
                "path": frame["path"],
                "shuffled": random.permutation(frame["B"].to_numpy()),
                "small": frame["B"].where(frame.index.isin(few)),
            }
        )
    )
    return bank


def tell(target: str, advice: Advice) -> None:
    """Print the layer curve, the evidence, the verdict and the commands."""
    print(f"\n== {target}: {advice}")
    for each in advice.report["layers"]:
        low, high = each["ci95"]
        print(f"  {100 * each['mean']:5.1f}  ({100 * low:.1f}..{100 * high:.1f})  {' + '.join(each['features'])}")
    for about, says in advice.lines:
        print(f"  {about}: {says}")
    print(f"  because {advice.verdict.because}")
    for step in advice.steps:
        print(f"  {step.action}: {' && '.join(step.commands)}  [{step.cost}]", flush=True)


def main() -> None:
    """Print the advice for each target, and what the shuffled labels score."""
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        bank = with_controls(options.bank, folder, options.seed)
        for target in options.targets:
            tell(target, advise(bank, target=target, random_state=options.seed))
        if "shuffled" in options.targets:
            ranking = rank_features(bank, target="shuffled", random_state=options.seed)
            majority = bank.samples["shuffled"].value_counts(normalize=True).max()
            print(f"\nshuffled labels, {ranking.report['model']} on each set; the majority is {100 * majority:.1f} %")
            print(ranking.table[["features", "score", "ci_low", "ci_high"]].to_string(index=False))


if __name__ == "__main__":
    main()
