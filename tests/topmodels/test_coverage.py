"""How often the 95 % intervals hold the true score, simulated: drawn data, a ridge classifier, 5 folds."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import get_scorer, r2_score

from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.evaluation import SearchData
from featurebank.topmodels.held_out import classification_scores
from featurebank.topmodels.influence import Part, block_influence, mean_influence
from featurebank.topmodels.scores import Interval, averages_classes, effective_rows, score_interval
from featurebank.topmodels.solvers.problem import Prediction
from featurebank.topmodels.uncertainty import Uncertainty

DRAWS = 300
LEAST = 0.92
"""95 % of 300 draws less two standard errors is 92.5 %."""


def f1_macro(y, score):
    """Return the mean F1 of two classes, as scikit-learn's `f1_score` but faster."""
    said = score > 0
    return np.mean([2 * (t & s).sum() / max(t.sum() + s.sum(), 1) for t, s in ((y == 1, said), (y == 0, ~said))])


def roc_auc(y, score):
    """Return the area under the ROC curve of scores without ties, as `roc_auc_score` but faster."""
    positive = y.sum()
    ranks = np.flatnonzero(y[np.argsort(score)]) + 1
    ordered = ranks.sum() - positive * (positive + 1) / 2
    return ordered / (positive * (len(y) - positive)) if 0 < positive < len(y) else np.nan


METRICS = {"accuracy": lambda y, score: np.mean(y == (score > 0)), "f1_macro": f1_macro, "roc_auc": roc_auc}


def draw(random, groups, size, distance, effect):
    """Return X, y and groups: two classes `distance` apart, shifted by an effect of each group."""
    group = np.repeat(np.arange(groups), size)
    y = random.integers(0, 2, groups * size)
    X = random.normal(size=(groups * size, 5)) + effect * random.normal(size=(groups, 5))[group]
    X[:, 0] += distance * (2 * y - 1)
    return X, y, group


def ridge(X, y, new):
    """Return the decision values of a ridge classifier on new rows."""
    centre, signs = X.mean(axis=0), 2.0 * y - 1
    Z = X - centre
    weights = np.linalg.solve(Z.T @ Z + np.eye(X.shape[1]), Z.T @ (signs - signs.mean()))
    return (new - centre) @ weights + signs.mean()


def folds_of(y, group, seed):
    """Return five folds of whole groups; of single rows, each class dealt out in turn."""
    random, count = np.random.default_rng(seed), min(5, group.max() + 1)
    if group.max() + 1 < len(y):
        number = (random.permutation(group.max() + 1) % count)[group]
    else:
        order = np.lexsort((random.permutation(len(y)), y))
        number = np.empty(len(y), int)
        number[order] = np.arange(len(y)) % count
    return [(np.flatnonzero(number != fold), np.flatnonzero(number == fold)) for fold in range(count)]


def cross_validated(metric, X, y, group, seed):
    """Return the interval of a ridge classifier over five folds of whole groups."""
    folds = folds_of(y, group, seed)
    said = [ridge(X[train], y[train], X[test]) for train, test in folds]
    parts = [Part(group[test], np.ones(len(test))) for _, test in folds]
    tests = [y[test] for _, test in folds]
    if metric == "accuracy":
        right = [true == (score > 0) for true, score in zip(tests, said, strict=True)]
        mean, influence = np.mean([each.mean() for each in right]), mean_influence(parts, right)
    else:
        score = METRICS[metric]
        mean = np.mean([score(true, each) for true, each in zip(tests, said, strict=True)])
        influence = block_influence(lambda fold, rows: score(tests[fold][rows], said[fold][rows]), parts)
    rows = effective_rows(np.ones(len(y)), np.bincount(y) if averages_classes(metric) else None)
    return score_interval(mean, influence, metric, rows=rows, folds=len(folds))


def held_out(metric, X, y, group, seed):
    """Return the interval of a ridge classifier on one held-out half of the groups."""
    test = group % 2 == 1
    score = ridge(X[~test], y[~test], X[test])
    found = classification_scores(y[test], (score > 0).astype(int), None, np.arange(2), groups=group[test])
    name = {"accuracy": "accuracy", "f1_macro": "macro_f1"}[metric]
    return Interval(*found["intervals"][name], "")


def coverage(interval, metric, groups, size, distance, effect, share=1.0):
    """Return how often the interval of `DRAWS` drawn sets holds the true score, and the mean score."""
    ends, truths = [], []
    for seed in range(DRAWS):
        random = np.random.default_rng([groups, size, seed])
        X, y, group = draw(random, groups, size, distance, effect)
        if min(np.bincount(y, minlength=2)) < 5:
            continue
        ends.append(interval(metric, X, y, group, seed))
        fresh, true, _ = draw(random, 1000, 2, distance, effect)
        fitted = group % 2 == 0 if interval is held_out else slice(None)
        truths.append(METRICS[metric](true, ridge(X[fitted], y[fitted], fresh)))
    truth = np.mean(truths)
    assert len(ends) > 0.9 * DRAWS
    return np.mean([low <= truth <= high for low, high, _ in ends]), truth


GROUPED = [
    (groups, 6, distance, effect) for groups in (5, 10, 20, 50) for distance, effect in ((0, 1), (1, 1), (2, 0.7))
]
SINGLE = [(rows, 1, distance, 0) for rows in (20, 50, 100, 500) for distance in (0, 0.7, 1.5, 2.5, 6)]


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size", "distance", "effect"), GROUPED + SINGLE)
def test_the_interval_of_a_cross_validated_accuracy_holds_the_true_one(groups, size, distance, effect):
    held, truth = coverage(cross_validated, "accuracy", groups, size, distance, effect)
    print(f"accuracy {groups} x {size}, true {truth:.3f}: {held:.3f}")
    assert held >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["f1_macro", "roc_auc"])
@pytest.mark.parametrize(("groups", "size", "distance", "effect"), [(10, 6, 1, 1), (40, 1, 0.7, 0), (100, 1, 1.5, 0)])
def test_so_does_that_of_other_shares(metric, groups, size, distance, effect):
    held, truth = coverage(cross_validated, metric, groups, size, distance, effect)
    print(f"{metric} {groups} x {size}, true {truth:.3f}: {held:.3f}")
    assert held >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
@pytest.mark.parametrize(("groups", "size", "distance", "effect"), [(10, 12, 1, 1), (40, 6, 2, 0.7)])
def test_so_does_that_of_one_held_out_part_of_groups(metric, groups, size, distance, effect):
    held, truth = coverage(held_out, metric, groups, size, distance, effect)
    print(f"held out, {metric} {groups} x {size}, true {truth:.3f}: {held:.3f}")
    assert held >= LEAST


def drawn_numbers(random, groups, size, noise):
    """Return X, y and groups: numbers that follow one column, where groups differ in the columns and in the noise."""
    group, shift = np.repeat(np.arange(groups), size), 0.7 * (size > 1)
    X = random.normal(size=(groups * size, 3)) + shift * random.normal(size=(groups, 3))[group]
    own = random.normal(size=len(group)) + shift * random.normal(size=groups)[group]
    return X, X[:, 0] + noise * own, group


def fitted(X, y, new):
    """Return what a ridge regression says of new rows."""
    centre = X.mean(axis=0)
    Z = X - centre
    return (new - centre) @ np.linalg.solve(Z.T @ Z + 0.1 * np.eye(3), Z.T @ (y - y.mean())) + y.mean()


def interval_of_r2(X, y, group, seed):
    """Return the interval of a ridge regression's R², over five folds of whole groups."""
    random = np.random.default_rng(seed)
    number = (random.permutation(group.max() + 1) % 5)[group]
    folds = [(np.flatnonzero(number != fold), np.flatnonzero(number == fold)) for fold in range(5)]
    candidate = Candidate(("X",), "ridge", {})
    said = [Prediction(0, fold, None, fitted(X[train], y[train], X[test])) for fold, (train, test) in enumerate(folds)]
    candidate.fold_scores = [r2_score(y[test], each.labels) for each, (_, test) in zip(said, folds, strict=True)]
    data = SearchData(X, y, {}, folds, "regression")
    return Uncertainty(data, None, get_scorer("r2"), group).interval(candidate, said)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [2, 0.8, 0.23], ids=["0.2", "0.6", "0.95"])
@pytest.mark.parametrize(("groups", "size"), [(5, 10), (10, 6), (20, 6), (50, 6), (20, 1), (100, 1), (500, 1)])
def test_so_does_that_of_r2(groups, size, noise):
    ends, truths = [], []
    for seed in range(DRAWS):
        random = np.random.default_rng([groups, size, seed])
        X, y, group = drawn_numbers(random, groups, size, noise)
        ends.append(interval_of_r2(X, y, group, seed))
        fresh, true, _ = drawn_numbers(random, 2000, 2, noise) if size > 1 else drawn_numbers(random, 2000, 1, noise)
        known = group < 0.8 * groups
        truths.append(r2_score(true, fitted(X[known], y[known], fresh)))
    truth = np.mean(truths)
    held = np.mean([low <= truth <= high for low, high, _ in ends])
    width = np.median([high - low for low, high, _ in ends])
    print(f"r2 {groups} x {size}, true {truth:.3f}: {held:.3f}, width {width:.2f}")
    assert held >= (LEAST if groups * size > 20 else 0.89)
    assert width < (2 if groups * size < 100 else 1)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [5, 10, 20, 50])
@pytest.mark.parametrize("share", [0.9, 0.95, 0.98])
def test_so_does_that_of_groups_that_differ_much(groups, share):
    held, centre = [], stats.norm.ppf(share) * 5**0.5
    for seed in range(DRAWS):
        random = np.random.default_rng([groups, seed])
        right = random.binomial(30, stats.norm.cdf(centre + 2 * random.normal(size=groups)))
        mean = right.sum() / (30 * groups)
        influence = (right - 30 * mean) / (30 * groups)
        low, high, _ = score_interval(mean, influence, "accuracy", rows=30 * groups, folds=5)
        held.append(low <= share <= high)
    print(f"differing groups, {groups} x 30, true {share}: {np.mean(held):.3f}")
    assert np.mean(held) >= LEAST
