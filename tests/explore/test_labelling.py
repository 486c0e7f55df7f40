import itertools

import numpy as np
import pytest
from made_bank import make_bank
from sklearn.metrics.pairwise import euclidean_distances

from featurebank import Predictor, fit
from featurebank.errors import BankError, ColumnError, FeatureBankError, TopModelError
from featurebank.explore.labelling import next_to_label
from featurebank.images.tables import read_table
from featurebank_cli.output import csv_text

LOGREG = {"logreg": {"C": [1.0]}}


def half_labelled(random, count=80):
    """Rows of two classes along the first axis, the label of every other one missing."""
    X = random.normal(size=(count, 5))
    y = np.where(X[:, 0] > 0, "b", "a")
    return X, np.where(np.arange(count) % 2, None, y)


def numbers(found):
    return np.array([int(path.removesuffix(".png")) for path in found["path"]])


# --- probabilities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["uncertainty", "margin"])
def test_the_least_certain_unlabelled_rows_come_first(tmp_path, random, strategy):
    X, few = half_labelled(random)
    bank = make_bank(tmp_path / "a.bank", X, label=few)
    predictor = fit(bank, models=LOGREG).predictor
    found = next_to_label(bank, predictor, strategy=strategy, count=15)
    assert list(found) == ["source", "path", "score", "label"]
    assert found["label"].isna().all()
    assert (numbers(found) % 2 == 1).all()
    chance = predictor.model.predict_proba(X[1::2].astype(np.float32)).max(axis=1)
    assert numbers(found).tolist() == (1 + 2 * np.argsort(chance, kind="stable")[:15]).tolist()
    assert found["score"].is_monotonic_decreasing
    assert found["score"].between(0, 1).all()


def test_scores_are_entropy_and_closeness_of_the_two_best(tmp_path, random):
    X = random.normal(size=(90, 5))
    few = np.where(np.arange(90) % 2, None, np.array(["a", "b", "c"])[X[:, :3].argmax(axis=1)])
    bank = make_bank(tmp_path / "a.bank", X, label=few)
    predictor = fit(bank, models=LOGREG).predictor
    for strategy in ("uncertainty", "margin"):
        found = next_to_label(bank, predictor, strategy=strategy, count=1000)
        assert len(found) == 45
        proba = predictor.model.predict_proba(X[numbers(found)].astype(np.float32))
        ordered = np.sort(proba, axis=1)
        expected = {
            "uncertainty": -(proba * np.log(proba)).sum(axis=1) / np.log(3),
            "margin": 1 - ordered[:, 2] + ordered[:, 1],
        }
        np.testing.assert_allclose(found["score"], expected[strategy], rtol=1e-5)


def test_several_labels_are_asked_for_together(tmp_path, random):
    X = random.normal(size=(80, 5))
    given = np.arange(80) % 2 == 0
    columns = {name: np.where(given, (X[:, i] > 0).astype(float), np.nan) for i, name in enumerate(("cat", "dog"))}
    bank = make_bank(tmp_path / "a.bank", X, **columns)
    predictor = fit(bank, models=LOGREG, target=["cat", "dog"]).predictor
    found = next_to_label(bank, predictor, strategy="margin", count=5)
    assert list(found) == ["source", "path", "score", "cat", "dog"]
    proba = predictor.probabilities(X[numbers(found)].astype(np.float32))
    np.testing.assert_allclose(found["score"], 1 - np.abs(2 * proba - 1).min(axis=1))
    assert next_to_label(bank, predictor, count=5)["score"].between(0, 1).all()


# --- coverage ----------------------------------------------------------------------------------------------


def greedy(centres, pool, count):
    """Take the farthest row again and again, all distances computed anew each time."""
    taken = []
    for _ in range(count):
        known = np.concatenate([centres, pool[taken]])
        distances = euclidean_distances(pool, known).min(axis=1)
        taken.append(int(distances.argmax()))
    return taken


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_coverage_is_greedy_k_center_from_the_labelled_rows(tmp_path, random):
    X, few = half_labelled(random, 40)
    bank = make_bank(tmp_path / "a.bank", X, label=few)
    predictor = fit(bank, models=LOGREG).predictor
    done = []
    found = next_to_label(bank, predictor, strategy="coverage", count=8, progress=lambda *n: done.append(n))
    assert numbers(found).tolist() == (1 + 2 * np.array(greedy(unit(X[::2]), unit(X[1::2]), 8))).tolist()
    assert found["score"].is_monotonic_decreasing
    assert done[-1] == (8, 8)


def test_greedy_k_center_is_within_twice_the_best_of_all_choices(random):
    from featurebank.explore.labelling import k_center

    for _ in range(5):
        centres, pool = random.normal(size=(2, 2)), random.normal(size=(9, 2))

        def radius(taken, centres=centres, pool=pool):
            return euclidean_distances(pool, np.concatenate([centres, pool[list(taken)]])).min(axis=1).max()

        order, distances = k_center(centres, pool, 3)
        best = min(radius(taken) for taken in itertools.combinations(range(9), 3))
        assert best <= radius(order) <= 2 * best + 1e-9
        assert order.tolist() == greedy(centres, pool, 3)
        for number in range(3):
            assert distances[number] == pytest.approx(radius(order[:number]))


def test_rows_that_are_all_the_same_are_each_taken_once():
    from featurebank.explore.labelling import k_center

    order, distances = k_center(np.ones((1, 3)), np.ones((4, 3)), 9)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert (distances < 1e-6).all()


def test_without_a_label_anywhere_the_first_is_the_most_central(tmp_path, random):
    X, few = half_labelled(random)
    predictor = fit(make_bank(tmp_path / "a.bank", X, label=few), models=LOGREG).predictor
    new = make_bank(tmp_path / "b.bank", X)
    found = next_to_label(new, predictor, strategy="coverage", count=80)
    assert sorted(numbers(found).tolist()) == list(range(80))
    centre = unit(X).mean(axis=0)
    assert numbers(found)[0] == np.linalg.norm(unit(X) - centre, axis=1).argmin()
    assert (found["score"].to_numpy()[1:-1] >= found["score"].to_numpy()[2:] - 1e-6).all()


def test_numbers_are_covered_and_have_no_uncertainty(tmp_path, random):
    X = random.normal(size=(60, 5))
    age = np.where(np.arange(60) % 2, np.nan, X[:, 0] + 0.1)
    bank = make_bank(tmp_path / "a.bank", X, age=age)
    predictor = fit(bank, models=["ridge"]).predictor
    assert len(next_to_label(bank, predictor, strategy="coverage", count=5)) == 5
    with pytest.raises(TopModelError, match="numbers have no probabilities, so no margin; use coverage"):
        next_to_label(bank, predictor, strategy="margin")


# --- rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["uncertainty", "coverage"])
def test_one_image_is_asked_for_once_and_never_when_a_copy_has_its_label(tmp_path, random, strategy):
    X, few = half_labelled(random)
    contents = np.arange(80)
    contents[[3, 5, 7]] = 1  # four unlabelled copies
    contents[9] = 0  # a copy of a labelled image
    bank = make_bank(tmp_path / "a.bank", X, contents, label=few)
    found = numbers(next_to_label(bank, fit(bank, models=LOGREG).predictor, strategy=strategy))
    assert sorted(found) == [1, *range(11, 80, 2)]


def test_the_table_can_be_filled_in_and_read_back(tmp_path, random):
    X = random.normal(size=(40, 5))
    few = np.where(np.arange(40) % 2, np.nan, (X[:, 0] > 0).astype(float))
    bank = make_bank(tmp_path / "a.bank", X, label=few)
    found = next_to_label(bank, fit(bank, models=LOGREG).predictor, count=6)
    lines = csv_text(found).splitlines()
    filled = [lines[0], *(line + str(number % 2) for number, line in enumerate(lines[1:4])), *lines[4:]]
    (tmp_path / "next.csv").write_text("\n".join(filled) + "\n")
    before = int(bank.samples["label"].notna().sum())
    bank.label(read_table(tmp_path / "next.csv"))
    after = bank.samples.set_index("path")["label"]
    assert after[found["path"][:3]].tolist() == [0, 1, 0]
    assert int(after.notna().sum()) == before + 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "entropy"}, "no strategy 'entropy'; expected one of uncertainty, margin, coverage"),
        ({"count": 0}, "0 samples are asked for; expected at least 1"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, random, options, message):
    X, few = half_labelled(random)
    bank = make_bank(tmp_path / "a.bank", X, label=few, score=few)
    predictor = fit(bank, models=LOGREG, target="label").predictor
    with pytest.raises(TopModelError, match=message):
        next_to_label(bank, predictor, **options)
    with pytest.raises(ColumnError, match="the target is called 'score'"):
        next_to_label(bank, fit(bank, models=LOGREG, target="score").predictor)


def test_nothing_left_to_label_and_features_that_are_not_there_are_errors(tmp_path, random):
    X, few = half_labelled(random)
    predictor = fit(make_bank(tmp_path / "a.bank", X, label=few), models=LOGREG).predictor
    with pytest.raises(BankError, match="every readable sample has label, or a labelled copy; nothing to label"):
        next_to_label(make_bank(tmp_path / "b.bank", X, label=["a"] * 80), predictor)
    with pytest.raises(FeatureBankError):
        next_to_label(make_bank(tmp_path / "c.bank", {"other": X}), predictor)


# --- several tasks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["uncertainty", "margin", "coverage"])
def test_a_file_of_several_tasks_asks_for_what_each_sample_lacks(tmp_path, random, strategy):
    X, few = half_labelled(random)
    side = np.where(np.arange(80) % 4 < 3, np.where(X[:, 1] > 0, "left", "right"), None)
    bank = make_bank(tmp_path / "a.bank", X, label=few, side=side, size=X[:, 2].round(2))
    fit(bank, target=["label", "side", "size"], models={"ridge": {"alpha": [1.0]}}).save(tmp_path / "a.featurebank")
    predictor = Predictor.load(tmp_path / "a.featurebank")
    found = next_to_label(bank, predictor, strategy=strategy, count=100)
    assert list(found) == ["source", "path", "score", "label", "side", "size"]
    assert sorted(numbers(found)) == list(range(1, 80, 2))  # each lacks its label, every other one its side as well
    assert found["label"].isna().all()
    assert found["side"].isna().tolist() == [number % 4 == 3 for number in numbers(found)]
    if strategy != "coverage":
        assert (np.diff(found["score"]) <= 0).all()
        assert found["score"].between(0, 1).all()
