"""What is shown of learning from normal images alone: solar cells (protocol C) and digits, one against the rest.

Takes two banks that `featurebank extract` made:

    featurebank extract solar_cells.csv --root DATA --bank solar.bank --layer penultimate --layer blocks.2:avgmax \\
        --layer blocks.3:avgmax --layer blocks.4:avgmax --layer blocks.5:avgmax --layer blocks.2:none \\
        --layer blocks.4:none
    featurebank extract digits/ --bank digits.bank --size 96 (the same layers; `--write-digits DIR` writes the pictures)

    python tests/benchmarks/normal_only.py --solar solar.bank --digits digits.bank [--part NAME]...
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from featurebank import Bank, Predictor, explain, fit
from featurebank.bank.defaults import candidate_features, middle_blocks
from featurebank.bank.features import as_keys
from featurebank.bank.maps import as_maps, map_sets, stacked
from featurebank.topmodels.one_class.choosing import compare, fuse
from featurebank.topmodels.one_class.detectors import DETECTORS, make_detector
from featurebank.topmodels.one_class.judging import detection_scores
from featurebank.topmodels.one_class.model import OneClassModel
from featurebank.topmodels.one_class.patches import _patches

RATES = (0.01, 0.05, 0.1)
LAST = "efficientnet_lite0/blocks.5:avgmax"


def auroc(normal, strange):
    """Of scores that are the higher the more normal."""
    return float(roc_auc_score(np.repeat([1, 0], [len(normal), len(strange)]), np.concatenate([normal, strange])))


class Rows:
    """The rows of a bank: embeddings of all candidates, their columns, and the target as text."""

    def __init__(self, bank, target):
        self.bank = Bank(bank)
        self.table = self.bank.select(target)
        sets = candidate_features(self.bank, None)
        self.names = [name for names in sets for name in names]
        self.X = self.bank.features(self.names, self.table)
        blocks = self.bank.blocks(self.names)
        every = [*sets, *(names for names in middle_blocks(self.bank) if len(names) > 1)]
        self.columns = {
            tuple(names): np.concatenate([np.arange(blocks[name].start, blocks[name].stop) for name in names])
            for names in every
        }
        self.y = self.table.columns[target].astype(str).to_numpy()

    def chosen(self, train, detectors=tuple(DETECTORS)):
        return fuse(compare(self.X[train], self.columns, list(detectors)))

    def model(self, chosen, train, rate=0.01, seed=0):
        made = [(each.model, make_detector(each.model, self.columns[each.features], len(train))) for each in chosen]
        return OneClassModel(made, false_alarms=rate, random_state=seed).fit(self.X[train])


def halves(rows, seed):
    drawn = np.random.default_rng(seed).permutation(rows)
    return drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]


# --- false alarms ------------------------------------------------------------------------------------------


def false_alarms(rows, normal, splits, title):
    """Realised shares of false alarms over random halves; the choice of detectors is that of the first split."""
    normals = np.flatnonzero(rows.y == normal)
    chosen = rows.chosen(halves(normals, 0)[0])
    found = {rate: [] for rate in RATES}
    for seed in range(splits):
        train, test = halves(normals, seed)
        model = rows.model(chosen, train, min(rate for rate in RATES if (len(train) + 1) * rate >= 1), seed)
        p_values = model.p_values(rows.X[test])
        for rate in RATES:
            found[rate].append(float((p_values <= rate).mean()))
    for rate, shares in found.items():
        low, high = stats.betabinom.ppf([0.025, 0.975], len(test), *calibrated(rate, len(train))) / len(test)
        alone = stats.binom.ppf([0.025, 0.975], len(test), rate) / len(test)
        inside = np.mean([low <= share <= high for share in shares])
        strictly = np.mean([alone[0] <= share <= alone[1] for share in shares])
        print(
            f"{title} {normal}: promised {rate:.0%}, realised mean {np.mean(shares):.2%} over {splits} splits "
            f"({len(train)} to learn, {len(test)} to test); within the binomial interval {strictly:.0%}, with that of "
            f"the threshold itself {inside:.0%} of splits",
            flush=True,
        )
    return {rate: float(np.mean(shares)) for rate, shares in found.items()}


def calibrated(rate, count):
    """Parameters of the beta distribution of the realised rate of a threshold that stands on so many normals."""
    rank = max(1, int(np.floor(rate * (count + 1) + 1e-9)))
    return rank, count + 1 - rank


# --- detection ---------------------------------------------------------------------------------------------


def plain_patchcore(bank, names, table, train, others, seed=0):
    """PatchCore as published: 60 patches of each training image, a coreset of 5 % by greedy k-centres, the maximum."""
    opened = [bank.feature_set(name) for name in names]
    keys = as_keys(table.rows["digest"])

    def patches(row):
        parts = [(each.read(keys[[row]]).reshape(1, *each.shape[1:]), each.spec) for each in opened]
        return _patches(stacked([as_maps(part, spec.layout, spec.prefix) for part, spec in parts]))

    random = np.random.default_rng(seed)
    drawn = np.concatenate([random.permutation(patches(row))[:60] for row in train])
    projected = drawn @ random.normal(size=(drawn.shape[1], 128)).astype("f4") / np.sqrt(128)
    centres = [0]
    nearest = np.full(len(projected), np.inf)
    for _ in range(len(drawn) // 20):
        nearest = np.minimum(nearest, ((projected - projected[centres[-1]]) ** 2).sum(axis=1))
        centres.append(int(nearest.argmax()))
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(drawn[centres])
    return np.array([-index.kneighbors(patches(row))[0].max() for row in others])


def solar_detection(rows, seeds, with_patchcore):
    normals, strange = np.flatnonzero(rows.y == "functional"), np.flatnonzero(rows.y == "defective")
    found = []
    for seed in range(seeds):
        train, test = halves(normals, seed)
        chosen = rows.chosen(train)
        started = time.perf_counter()
        model = rows.model(chosen, train, seed=seed)
        seconds = time.perf_counter() - started
        others = np.concatenate([test, strange])
        scores = model.score_samples(rows.X[others])
        said = detection_scores(np.isin(others, strange), scores, scores < model.offset_)
        found.append(said["roc_auc"])
        what = "; ".join(f"{each.model} on {'+'.join(n.split('/')[1] for n in each.features)}" for each in chosen)
        print(
            f"C, seed {seed}, {len(train)} to learn from, {len(test)} and {len(strange)} to test: AUROC "
            f"{said['roc_auc']:.3f} {np.round(said['intervals']['roc_auc'], 3)}, AUPR "
            f"{said['average_precision']:.3f}, detected at 1 % {said['detection']:.3f}, false alarms "
            f"{said['false_alarms']:.4f}; {seconds:.0f} s; {what}",
            flush=True,
        )
        maps = map_sets(rows.bank)
        if with_patchcore and maps and seed == 0:
            plain = plain_patchcore(rows.bank, maps, rows.table, train, others)
            print(
                f"C, seed 0, plain PatchCore on {maps}: AUROC {auroc(plain[: len(test)], plain[len(test) :]):.3f}",
                flush=True,
            )
    print(f"C: mean AUROC {np.mean(found):.4f} over {seeds} seeds", flush=True)


def digits_detection(rows):
    """Mean AUROC over the ten digits, each as the only normal one, beside scikit-learn's on the same embeddings."""
    last = next(columns for names, columns in rows.columns.items() if names[0].endswith("penultimate"))
    found = []
    for digit in sorted(set(rows.y)):
        normals, strange = np.flatnonzero(rows.y == digit), np.flatnonzero(rows.y != digit)
        train, test = halves(normals, 0)
        model = rows.model(rows.chosen(train), train, 0.05)
        line = [auroc(model.score_samples(rows.X[test]), model.score_samples(rows.X[strange]))]
        for columns in (last, rows.columns[max(rows.columns, key=len)]):
            for other in (OneClassSVM(nu=0.1), IsolationForest(random_state=0)):
                plain = make_pipeline(StandardScaler(), other).fit(rows.X[train][:, columns])
                line.append(auroc(*(plain.score_samples(rows.X[part][:, columns]) for part in (test, strange))))
        found.append(line)
        print(
            f"digit {digit}: fused; OneClassSVM, IsolationForest on penultimate; on middle: {np.round(line, 4)}",
            flush=True,
        )
    print(f"digits: mean {np.round(np.mean(found, axis=0), 4)}", flush=True)


# --- where -------------------------------------------------------------------------------------------------


def planted(bank, images, folder, size=40):
    """Share of images with a planted patch of another texture in which the map peaks inside the patch."""
    predictor = fit(bank, target="C", normal="functional", features=LAST, models="knn").predictor
    predictor.save(folder / "planted.featurebank")
    loaded = Predictor.load(folder / "planted.featurebank")
    random, right, beyond = np.random.default_rng(0), 0, 0
    table = Bank(bank).select("C")
    normals = np.flatnonzero(table.columns["C"] == "functional")
    roots = table.rows["root"]
    chosen = random.permutation(normals)[:images]
    for done, row in enumerate(chosen, 1):
        picture = np.asarray(Image.open(Path(roots.iloc[row]) / table.paths[row]).convert("L")).copy()
        top, left = random.integers(30, 300 - 30 - size, 2)
        other = np.asarray(Image.open(Path(roots.iloc[row]) / table.paths[int(random.choice(normals))]).convert("L"))
        part = other[top : top + size, left : left + size].astype(float)
        angle = random.integers(1, 4)
        mixed = np.rot90(part, angle) * 0.5 + random.normal(part.mean() * 0.5, 30, part.shape)
        picture[top : top + size, left : left + size] = mixed.clip(0, 255)
        found = explain(loaded, Image.fromarray(picture))
        y, x = found.peak
        right += top - 8 <= y < top + size + 8 and left - 8 <= x < left + size + 8
        beyond += found.map.max() > 1
        if done % 20 == 0:
            print(f"patches of {size} px: the peak is on {right} of {done}; {beyond} beyond the limit", flush=True)


# --- cost --------------------------------------------------------------------------------------------------


def cost(folder):
    """Seconds and memory of a fit of 10,000 normals by 848 columns, default detectors, in a process of its own."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=_cost, args=(str(folder),))
    process.start()
    process.join()


def _cost(folder):
    import resource
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from made_bank import make_bank

    random = np.random.default_rng(0)
    low = random.normal(size=(10_000, 60)).astype("f4") @ random.normal(size=(60, 848)).astype("f4")
    bank = make_bank(Path(folder) / "wide.bank", np.maximum(low + 4 * random.normal(size=low.shape), 0).astype("f4"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    started, used = time.perf_counter(), time.process_time()
    result = fit(bank, normal="*")
    took, cpu = time.perf_counter() - started, time.process_time() - used
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"10,000 x 848: {took:.1f} s, {cpu:.1f} s of CPU, {most:.2f} GB at most ({before:.2f} before); {result}",
        flush=True,
    )


# --- contamination -----------------------------------------------------------------------------------------


def contamination(rows, seeds=3):
    """AUROC, detection and false alarms where a share of the normals are anomalies, beside what the report allows."""
    normals, strange = np.flatnonzero(rows.y == "functional"), np.flatnonzero(rows.y == "defective")
    for share in (0.0, 0.01, 0.05):
        found = []
        for seed in range(seeds):
            train, test = halves(normals, seed)
            drawn = np.random.default_rng(seed).permutation(strange)
            hidden = drawn[: round(share * len(train) / (1 - share))]
            mixed = np.concatenate([train, hidden])
            model = rows.model(rows.chosen(mixed, ["mahalanobis", "pca-residual"]), mixed, 0.01, seed)
            a, b = model.score_samples(rows.X[test]), model.score_samples(rows.X[drawn[len(hidden) :]])
            rates = [(model.conformal_.p_values(each) <= rate).mean() for rate in RATES for each in (b, a)]
            found.append([auroc(a, b), *rates])
        ranking, *rates = np.mean(found, axis=0)
        for rate, detected, alarms in zip(RATES, rates[::2], rates[1::2], strict=True):
            print(
                f"contaminated by {share:.0%}, promised {rate:.0%}: AUROC {ranking:.3f}, detected {detected:.3f}, "
                f"false alarms {alarms:.4f} (at worst {max(0, (rate - share) / (1 - share)):.3f} by the report)",
                flush=True,
            )


def write_digits(folder):
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solar", type=Path)
    parser.add_argument("--digits", type=Path)
    parser.add_argument("--write-digits", type=Path)
    parser.add_argument("--part", action="append")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.write_digits:
        return write_digits(options.write_digits)
    wanted = options.part or ["detection", "alarms", "digits", "planted", "cost", "contamination"]
    solar = (
        Rows(options.solar, "C") if options.solar and set(wanted) & {"detection", "alarms", "contamination"} else None
    )
    digits = Rows(options.digits, "label") if options.digits and set(wanted) & {"digits", "alarms"} else None
    if "detection" in wanted:
        solar_detection(solar, 5, with_patchcore=True)
    if "digits" in wanted:
        digits_detection(digits)
    if "alarms" in wanted:
        false_alarms(solar, "functional", options.splits, "solar cells")
        for digit in sorted(set(digits.y)):
            false_alarms(digits, digit, max(1, options.splits // 10), "digit")
    if "planted" in wanted:
        planted(options.solar, options.images, options.out)
    if "contamination" in wanted:
        contamination(solar)
    if "cost" in wanted:
        cost(options.out)


if __name__ == "__main__":
    main()
