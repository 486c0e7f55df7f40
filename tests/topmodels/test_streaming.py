"""Fits that are read in batches: those of sums equal scikit-learn's, the others find what is planted."""

import tracemalloc

import numpy as np
import pytest
from joblib import parallel_config
from made_bank import make_bank, planted
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from featurebank import Predictor, TopModelSearchCV, fit
from featurebank.bank import matrix
from featurebank.bank.bank import Bank
from featurebank.bank.matrix import ColumnReader, Within, in_batches, matrix_of
from featurebank.errors import TopModelError
from featurebank.storage.memory import available_memory
from featurebank.topmodels.search_run import SearchRun
from featurebank.topmodels.streaming import minibatch, trainer
from featurebank.topmodels.streaming.minibatch import mixed

CV = StratifiedKFold(5, shuffle=True, random_state=0)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Batches that end inside folds and inside classes; few epochs."""
    monkeypatch.setattr(matrix.BankMatrix.batches, "__defaults__", (None, 37))
    monkeypatch.setattr(minibatch, "MAX_EPOCHS", 6)


@pytest.fixture(scope="module")
def rows():
    """Three overlapping classes in 8 columns, one of them constant, far from the origin."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 240)
    X = random.normal(size=(240, 8)) + 1.2 * np.eye(8)[y] + 50
    X[:, 5] = 7
    number = X[:, :3] @ [1.0, -2.0, 0.5] + random.normal(size=240)
    return X.astype(np.float32), np.array(["a", "b", "c"])[y], number


@pytest.fixture
def bank(rows, tmp_path):
    X, label, number = rows
    return make_bank(tmp_path / "a.bank", {"one": X, "two": X[:, :4] ** 2}, label=label, number=number)


def lazy(X):
    return matrix_of([ColumnReader(lambda rows: X[rows], X.shape[1])], len(X))


# --- the matrix --------------------------------------------------------------------------------------------


def test_a_matrix_is_sliced_as_an_array_is():
    random = np.random.default_rng(0)
    A, B = (random.normal(size=(20, width)).astype(np.float32) for width in (3, 2))
    whole = np.concatenate([A, B], axis=1)
    X = matrix_of([ColumnReader(lambda rows: A[rows], 3), ColumnReader(lambda rows: B[rows], 2)], 20)
    chosen, mask = [4, 1, 1], np.arange(20) % 3 == 0
    for found, expected in (
        (X, whole),
        (X[chosen], whole[chosen]),
        (X[mask][:, [4, 0]], whole[mask][:, [4, 0]]),
        (X[:, 2:4][5:], whole[5:, 2:4]),
        (X.mapped([Normalizer()])[mask], Normalizer().transform(whole[mask])),
    ):
        assert found.shape == expected.shape
        assert np.array_equal(np.asarray(found), expected)
        assert np.array_equal(np.concatenate(list(found.batches(size=4))), expected)
    assert [part.shape for part in in_batches(whole)] == [(20, 5)]


def test_columns_of_one_part_do_not_touch_the_others():
    def refuse(rows):
        raise AssertionError("this part was not asked for")

    X = matrix_of([ColumnReader(refuse, 3), ColumnReader(lambda rows: np.ones((len(rows), 2), np.float32), 2)], 4)
    assert np.asarray(X[:, 3:]).tolist() == [[1, 1]] * 4


@pytest.mark.parametrize("given", [[7, 2, 9, 4], [2, 4, 7, 9], []])
def test_rows_within_a_batch_keep_their_places(given):
    rows, places = Within(np.array(given, np.int64)).between(3, 9)
    assert rows.tolist() == sorted(set(given) & {4, 7})
    assert [given[place] for place in places] == rows.tolist()


def test_rows_in_any_order_are_read_a_few_at_a_time_those_near_each_other_together(monkeypatch):
    monkeypatch.setattr(matrix, "SCATTERED", 3)
    values, asked = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32), []

    def read(rows):
        asked.append(rows.tolist())
        return values[rows]

    order = np.random.default_rng(1).permutation(20)
    found = list(matrix_of([ColumnReader(read, 2)], 20).batches(order, 8))
    assert [len(batch) for batch in found] == [8, 8, 4]
    assert np.array_equal(np.concatenate(found), values[order])
    assert [len(rows) for rows in asked] == [3, 3, 2, 3, 3, 2, 3, 1]
    assert np.concatenate(asked[:3]).tolist() == sorted(order[:8])


def test_the_order_is_drawn_mixed_and_repeats():
    order = mixed(20_000, 1)
    assert np.array_equal(np.sort(order), np.arange(20_000))
    assert np.array_equal(order, mixed(20_000, 1))
    assert not np.array_equal(order, mixed(20_000, 2))
    assert abs(order[:8192].mean() - 10_000) < 1000  # a class of rows that lie together is in every batch


# --- exact models ------------------------------------------------------------------------------------------

NAMED = {"alpha": [0.1, 10.0, 1000.0]}
EXACT = [
    ("label", {"ridge": NAMED}, RidgeClassifier(), NAMED),
    ("number", {"ridge": NAMED}, Ridge(), NAMED),
    *[
        ("label", {"lda": grid}, LinearDiscriminantAnalysis(solver="lsqr"), grid)
        for grid in ({"shrinkage": [0.01, 0.3, 0.9]},)
    ],
]


@pytest.mark.parametrize(("target", "models", "estimator", "grid"), EXACT)
@pytest.mark.parametrize("normalize", ["standardize", "none", "l2", "whiten"])
def test_scores_answers_and_the_model_are_those_of_scikit_learn(rows, target, models, estimator, grid, normalize):
    X, label, number = rows
    y = label if target == "label" else number
    whiten = [StandardScaler(), PCA(0.99, whiten=True)]
    steps = {"standardize": [StandardScaler()], "none": [], "l2": [Normalizer()], "whiten": whiten}[normalize]
    exact = 1e-6 if normalize == "l2" else 1e-9  # rows are brought to length 1 in float32
    folds = list(CV.split(X, label))
    task = "regression" if target == "number" else "classification"
    search = TopModelSearchCV(models, cv=folds, task=task, normalize=normalize).fit(lazy(X), y)
    grid = {f"{type(estimator).__name__.lower()}__{name}": values for name, values in grid.items()}
    plain = GridSearchCV(make_pipeline(*steps, estimator), grid, cv=folds).fit(X.astype(np.float64), y)
    assert search.cv_results_["mean_test_score"] == pytest.approx(plain.cv_results_["mean_test_score"], abs=exact)
    method = "predict" if target == "number" else "decision_function"
    found, expected = (getattr(each, method)(X.astype(np.float64)) for each in (search.best_estimator_, plain))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    said = search.oof_.predicted if target == "number" else search.oof_.scores
    assert len(said) == len(X)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_weight": "balanced"},
        {"sample_weight": True},
        {"class_weight": {"a": 3.0, "b": 1.0, "c": 1.0}, "sample_weight": True},
        {"cv": "repeated"},
        {"cv": "part"},
    ],
    ids=str,
)
def test_a_streamed_search_equals_the_one_in_memory(rows, options):
    X, y, _ = rows
    given = dict(options)
    weight = np.random.default_rng(1).uniform(0.1, 2, len(y)) if given.pop("sample_weight", False) else None
    halves = [(np.arange(0, 240, 2), np.arange(1, 240, 2)), (np.arange(100), np.arange(239, 150, -1))]
    folds = {"repeated": list(CV.split(X, y)) + halves, "part": halves[1:]}
    given["cv"] = folds.get(given.get("cv"), 5)
    models = ["ridge"] if weight is not None or "class_weight" in given else ["ridge", "lda"]
    here, there = (
        TopModelSearchCV(models, refit=False, **given).fit(rows, y, sample_weight=weight) for rows in (X, lazy(X))
    )
    for mine, other in zip(here.candidates_, there.candidates_, strict=True):
        assert mine.fold_scores == pytest.approx(other.fold_scores, abs=1e-12)
    assert here.oof_.row.tolist() == there.oof_.row.tolist()
    assert here.oof_.scores == pytest.approx(there.oof_.scores, abs=1e-6)


@pytest.mark.parametrize(("is_lazy", "is_grouped", "count"), [(True, False, 1), (True, True, 2), (False, False, 2)])
def test_of_rows_on_the_disk_the_answers_of_one_candidate_are_kept(rows, is_lazy, is_grouped, count, monkeypatch):
    own, kept = SearchRun.set_intervals, []

    def set_intervals(run, found):
        kept.append(sum(len(group.predictions) for group in run.groups))
        own(run, found)

    monkeypatch.setattr(SearchRun, "set_intervals", set_intervals)
    X, y, _ = rows
    groups = np.arange(len(y)) // 2 if is_grouped else None  # whose intervals resample the answers of each model
    search = TopModelSearchCV(["lda", "ridge"], refine=0).fit(lazy(X) if is_lazy else X, y, groups=groups)
    assert kept == [count]
    assert (search.oof_.predicted == search.oof_.true).mean() == pytest.approx(search.best_score_)
    assert search.best_score_ == max(candidate.mean for candidate in search.candidates_)


@pytest.mark.parametrize("scoring", [None, "roc_auc", "neg_log_loss"])
def test_decisions_beside_probabilities_are_asked_for_where_the_scoring_may_use_them(rows, scoring, monkeypatch):
    asked, own = [], trainer._Answers.take

    def take(self, places, model, Z):
        own(self, places, model, Z)
        asked.append(set(self.columns))

    monkeypatch.setattr(trainer._Answers, "take", take)
    X, label, _ = rows
    y = np.where(label == "a", "a", "other")
    search = TopModelSearchCV({"lda": {"shrinkage": [0.1, 0.9]}}, cv=CV, scoring=scoring)
    here = search.fit(X.astype(np.float64), y)
    scores, said = here.cv_results_["mean_test_score"], here.oof_.scores
    assert not asked
    there = search.fit(lazy(X), y)
    assert asked
    assert all(each == {"labels", "proba"} | ({"decision"} if scoring == "roc_auc" else set()) for each in asked)
    assert there.cv_results_["mean_test_score"] == pytest.approx(scores, abs=1e-9)
    assert there.oof_.decision is None
    assert there.oof_.scores == pytest.approx(said, abs=1e-9)
    assert there.oof_.scores == pytest.approx(np.log(there.oof_.proba))


def test_one_pass_reads_the_sums_of_all_folds_and_parameters(rows, monkeypatch):
    X, y, _ = rows
    read = []
    counted = matrix_of([ColumnReader(lambda rows: read.append(len(rows)) or X[rows], X.shape[1])], len(X))
    TopModelSearchCV("ridge", refit=False).fit(counted, y)
    assert sum(read) <= 2 * len(X) + 2048  # the sums, the answers, and the first rows for the origin
    read.clear()
    monkeypatch.setattr(trainer, "AT_ONCE", 1)
    TopModelSearchCV("ridge", refit=False).fit(counted, y)
    assert sum(read) > 7 * len(X)  # answers of one alpha at a time


# --- stochastic models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd-logreg", "sgd-svm", "mlp", "sklearn.naive_bayes.GaussianNB"])
def test_models_that_learn_from_batches_find_the_planted_groups_and_repeat(name, monkeypatch):
    monkeypatch.setattr(minibatch, "MAX_EPOCHS", 30 if name == "mlp" else 6)
    X, y = planted(np.random.default_rng(0), groups=3, size=40, width=6)
    X = X.astype(np.float32)
    steps = {"learning_rate_init": [0.03]} if name == "mlp" else {}
    models = {name: {"alpha": [1e-3], **steps}} if "." not in name else [name]
    found = [TopModelSearchCV(models, cv=3).fit(lazy(X), y) for _ in range(2)]
    assert found[0].best_score_ > 0.97
    assert (found[0].predict(X) == y).mean() > 0.97
    assert np.array_equal(found[0].predict(X), found[1].predict(X))
    assert np.array_equal(found[0].oof_.scores, found[1].oof_.scores)


def test_models_learn_here_whatever_does_the_jobs():
    X, y = planted(np.random.default_rng(0), groups=3, size=40, width=6)
    search = TopModelSearchCV("sgd-logreg", cv=3, n_jobs=2)
    expected = search.fit(lazy(X.astype(np.float32)), y).oof_.scores
    with parallel_config(backend="loky"):
        assert np.array_equal(search.fit(lazy(X.astype(np.float32)), y).oof_.scores, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_whitening_is_that_of_the_rows_in_memory(rows, weighted):
    X, y, _ = rows
    weight = np.random.default_rng(1).uniform(0.1, 2, len(y)) if weighted else None
    here, there = (
        TopModelSearchCV(["ridge"], normalize="whiten").fit(rows, y, sample_weight=weight) for rows in (X, lazy(X))
    )
    for mine, other in zip(here.candidates_, there.candidates_, strict=True):
        assert mine.fold_scores == pytest.approx(other.fold_scores, abs=1e-12)
    (_, scale), (_, whiten), _ = there.best_estimator_.steps
    white = whiten.transform(scale.transform(X))
    assert white.shape == (240, 7)  # of 8 columns, one is constant
    assert np.cov(white.T) == pytest.approx(np.eye(7), abs=1e-6)
    assert there.oof_.scores == pytest.approx(here.oof_.scores, abs=1e-5)  # float32 there, float64 here


def test_stochastic_gradients_learn_whitened_rows(rows):
    X, y, _ = rows
    found = TopModelSearchCV({"sgd-logreg": {"alpha": [1e-3]}}, normalize="whiten").fit(lazy(X), y)
    plain = TopModelSearchCV({"ridge": {"alpha": [1.0]}}).fit(X, y)
    assert found.best_score_ == pytest.approx(plain.best_score_, abs=0.05)
    assert [name for name, _ in found.best_estimator_.steps] == ["scale", "whiten", "model"]


def test_a_fold_that_learns_a_row_twice_is_refused(rows):
    X, y, _ = rows
    folds = [(np.array([*range(100), 0]), np.arange(100, 240))]
    with pytest.raises(TopModelError, match="learns a row twice needs all rows in memory"):
        TopModelSearchCV("ridge", cv=folds).fit(lazy(X), y)


def test_classes_weigh_in_a_stochastic_model(rows):
    X, y, _ = rows
    model = {"sgd-logreg": {"alpha": [1e-2]}}
    plain, heavy = (
        TopModelSearchCV(model, class_weight=weight).fit(lazy(X), y) for weight in (None, {"a": 20.0, "b": 1, "c": 1})
    )
    assert (heavy.predict(X) == "a").mean() > (plain.predict(X) == "a").mean() + 0.2


# --- fit ---------------------------------------------------------------------------------------------------


def test_a_fit_without_room_has_the_report_and_the_predictor_of_any_fit(bank, tmp_path):
    models = {"ridge": {"alpha": [1.0, 100.0]}, "lda": {"shrinkage": [0.1]}}
    here, there = (fit(bank, target="label", models=models, memory=memory) for memory in (None, 1000))
    assert set(there.report) == set(here.report)
    (note,) = set(there.report["warnings"]) - set(here.report["warnings"])
    assert "read in batches" in note
    scores = [[each["fold_scores"] for each in found.report["candidates"]] for found in (here, there)]
    assert scores[0] == [pytest.approx(each, abs=1e-12) for each in scores[1]]
    assert there.report["best"]["params"] == here.report["best"]["params"]
    assert there.oof.drop(columns="fold").columns.tolist() == here.oof.drop(columns="fold").columns.tolist()
    assert (there.oof["predicted"] == here.oof["predicted"]).all()
    there.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    assert (loaded.predict_bank(bank)["label"] == here.predictor.predict_bank(bank)["label"]).all()
    assert loaded.single.unlike.usual_ == pytest.approx(here.predictor.single.unlike.usual_)


def test_features_of_several_sets_a_held_out_part_and_groups(bank, rows):
    split = np.array(["train", "val", "test"])[np.arange(240) % 3]
    import pandas as pd

    bank.label(pd.DataFrame({"path": bank.table.paths, "split": split, "site": np.arange(240) % 7}))
    options = {"target": "label", "models": ["ridge"], "cv": "predefined:split", "features": ["one+two", "two"]}
    here, there = (fit(bank, memory=memory, **options) for memory in (1e9, 0))
    assert there.report["held_out"]["accuracy"] == here.report["held_out"]["accuracy"]
    assert there.report["best"]["features"] == here.report["best"]["features"]
    grouped = fit(bank, target="number", groups="site", memory=0, features="all", models="ridge")
    assert grouped.report["grouped"]
    assert ["net/one", "net/two"] in [each["features"] for each in grouped.report["candidates"]]


@pytest.mark.parametrize("memory", [0, 1e9])
def test_feature_sets_that_are_not_asked_for_are_not_opened(bank, memory):
    (file,) = bank.feature_set("two").segments
    file.path.write_bytes(b"damaged")
    assert fit(bank.path, target="label", features="one", models="ridge", memory=memory).report["n_samples"] == 240


def test_the_default_models_without_room(bank):
    found = fit(bank, target="label", features="one", memory=0, folds=2)
    assert {each["model"] for each in found.report["candidates"]} == {"ridge", "lda", "sgd-logreg"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["svm"]}, "svm needs all rows in memory.*expected ridge, lda, sgd-logreg"),
        ({"models": ["logreg", "ridge"]}, "logreg needs all rows"),
        ({"nested": True}, "nested needs all rows"),
        ({"learning_curve": True}, "a learning curve needs all rows"),
        ({"threshold": "f1_macro"}, "a threshold needs all rows"),
        ({"select": 0.5}, "select needs all rows"),
        ({"normalize": "center-l2"}, "center-l2 needs all rows"),
        ({"target": ["label", "number"]}, "several tasks needs all rows"),
        ({"models": {"lda": {"solver": ["svd"]}}}, "needs solver lsqr"),
        ({"models": {"ridge": {"fit_intercept": [False]}}}, "no parameter 'fit_intercept'"),
    ],
    ids=str,
)
def test_what_needs_all_rows_is_refused_in_one_line(bank, options, message):
    with pytest.raises(TopModelError, match=message):
        fit(bank, memory=0, **{"target": "label", "features": "one", **options})


def test_one_class_and_a_class_of_one_row(bank, rows):
    import pandas as pd

    paths = bank.table.paths
    bank.label(pd.DataFrame({"path": paths, "same": ["x"] * 240, "rare": ["y"] + ["x"] * 239}))
    with pytest.raises(TopModelError, match="one class"):
        fit(bank, target="same", memory=0)
    with pytest.raises(TopModelError, match=r"fewer folds|trains on one class|no fold both learns"):
        fit(bank, target="rare", memory=0, models="ridge")


def test_the_memory_of_a_streamed_fit_does_not_grow_with_the_rows(monkeypatch):
    monkeypatch.undo()
    peaks = []
    for count in (10_000, 30_000):
        X = matrix_of(
            [ColumnReader(lambda rows: np.sin(rows[:, None] * np.arange(1, 65)).astype(np.float32), 64)], count
        )
        y = np.arange(count) % 2
        tracemalloc.start()
        TopModelSearchCV({"ridge": {"alpha": [1.0]}}, cv=2).fit(X, y)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 20_000 * 64 * 4 / 2  # what X in memory would add, and copies of it


def test_free_memory_is_a_number_of_bytes(tmp_path, monkeypatch):
    assert available_memory() > 1 << 20
    from featurebank.storage import memory

    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:      2048 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory() == 2 << 20
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available_memory() == 48576
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert available_memory() == 48576


def test_a_bank_lets_go_of_what_it_read(bank):
    X = bank.matrix("one", bank.table)
    assert np.array_equal(np.asarray(X), Bank(bank.path).load("one"))
    assert bank.feature_set("one")._opened == {}
