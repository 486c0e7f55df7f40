import json

import numpy as np
import pytest
from made_bank import make_bank

from featurebank import Predictor
from featurebank.errors import ColumnError, FeatureBankError, TopModelError
from featurebank.fitting import unlabelled
from featurebank.fitting.semi_supervised import supervised
from featurebank.fitting.unlabelled import fit_semi_supervised

LOGREG = {"logreg": {"C": [0.1, 1.0]}}


def clusters(random, count=300, size=15, away=5.0):
    """Rows of two clusters, and labels of `size` rows a cluster, None for the others."""
    y = random.permutation(np.repeat(["a", "b"], count // 2)).astype(object)
    X = random.normal(size=(count, 6))
    X[:, 0] += np.where(y == "a", -away / 2, away / 2)
    few = y.copy()
    for name in "ab":
        few[np.flatnonzero(y == name)[size:]] = None
    return X, y.astype(str), few


def test_the_report_compares_every_method_with_the_supervised_fit_on_its_folds(tmp_path, random):
    X, _, few = clusters(random)
    result = fit_semi_supervised(make_bank(tmp_path / "a.bank", X, label=few), models=LOGREG, folds=3)
    report = result.report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    found = report["unlabelled"]
    assert found["rows"] == 270
    assert [each["method"] for each in found["methods"]] == ["supervised", "self-training", "spreading", "whiten"]
    base, *others = found["methods"]
    for each in others:
        gains = np.subtract(each["fold_scores"], base["fold_scores"])
        assert each["difference"] == pytest.approx(gains.mean())
        assert each["difference_ci95"][0] <= gains.mean() <= each["difference_ci95"][1]
        assert each["ci95"][0] <= each["mean"] <= each["ci95"][1]
    assert found["shipped"] == max(found["methods"], key=lambda each: each["mean"])["method"]
    assert not [note for note in report["warnings"] if "left out" in note]
    assert result.predictor.report["unlabelled"] == found


def test_a_repeat_gives_the_same(tmp_path, random):
    X, _, few = clusters(random, size=8)
    bank = make_bank(tmp_path / "a.bank", X, label=few)
    one, two = (fit_semi_supervised(bank, models=LOGREG, folds=2).report["unlabelled"] for _ in range(2))
    assert one == two


def test_what_wins_is_shipped_as_a_plain_predictor(tmp_path, random, monkeypatch):
    X, y, few = clusters(random)
    few[np.flatnonzero(few == "a")[:6]] = "b"  # the given labels mislead, the truth is known to this method alone
    truth = {tuple(row): name for row, name in zip(X.astype(np.float32).tolist(), y, strict=True)}

    def all_knowing(search, rows):
        names = np.array([truth[tuple(row)] for row in rows.all_rows().tolist()])
        model = supervised(search, rows)
        return model.fit(rows.all_rows(), names)

    bank = make_bank(tmp_path / "a.bank", X, label=few)
    monkeypatch.setitem(unlabelled.METHODS, "whiten", all_knowing)
    result = fit_semi_supervised(bank, ["whiten"], models={"svm": {"C": [1.0]}}, folds=3)
    report = result.report
    assert report["unlabelled"]["shipped"] == "whiten"
    assert report["unlabelled"]["sentence"].startswith("The rows without a label ")
    result.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    table = loaded.predict_bank(bank)
    assert (table["label"] == y).mean() > 0.97
    assert table["probability"].between(0, 1).all()
    assert "unlike" in table
    score = (result.oof["true"] == result.oof["predicted"]).mean()
    best = report["unlabelled"]["methods"][1]
    assert score == pytest.approx(best["mean"])
    recall = np.mean([each["recall"] for each in report["per_class"]])
    assert recall == pytest.approx(
        np.mean([(result.oof["predicted"] == name)[result.oof["true"] == name].mean() for name in "ab"])
    )


def test_the_supervised_predictor_is_kept_when_others_do_worse(tmp_path, random, monkeypatch):
    X, _, few = clusters(random)

    def contrary(search, rows):
        return supervised(search, rows).fit(rows.X, np.where(rows.y == "a", "b", "a"))

    monkeypatch.setitem(unlabelled.METHODS, "spreading", contrary)
    result = fit_semi_supervised(make_bank(tmp_path / "a.bank", X, label=few), ["spreading"], models=LOGREG)
    found = result.report["unlabelled"]
    assert found["shipped"] == "supervised"
    assert found["methods"][1]["told_apart"]
    assert found["sentence"].startswith("The rows without a label did not pay: spreading -")
    np.testing.assert_array_equal(result.predictor.model.predict(X), result.search.predict(X))


def spied(monkeypatch, bank, **options):
    """Return the first column of the labelled rows and of the pool of every fit, in the order of the fits."""
    seen = []

    def spy(search, rows):
        seen.append((rows.X[:, 0].astype(int), rows.pool[:, 0].astype(int), rows.groups))
        return supervised(search, rows)

    monkeypatch.setitem(unlabelled.METHODS, "whiten", spy)
    result = fit_semi_supervised(bank, ["whiten"], models=LOGREG, **options)
    return seen, result


def test_no_group_of_a_test_row_is_among_the_rows_without_a_label(tmp_path, random, monkeypatch):
    X, _, few = clusters(random, count=120)
    site = np.arange(120) % 12
    X[:, 0] = np.arange(120)  # so that a spy knows the rows
    bank = make_bank(tmp_path / "a.bank", X, label=few, site=site)
    seen, result = spied(monkeypatch, bank, groups="site", folds=3)
    assert len(seen) == 3
    for (train, pool, groups), (_, test) in zip(seen, result.search.folds_, strict=True):
        tested = set(site) - set(site[train])
        assert len(test) == 30 - len(train)
        assert tested
        assert not tested & set(site[pool])
        assert len(pool) > 20
        assert len(np.unique(groups)) == len(set(site[train]))


def test_content_that_has_a_label_is_not_among_the_rows_without_one(tmp_path, random, monkeypatch):
    X, _, few = clusters(random, count=120)
    X[:, 0] = np.arange(120)
    first, other = np.flatnonzero(few == "a")[0], np.flatnonzero(few == None)  # noqa: E711
    contents = np.arange(120)
    contents[other[:5]] = first  # copies of a labelled image
    contents[other[5:8]] = contents[other[8]]  # one image four times
    seen, result = spied(monkeypatch, make_bank(tmp_path / "a.bank", X, contents, label=few), folds=3)
    assert result.report["unlabelled"]["rows"] == 90 - 5 - 3
    for _, pool, _ in seen:
        assert first not in pool
        assert len(set(pool)) == len(pool) == 82


def test_near_duplicates_of_held_out_rows_are_never_used(tmp_path, random, monkeypatch):
    X, _, few = clusters(random, count=120, size=20)
    split = np.where(np.arange(120) % 3, "train", "test").astype(object)
    X[:, 0] = np.arange(120)
    bank = make_bank(tmp_path / "a.bank", X, label=few, part=split, twin=np.arange(120) // 6)
    seen, _ = spied(monkeypatch, bank, groups="twin", cv="predefined:part")
    tested = set((np.flatnonzero((split == "test") & (few != None)) // 6).tolist())  # noqa: E711
    for _, pool, _ in seen:
        assert not tested & set((pool // 6).tolist())


def test_rows_that_are_held_out_are_scored_with_what_is_shipped(tmp_path, random, monkeypatch):
    X, y, few = clusters(random, count=200, size=40)
    part = np.array(["train", "val", "test", "train"])[np.arange(200) % 4]
    truth = {tuple(row): name for row, name in zip(X.astype(np.float32).tolist(), y, strict=True)}

    def all_knowing(search, rows):
        names = np.array([truth[tuple(row)] for row in rows.all_rows().tolist()])
        return supervised(search, rows).fit(rows.all_rows(), names)

    flipped = np.flatnonzero((few == "a") & (part == "train"))[:8]
    few[flipped] = "b"
    monkeypatch.setitem(unlabelled.METHODS, "spreading", all_knowing)
    bank = make_bank(tmp_path / "a.bank", X, label=few, part=part)
    result = fit_semi_supervised(bank, ["spreading"], models=LOGREG, cv="predefined:part")
    rows = np.flatnonzero((part == "test") & (few != None))  # noqa: E711
    assert result.report["unlabelled"]["shipped"] == "spreading"
    assert result.report["held_out"]["n_samples"] == len(rows)
    assert result.report["held_out"]["accuracy"] == pytest.approx(
        (result.predictor.model.predict(X[rows].astype(np.float32)) == few[rows]).mean()
    )


def test_an_interruption_keeps_the_supervised_fit(tmp_path, random, monkeypatch):
    def interrupted(search, rows):
        raise KeyboardInterrupt

    X, _, few = clusters(random)
    monkeypatch.setitem(unlabelled.METHODS, "whiten", interrupted)
    result = fit_semi_supervised(make_bank(tmp_path / "a.bank", X, label=few), ["whiten"], models=LOGREG)
    assert "unlabelled" not in result.report
    assert result.report["warnings"][-1].startswith("interrupted: the supervised fit is kept")
    result.save(tmp_path / "a.featurebank")


def test_self_training_takes_the_best_model_that_has_probabilities(tmp_path, random):
    X, _, few = clusters(random, away=2.0)
    models = {"linear-svm": {"C": [1.0]}, "ridge": {"alpha": [1.0]}, "knn": {"n_neighbors": [3]}}
    bank = make_bank(tmp_path / "a.bank", X, label=few)
    found = fit_semi_supervised(bank, ["self-training"], models=models, folds=2).report["unlabelled"]
    assert found["methods"][1]["model"] == "knn"


def test_labels_without_information_promise_nothing(tmp_path, random):
    few = clusters(random, size=40)[2]
    given = few != None  # noqa: E711
    few[given] = random.permutation(few[given])
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(300, 6)), label=few)
    found = fit_semi_supervised(bank, models=LOGREG).report["unlabelled"]
    assert not any(each["told_apart"] for each in found["methods"][1:])
    assert all(abs(each["mean"] - 0.5) < 0.2 for each in found["methods"])


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (["spread"], {}, "no use of rows without a label 'spread'; did you mean spreading?"),
        ([], {}, "expected some of self-training, spreading, whiten, each once"),
        (["whiten", "whiten"], {}, "each once"),
        (["whiten"], {"sample_weight": "weight"}, "a sample weight does not go with rows without a label"),
        (["whiten"], {"threshold": "f1"}, "a threshold does not go with rows without a label"),
        (["whiten"], {"target": ["label", "other"]}, "a second target does not go with rows without a label"),
        (["whiten"], {"target": "age"}, "'age' holds numbers; rows without a label help to learn classes only"),
        (["whiten"], {"target": "other"}, "every readable sample has a value of 'other'; expected some without one"),
        (["self-training"], {"models": "svm"}, "self-training needs a top model with probabilities; add one"),
        (["whiten"], {"groups": "site"}, "column 'site' has 270 missing values"),
        (["whiten"], {"target": "species"}, "the bank has no column 'species'"),
        (["whiten"], {"target": "rare", "folds": 2}, "trains on one class"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, random, methods, options, message):
    X, y, few = clusters(random)
    age = np.where(few == None, np.nan, random.normal(size=300))  # noqa: E711
    site = np.where(few == None, None, np.arange(300) % 10)  # noqa: E711
    rare = np.where(np.arange(300) < 10, "a", None)
    rare[:1] = "b"
    columns = {"label": few, "other": y, "age": age, "weight": np.ones(300), "rare": rare, "site": site}
    bank = make_bank(tmp_path / "a.bank", X, **columns)
    with pytest.raises((TopModelError, ColumnError, FeatureBankError), match=message):
        fit_semi_supervised(bank, methods, **{"models": LOGREG, **options})
