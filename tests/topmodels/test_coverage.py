"""How often the 95 % intervals hold the true score, simulated: drawn data, a ridge classifier, 5 folds."""

import numpy as np
import pytest

from featurebank.topmodels.held_out import classification_scores
from featurebank.topmodels.scores import (
    Interval,
    Part,
    averages_classes,
    block_influence,
    effective_rows,
    mean_influence,
    score_interval,
)

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
