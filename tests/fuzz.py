"""Mutate segments and predictors and check that nothing wrong is ever returned: python tests/fuzz.py --cases 100000.

The test suite runs a bounded number of seeded cases; this script runs as many as are wanted, from any seed.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "integration"))

from bank_maker import contents, make
from predictor_maker import make_predictor, probabilities

from featurebank import Bank, Predictor
from featurebank.errors import FeatureBankError


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Return bytes with one mutation: flipped bits, a cut, an insertion, a repeated, moved or zeroed stretch."""
    kind = random.integers(6)
    place, length = int(random.integers(len(data))), int(random.integers(1, 64))
    stretch = data[place : place + length]
    if kind == 0:
        flipped = bytearray(data)
        for _ in range(length):
            flipped[random.integers(len(data))] ^= 1 << random.integers(8)
        return bytes(flipped)
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + random.bytes(length) + data[place:]
    if kind == 3:
        return data[:place] + stretch + data[place:]
    if kind == 4:
        other = int(random.integers(len(data)))
        rest = data[:place] + data[place + length :]
        return rest[:other] + stretch + rest[other:]
    return data[:place] + bytes(len(stretch)) + data[place + length :]


def outcome(read: Callable[[], object], expected: object) -> str:
    """Say whether reading gave what was written, an error that featurebank names, or something wrong."""
    try:
        return "same" if read() == expected else "WRONG"
    except FeatureBankError as error:
        return "refused" if "\n" not in str(error) else "LONG"


def fuzz_bank(cases: int, seed: int, folder: Path) -> Iterator[str]:
    """Mutate a file of a small bank, read the bank, put the file back."""
    random = np.random.default_rng(seed)
    bank = make(folder / "a.bank", [0, 1, 2], [3, 4])
    before, files = contents(bank), [path for path in sorted(bank.path.rglob("*")) if path.is_file()]
    files = [file for file in files if file.suffix in (".h5", ".json") and file.parent.name != "requests"]
    for _ in range(cases):
        file = files[random.integers(len(files))]
        whole = file.read_bytes()
        file.write_bytes(mutate(whole, random))
        yield outcome(lambda: contents(Bank(bank.path)), before)
        file.write_bytes(whole)


def fuzz_predictor(cases: int, seed: int, folder: Path) -> Iterator[str]:
    """Mutate a predictor file and read it."""
    random = np.random.default_rng(seed)
    path = folder / "a.featurebank"
    make_predictor().save(path)
    whole, before = path.read_bytes(), probabilities(Predictor.load(path))
    for _ in range(cases):
        path.write_bytes(mutate(whole, random))
        yield outcome(lambda: probabilities(Predictor.load(path)), before)


FUZZERS = {"bank": fuzz_bank, "predictor": fuzz_predictor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, fuzz in FUZZERS.items():
        with tempfile.TemporaryDirectory() as folder:
            print(name, dict(Counter(fuzz(options.cases, options.seed, Path(folder)))))


if __name__ == "__main__":
    main()
