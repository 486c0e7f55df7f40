import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import stats
from sklearn.base import clone, is_regressor
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, get_scorer, log_loss, make_scorer
from sklearn.model_selection import (
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featurebank import TopModelSearchCV
from featurebank.errors import TopModelError
from featurebank.topmodels.folds import Folds
from featurebank.topmodels.models import CLASSIFIERS, KNOWN, REGRESSORS
from featurebank.topmodels.scores import wilson_interval
from featurebank.topmodels.transforms import NORMALIZATIONS, SelectRelevant, normalization

SEED = 3
GRIDS = {"logreg": {"C": [0.01, 1.0]}, "svm": {"C": [1.0, 10.0]}, "mlp": {"alpha": [0.01, 1.0]}}
ESTIMATORS = {
    "logreg": LogisticRegression(max_iter=1000, random_state=SEED),
    "svm": SVC(random_state=SEED),
    "mlp": MLPClassifier((64,), max_iter=50, random_state=SEED),
}
SVM = {"svm": {"C": [1.0]}}


@pytest.fixture(scope="module")
def data():
    """120 rows of three classes that overlap, with groups of three rows and weights: X, y, groups, weights."""
    X, y = make_classification(
        120, 12, n_informative=5, n_classes=3, n_clusters_per_class=1, class_sep=0.7, flip_y=0.1, random_state=0
    )
    return X, np.array(["ant", "bee", "cat"])[y], np.arange(120) // 3, np.random.default_rng(0).random(120)


@parametrize_with_checks([TopModelSearchCV(models={"logreg": {"C": [1.0]}}, cv=2, n_jobs=1)])
def test_the_search_follows_scikit_learns_rules(estimator, check):
    check(estimator)


# --- scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("grouped", [False, True], ids=["ungrouped", "grouped"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_score_is_that_of_cross_val_score(data, name, grouped, weighted):
    X, y, groups, weight = data
    given = {**({"groups": groups} if grouped else {}), **({"sample_weight": weight} if weighted else {})}
    search = TopModelSearchCV({name: GRIDS[name]}, cv=4, random_state=SEED).fit(X, y, **given)
    assert len(search.candidates_) == 2
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(4, shuffle=True, random_state=SEED)
    for candidate in search.candidates_:
        estimator = clone(ESTIMATORS[name]).set_params(**candidate.params)
        with sklearn.config_context(enable_metadata_routing=True):
            pipeline = make_pipeline(
                StandardScaler().set_fit_request(sample_weight=False), estimator.set_fit_request(sample_weight=weighted)
            )
            scorer = make_scorer(accuracy_score).set_score_request(sample_weight=weighted)
            expected = cross_val_score(pipeline, X, y, cv=splitter, scoring=scorer, params=given)
        assert candidate.fold_scores == expected.tolist()
        assert candidate.mean == np.mean(expected)
        assert candidate.std == np.std(expected)


def test_the_scaler_never_sees_the_test_rows():
    random = np.random.default_rng(1)
    y = np.arange(80) % 2
    X = np.column_stack([y + random.normal(0, 0.4, 80), random.normal(0, 1, 80)])
    train, test = np.arange(40), np.arange(40, 80)
    X[test, 0] += 50 * (np.arange(40) % 4 == 0)  # outliers that would stretch the scale of the first column
    clean = make_pipeline(StandardScaler(), SVC()).fit(X[train], y[train]).score(X[test], y[test])
    scaler = StandardScaler().fit(X)
    leaky = SVC().fit(scaler.transform(X[train]), y[train]).score(scaler.transform(X[test]), y[test])
    assert clean != leaky
    assert TopModelSearchCV(SVM, cv=[(train, test)]).fit(X, y).best_score_ == clean


def test_all_candidates_share_the_folds_that_are_kept(data):
    X, y, _, _ = data
    blocks = {"left": slice(0, 6), "right": slice(6, 12)}
    search = TopModelSearchCV({"svm": {"C": [1.0]}, "logreg": {"C": [1.0]}}, cv=3, blocks=blocks).fit(X, y)
    expected = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    assert all(map(np.array_equal, (test for _, test in search.folds_), (test for _, test in expected)))
    for candidate in search.candidates_:
        estimator = {"svm": SVC(), "logreg": LogisticRegression(max_iter=1000)}[candidate.model]
        pipeline = make_pipeline(StandardScaler(), estimator)
        columns = blocks[candidate.features[0]]
        assert candidate.fold_scores == cross_val_score(pipeline, X[:, columns], y, cv=search.folds_).tolist()


def test_any_scorer_is_taken(data):
    X, y, _, _ = data
    search = TopModelSearchCV({"logreg": {"C": [1.0]}}, cv=3, scoring="neg_log_loss").fit(X, y)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    expected = cross_val_score(pipeline, X, y, cv=search.folds_, scoring="neg_log_loss")
    np.testing.assert_allclose(search.candidates_[0].fold_scores, expected, rtol=1e-3)  # the solver's tolerance


@pytest.mark.parametrize("scoring", ["balanced_accuracy", "neg_log_loss", "roc_auc_ovr", make_scorer(accuracy_score)])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_score_obeys_scoring(data, scoring, is_weighted):
    X, y, _, weight = data
    search = TopModelSearchCV({"logreg": {"C": [1.0]}}, cv=3, scoring=scoring).fit(X, y)
    options = {"sample_weight": weight} if is_weighted else {}
    scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
    expected = scorer(search.best_estimator_, X, y, **options)
    assert search.score(X, y, **options) == expected
    assert (expected == search.best_estimator_.score(X, y, **options)) == callable(scoring)


def test_score_of_probabilities_from_a_model_without_any_is_an_error(data):
    search = TopModelSearchCV(SVM, cv=3).fit(*data[:2])
    with pytest.raises(AttributeError, match="predict_proba"):
        search.set_params(scoring="neg_log_loss").score(*data[:2])


def test_random_labels_score_no_better_than_chance():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(200, 30)), np.arange(200) % 2
    best = TopModelSearchCV({"logreg": {"C": [0.01]}}).fit(X, y).best_candidate_
    assert best.ci95[0] < 0.5 < best.ci95[1]
    assert abs(best.mean - 0.5) < 0.1


# --- results -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def search(data):
    X, y, _, _ = data
    return TopModelSearchCV({"svm": {"C": [1.0, 10.0]}, "logreg": {"C": [0.01]}}, cv=4, random_state=SEED).fit(X, y)


def test_the_best_candidate_is_the_first_of_the_highest_means(search):
    means = [candidate.mean for candidate in search.candidates_]
    assert search.best_index_ == means.index(max(means))
    best = search.best_candidate_
    assert best is search.candidates_[search.best_index_]
    assert (search.best_score_, search.best_params_) == (best.mean, best.params)
    assert (search.best_model_, search.best_features_) == (best.model, ("X",))


def test_the_first_of_equal_candidates_wins(data):
    X, y, _, _ = data
    search = TopModelSearchCV({"svm": {"C": [1.0], "shrinking": [False, True]}}, cv=3).fit(X, y)
    assert search.candidates_[0].mean == search.candidates_[1].mean
    assert (search.best_index_, search.best_params_["shrinking"]) == (0, False)
    assert search.cv_results_["rank_test_score"].tolist() == [1, 1]


def test_cv_results_make_a_table(search):
    table = pd.DataFrame(search.cv_results_)
    assert table["model"].tolist() == ["svm", "svm", "logreg"]
    assert table["params"].tolist() == [{"C": 1.0}, {"C": 10.0}, {"C": 0.01}]
    folds = table[[f"split{fold}_test_score" for fold in range(4)]]
    np.testing.assert_array_equal(table["mean_test_score"], folds.mean(axis=1))
    np.testing.assert_allclose(table["std_test_score"], folds.std(axis=1, ddof=0))
    np.testing.assert_array_equal(
        table["rank_test_score"], table["mean_test_score"].rank(ascending=False, method="min")
    )
    assert table.loc[search.best_index_, "rank_test_score"] == 1


def test_the_best_pipeline_is_refitted_on_all_rows(data, search):
    X, y, _, _ = data
    name, params = search.best_model_, search.best_params_
    plain = make_pipeline(StandardScaler(), clone(ESTIMATORS[name]).set_params(**params)).fit(X, y)
    np.testing.assert_array_equal(search.predict(X), plain.predict(X))
    assert search.score(X, y) == plain.score(X, y)
    assert search.classes_.tolist() == ["ant", "bee", "cat"]


def test_without_a_refit_there_are_scores_and_no_estimator(data, search):
    scores = clone(search).set_params(refit=False).fit(*data[:2])
    assert scores.best_score_ == search.best_score_
    assert not hasattr(scores, "best_estimator_")
    assert not hasattr(scores, "predict_proba")


def test_probabilities_and_decisions_are_there_where_the_model_has_them(data):
    X, y, _, _ = data
    svm, logreg, mlp = (TopModelSearchCV({name: GRIDS[name]}, cv=2).fit(X, y) for name in ("svm", "logreg", "mlp"))
    assert [hasattr(each, "predict_proba") for each in (svm, logreg, mlp)] == [False, True, True]
    assert [hasattr(each, "decision_function") for each in (svm, logreg, mlp)] == [True, True, False]
    np.testing.assert_allclose(logreg.predict_proba(X).sum(axis=1), 1)
    assert svm.decision_function(X).shape == (120, 3)
    with pytest.raises(NotFittedError):
        TopModelSearchCV().predict(X)


def test_a_repeated_fit_and_another_number_of_threads_change_nothing(data):
    X, y, _, _ = data
    X = X.astype(np.float32)

    def results(jobs):
        search = TopModelSearchCV(GRIDS, cv=3, random_state=SEED, n_jobs=jobs).fit(X, y)
        table = pd.DataFrame(search.cv_results_).drop(columns="seconds")
        return table, search.predict(X)

    first, *others = results(2), results(2), results(1)
    for table, predicted in others:
        pd.testing.assert_frame_equal(table, first[0])
        np.testing.assert_array_equal(predicted, first[1])


def test_progress_counts_every_fit(data):
    seen = []
    TopModelSearchCV(SVM | {"logreg": {"C": [1, 2]}}, cv=3, progress=lambda *now: seen.append(now)).fit(*data[:2])
    assert seen == [(done, 9) for done in range(1, 10)]


def test_what_scikit_learn_warns_about_is_kept_not_printed(data, recwarn):
    X, y, _, _ = data
    search = TopModelSearchCV({"logreg": {"C": [1.0], "max_iter": [1]}}, cv=3).fit(X, y)
    note, warning = search.warnings_
    assert note == "logreg on X: 3 folds did not converge within max_iter for {'max_iter': 1, 'C': 1.0}"
    assert warning.startswith("lbfgs failed to converge")  # the refit
    few = TopModelSearchCV(SVM, cv=5).fit(X, np.where(np.arange(120) < 3, "rare", y))
    assert [warning for warning in few.warnings_ if "class" in warning] == [
        "class 'rare' has 3 rows for 5 folds: not every fold tests it, and its recall stands on these few"
    ]
    assert not recwarn.list


# --- several feature sets ----------------------------------------------------------------------------------

BLOCKS = {"noise": slice(0, 12), "signal": slice(12, 24), "more": slice(24, 30)}


@pytest.fixture(scope="module")
def wide(data):
    """Columns of noise, then those of `data`, then more noise."""
    random = np.random.default_rng(2)
    return np.hstack([random.normal(size=(120, 12)), data[0], random.normal(size=(120, 6))])


def test_blocks_are_candidates_and_the_winner_is_named(data, wide):
    X, y, _, _ = data
    search = TopModelSearchCV(SVM, cv=3, blocks=BLOCKS).fit(wide, y)
    assert [candidate.features for candidate in search.candidates_] == [("noise",), ("signal",), ("more",)]
    assert search.best_features_ == ("signal",)
    alone = TopModelSearchCV(SVM, cv=3).fit(X, y)
    assert search.best_candidate_.fold_scores == alone.best_candidate_.fold_scores
    np.testing.assert_array_equal(search.predict(wide), alone.predict(X))
    with pytest.raises(ValueError, match="12 features, but TopModelSearchCV is expecting 30"):
        search.predict(X)


def test_features_concatenate_blocks_in_their_order(data, wide):
    y = data[1]
    wanted = [("signal", "more"), ("more", "signal"), ("noise", "signal", "more")]
    search = TopModelSearchCV(SVM, cv=3, blocks=BLOCKS, features=wanted).fit(wide, y)
    joined = [wide[:, 12:], np.hstack([wide[:, 24:], wide[:, 12:24]]), wide]
    for candidate, X in zip(search.candidates_, joined, strict=True):
        expected = cross_val_score(make_pipeline(StandardScaler(), SVC()), X, y, cv=search.folds_)
        assert candidate.fold_scores == expected.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": BLOCKS, "features": [["sky"]]}, r"features name \['sky'\]; expected some of the blocks noise"),
        ({"blocks": BLOCKS, "features": []}, "features name nothing"),
        ({"blocks": {"all": slice(0, 40)}}, "block 'all' ends after the last of 30 columns"),
    ],
)
def test_blocks_that_do_not_fit_x_are_an_error(data, wide, options, message):
    with pytest.raises(TopModelError, match=message):
        TopModelSearchCV(SVM, **options).fit(wide, data[1])


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["logreg", "vsm"]}, "no top model 'vsm' for classification; did you mean svm"),
        ({"models": {"logreg": None, "svm": {"c": [1]}}}, "svm has no parameter 'c'"),
        ({"scoring": "acuracy"}, "no scoring 'acuracy'; did you mean accuracy"),
        ({"n_jobs": 0}, "0 jobs"),
        ({"cv": 1}, "cannot be split"),
    ],
)
def test_what_is_wrong_is_an_error_before_any_work(data, options, message):
    worked = []
    with pytest.raises(TopModelError, match=message):
        TopModelSearchCV(progress=lambda *now: worked.append(now), **options).fit(*data[:2])
    assert worked == []


def test_a_value_that_the_estimator_refuses_names_the_candidate(data):
    with pytest.raises(TopModelError, match=r"svm \{'C': -1\} cannot be fitted: The 'C' parameter"):
        TopModelSearchCV({"svm": {"C": [-1]}}).fit(*data[:2])


@pytest.mark.parametrize("scoring", ["neg_log_loss", "r2"])
def test_a_scorer_that_does_not_fit_is_an_error(data, scoring):
    with pytest.raises(TopModelError, match=f"scoring '{scoring}' does not fit SVC here"):
        TopModelSearchCV(SVM, scoring=scoring).fit(*data[:2])


def test_one_class_or_a_continuous_target_is_an_error(data):
    X = data[0]
    with pytest.raises(TopModelError, match="y has one class, 'ant'; expected at least two"):
        TopModelSearchCV(SVM).fit(X, np.array(["ant"] * 120))
    with pytest.raises(TopModelError, match=r"Unknown label type: continuous.*Expected a column of classes"):
        TopModelSearchCV(SVM).fit(X, X[:, 0])


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA])
@pytest.mark.parametrize("made", [list, pd.Series, lambda cells: np.array(cells, object)])
def test_missing_labels_are_counted(data, gone, made):
    X, y = data[:2]
    cells = [gone, gone, *np.asarray(y).tolist()[2:]]
    with pytest.raises(TopModelError, match=r"^2 of 120 rows have no label \(None or NaN\); expected one a row: leave"):
        TopModelSearchCV(SVM).fit(X, made(cells))
    with pytest.raises(TopModelError, match=r"^1 of 120 rows has no label"):
        TopModelSearchCV(task="regression").fit(X, np.where(np.arange(120) == 5, np.nan, 1.0))


# --- metadata routing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_search_inside_cross_val_score_takes_routed_groups_and_weights(data, jobs):
    X, y, groups, weight = data
    folds = list(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(X, y, groups))
    search = TopModelSearchCV(SVM, cv=2, n_jobs=jobs)
    expected = [
        clone(search)
        .fit(X[train], y[train], groups=groups[train], sample_weight=weight[train])
        .score(X[test], y[test], sample_weight=weight[test])
        for train, test in folds
    ]
    with sklearn.config_context(enable_metadata_routing=True):
        routed = search.set_fit_request(groups=True, sample_weight=True).set_score_request(sample_weight=True)
        params = {"groups": groups, "sample_weight": weight}
        found = cross_val_score(routed, X, y, cv=folds, params=params, error_score="raise")
    assert found.tolist() == expected


# --- calibration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
def test_the_calibrator_learns_from_out_of_fold_decisions(classes):
    X, y = load_digits(n_class=classes, return_X_y=True)
    X = X + np.random.default_rng(0).normal(0, 6, X.shape)
    search = TopModelSearchCV(SVM).fit(X, y)
    calibrator = search.calibrate()
    pipeline = make_pipeline(StandardScaler(), SVC())
    decisions = cross_val_predict(pipeline, X, y, cv=search.folds_, method="decision_function")
    expected = LogisticRegression(max_iter=1000).fit(decisions.reshape(len(X), -1), y)
    np.testing.assert_allclose(calibrator.coef_, expected.coef_, rtol=1e-2)
    probabilities = calibrator.predict_proba(decisions.reshape(len(X), -1))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    constant = np.tile(np.bincount(y) / len(y), (len(y), 1))
    assert log_loss(y, probabilities) < 0.5 * log_loss(y, constant)


def test_a_class_that_no_fold_both_learns_and_tests_cannot_be_calibrated(data):
    X, y, groups, _ = data
    search = TopModelSearchCV(SVM, cv=3).fit(X, y, groups=np.where(y == "cat", -1, groups))
    with pytest.raises(TopModelError, match="sigmoid calibration has no row of the class 'cat' to learn from"):
        search.calibrate()
    assert search.calibrate("temperature").classes_.tolist() == search.classes_.tolist()


def test_a_class_of_one_row_is_named_with_the_remedy(data):
    X, y, _, _ = data
    y = np.where(np.arange(len(y)) == 0, "rare", y)
    with pytest.raises(TopModelError, match=r"the class 'rare' .*label more of it, or take a temperature"):
        TopModelSearchCV(SVM, cv=3).fit(X, y).calibrate()


def test_calibration_by_name_learns_from_log_probabilities_where_there_are_any(data):
    X, y, _, _ = data
    search = TopModelSearchCV({"logreg": {"C": [1.0]}}, cv=4).fit(X, y)
    calibrator = search.calibrate("temperature")
    assert calibrator.temperature_ > 0
    np.testing.assert_allclose(calibrator.predict_proba(np.log(search.predict_proba(X))).sum(axis=1), 1)
    with pytest.raises(TopModelError, match="did you mean isotonic"):
        search.calibrate("isotnic")


# --- every top model ---------------------------------------------------------------------------------------


def reference(pipeline, X, y, folds):
    """Scores of scikit-learn's own cross-validation on the same folds."""
    return cross_val_score(pipeline, X, y, cv=folds, error_score="raise")


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_model_and_normalisation_scores_as_its_plain_pipeline(data, name, normalize):
    X, y, _, _ = data
    model = CLASSIFIERS[name]
    search = TopModelSearchCV({name: model.grid}, cv=3, normalize=normalize, random_state=SEED).fit(X, y)
    for candidate in search.candidates_:
        pipeline = model.pipeline(candidate.params, SEED, normalization(normalize))
        found, expected = candidate.fold_scores, reference(pipeline, X, y, search.folds_)
        assert np.abs(found - expected).max() <= 1 / 40 + 1e-12  # one of the forty rows of a fold changes sides at most
        assert np.mean(np.abs(found - expected)) <= 1 / 120 + 1e-12
    assert type(search.best_estimator_[-1]) is type(model.estimator)


@pytest.mark.parametrize("name", REGRESSORS)
def test_every_regressor_scores_as_its_plain_pipeline(name):
    X, y = make_regression(120, 15, n_informative=6, noise=20, random_state=0)
    search = TopModelSearchCV([name], task="regression", cv=3, random_state=SEED).fit(X, y)
    for candidate in search.candidates_:
        pipeline = REGRESSORS[name].pipeline(candidate.params, SEED, normalization("standardize"))
        np.testing.assert_allclose(candidate.fold_scores, reference(pipeline, X, y, search.folds_), atol=1e-4)
    assert is_regressor(search)
    assert search.score(X, y) == search.best_estimator_.score(X, y)


@parametrize_with_checks(
    [TopModelSearchCV({"ridge": {"alpha": [1.0]}}, task="regression", normalize="none", cv=2, n_jobs=1)]
)
def test_the_regression_search_follows_scikit_learns_rules(estimator, check):
    check(estimator)


def test_your_own_estimator_is_searched_like_the_others(data):
    X, y, _, _ = data
    trees = ExtraTreesClassifier(n_estimators=10)
    search = TopModelSearchCV({"trees": (trees, {"max_depth": [2, 4]}), "svm": {"C": [1.0]}}, cv=3).fit(X, y)
    assert [candidate.model for candidate in search.candidates_] == ["trees", "trees", "svm"]
    pipeline = make_pipeline(StandardScaler(), ExtraTreesClassifier(10, max_depth=2, random_state=0))
    assert search.candidates_[0].fold_scores == reference(pipeline, X, y, search.folds_).tolist()


def test_class_weights_reach_every_model_that_takes_them(data):
    X, y, _, _ = data
    y = np.where(np.arange(120) % 4 == 0, y, "bee")
    models = {"ridge": None, "logreg": {"C": [0.01, 1.0]}, "linear-svm": None, "svm": None}
    search = TopModelSearchCV(models, cv=3, class_weight="balanced", refine=0).fit(X, y)
    for candidate in search.candidates_:
        pipeline = CLASSIFIERS[candidate.model].pipeline(
            candidate.params, 0, normalization("standardize"), class_weight="balanced"
        )
        assert np.abs(candidate.fold_scores - reference(pipeline, X, y, search.folds_)).max() <= 1 / 40 + 1e-12
    with pytest.raises(TopModelError, match="knn takes no class weights"):
        TopModelSearchCV("knn", class_weight="balanced").fit(X, y)
    with pytest.raises(TopModelError, match="lda takes no sample weights"):
        TopModelSearchCV("lda").fit(X, y, sample_weight=np.ones(120))


# --- several labels ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labels(data):
    """The classes of `data` as columns of 0 and 1, and one more label."""
    return np.column_stack([data[1] == "ant", data[1] == "bee", data[0][:, 0] > 0]).astype(int)


@pytest.mark.parametrize("name", ["svm", "logreg", "knn", "ridge", "mlp"])
def test_several_labels_score_as_one_model_a_label(data, labels, name):
    X = data[0]
    model = CLASSIFIERS[name]
    search = TopModelSearchCV([name], task="multilabel", cv=3, refine=0).fit(X, labels)
    for candidate in search.candidates_:
        pipeline = make_pipeline(StandardScaler(), OneVsRestClassifier(model.pipeline(candidate.params, 0)[-1]))
        expected = reference(pipeline, X, labels, search.folds_)
        assert np.abs(candidate.fold_scores - expected).max() <= 1 / 40 + 1e-12
    assert search.predict(X).shape == labels.shape
    assert isinstance(search.best_estimator_[-1], OneVsRestClassifier)
    assert search.oof_.true.shape == (120, 3)


def test_a_default_grid_asks_for_no_more_neighbours_than_there_are(data):
    X, y, _, _ = data
    search = TopModelSearchCV("knn", cv=2).fit(X[:30], y[:30])
    assert [candidate.params["n_neighbors"] for candidate in search.candidates_] == [1, 3, 5, 9, 15]
    with pytest.raises(TopModelError, match="knn cannot be fitted: Expected n_neighbors <= n_samples_fit"):
        TopModelSearchCV({"knn": {"n_neighbors": [25]}}, cv=2).fit(X[:30], y[:30])


def test_several_labels_take_class_weights_where_the_estimator_does_and_no_sample_weights(data, labels):
    X = data[0]
    search = TopModelSearchCV("logreg", task="multilabel", class_weight="balanced", cv=3, refine=0).fit(X, labels)
    assert search.best_estimator_[-1].estimator.class_weight == "balanced"
    with pytest.raises(TopModelError, match="mlp takes no class weights"):
        TopModelSearchCV("mlp", task="multilabel", class_weight="balanced").fit(X, labels)
    with pytest.raises(TopModelError, match="several labels take no sample weights"):
        TopModelSearchCV(task="multilabel").fit(X, labels, sample_weight=np.ones(120))


def test_labels_that_are_not_0_and_1_are_an_error(data):
    with pytest.raises(TopModelError, match="expected columns of 0 and 1"):
        TopModelSearchCV(task="multilabel").fit(data[0], np.arange(240).reshape(120, 2))


# --- selection of features ---------------------------------------------------------------------------------


def test_all_features_are_each_block_and_the_best_together(data, wide):
    search = TopModelSearchCV("ridge", cv=3, blocks=BLOCKS, features="all").fit(wide, data[1])
    tried = list(dict.fromkeys(candidate.features for candidate in search.candidates_))
    assert tried[:3] == [("noise",), ("signal",), ("more",)]
    assert len(tried) == 5
    assert "signal" in tried[3]
    assert tried[4] == ("noise", "signal", "more")


def test_dimensions_are_selected_inside_the_fold():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(100, 2000)), np.arange(100) % 2
    leaky = X[:, SelectRelevant(0.01).fit(X, y).dimensions_]
    assert TopModelSearchCV("ridge").fit(leaky, y).best_score_ > 0.8
    best = TopModelSearchCV({"ridge": {"alpha": [1.0]}}, select=0.01).fit(X, y).best_candidate_
    assert best.select == 0.01
    assert best.ci95[0] < 0.5 < best.ci95[1]


def test_selected_dimensions_score_as_their_plain_pipeline(data, wide):
    y = data[1]
    search = TopModelSearchCV({"svm": {"C": [1.0]}}, cv=3, select=[None, 0.2]).fit(wide, y)
    assert [candidate.select for candidate in search.candidates_] == [None, 0.2]
    pipeline = Pipeline([*normalization("standardize", 0.2), ("model", SVC())])
    assert search.candidates_[1].fold_scores == reference(pipeline, wide, y, search.folds_).tolist()


# --- which wins --------------------------------------------------------------------------------------------


def test_the_grid_is_refined_around_the_best_cell(data):
    X, y, _, _ = data
    coarse = TopModelSearchCV("svm", cv=3, refine=0).fit(X, y)
    fine = TopModelSearchCV("svm", cv=3, refine=1).fit(X, y)
    assert len(coarse.candidates_) == 4
    assert [c.fold_scores for c in fine.candidates_[:4]] == [c.fold_scores for c in coarse.candidates_]
    assert len(fine.candidates_) == 12
    assert fine.best_score_ >= coarse.best_score_
    assert {type(c.params["gamma"]) for c in fine.candidates_[4:] if "gamma" in c.params} == {float}
    given = TopModelSearchCV({"svm": {"C": [1.0, 10.0]}}, cv=3).fit(X, y)
    assert len(given.candidates_) == 2  # a grid of the caller's own is the grid


def test_the_one_standard_error_rule_takes_the_simplest_within_reach(data):
    X, y, _, _ = data
    options = {"models": ["ridge", "svm", "knn", "sgd-svm"], "cv": 5, "refine": 0}
    best, simple = (TopModelSearchCV(**options, rule=rule).fit(X, y) for rule in ("best", "one-se"))
    top = best.best_candidate_
    error = np.std(top.fold_scores, ddof=1) / np.sqrt(5)
    within = [c for c in simple.candidates_ if c.mean >= top.mean - error]
    assert simple.best_candidate_.model == min(within, key=lambda c: KNOWN["classification"][c.model].simplicity).model
    assert simple.best_candidate_.mean >= top.mean - error


def test_the_leaders_are_compared_on_the_shared_folds(data):
    X, y, _, _ = data
    search = TopModelSearchCV({"svm": {"C": [1.0]}, "logreg": {"C": [0.1]}}, cv=4).fit(X, y)
    ranked = sorted(search.candidates_, key=lambda c: -c.mean)
    difference = np.subtract(ranked[0].fold_scores, ranked[1].fold_scores)
    found = search.comparison_
    assert found["difference"] == pytest.approx(difference.mean())
    error = np.sqrt(difference.var(ddof=1) * (1 / 4 + 30 / 90))
    assert found["ci95"][1] - found["difference"] == pytest.approx(stats.t.ppf(0.975, 3) * error)
    assert "cannot be told apart: +" in found["sentence"]
    assert TopModelSearchCV({"svm": {"C": [1.0]}}, cv=4).fit(X, y).comparison_ is None


# --- intervals ---------------------------------------------------------------------------------------------


def test_one_held_out_part_has_wilsons_interval(data):
    X, y, _, _ = data
    search = TopModelSearchCV(SVM, cv=[(np.arange(80), np.arange(80, 120))]).fit(X, y)
    best = search.best_candidate_
    assert best.interval == "wilson"
    assert best.ci95 == wilson_interval(best.mean * 40, 40)


def test_groups_widen_the_interval():
    random = np.random.default_rng(0)
    y = np.arange(40) % 2
    centres = random.normal(size=(40, 10)) + 0.6 * y[:, None]
    X, groups = np.repeat(centres, 10, axis=0) + random.normal(0, 0.05, (400, 10)), np.repeat(np.arange(40), 10)
    grouped = TopModelSearchCV(SVM).fit(X, np.repeat(y, 10), groups=groups).best_candidate_
    single = TopModelSearchCV(SVM, cv=list(StratifiedGroupKFold(5).split(X, np.repeat(y, 10), groups))).fit(
        X, np.repeat(y, 10)
    )
    naive = wilson_interval(grouped.mean * 400, 400)
    widths = [each.ci95[1] - each.ci95[0] for each in (grouped, single.best_candidate_)]
    assert grouped.interval == single.best_candidate_.interval == "korn-graubard"
    assert widths[0] > 1.5 * (naive[1] - naive[0])
    assert widths[0] > 1.4 * widths[1]


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "balanced_accuracy", "roc_auc"])
def test_a_perfect_score_of_few_rows_has_a_wide_interval(scoring):
    y = np.arange(20) % 2
    X = np.random.default_rng(0).normal(size=(20, 8))
    X[:, 0] += 12 * y
    best = TopModelSearchCV({"ridge": {"alpha": [1.0]}}, scoring=scoring).fit(X, y).best_candidate_
    assert best.mean == 1
    assert best.ci95 == pytest.approx((0.8316, 1.0), abs=1e-4)  # Clopper and Pearson, 20 of 20


def test_as_many_folds_as_groups_have_an_interval():
    random = np.random.default_rng(0)
    y, groups = np.arange(60) % 2, np.arange(60) % 5
    X = random.normal(size=(60, 8)) + 0.6 * y[:, None] + 0.7 * random.normal(size=(5, 8))[groups]
    low, high = TopModelSearchCV({"ridge": {"alpha": [1.0]}}).fit(X, y, groups=groups).best_candidate_.ci95
    assert high - low > 0.2


def test_a_held_out_part_of_groups_counts_groups():
    random = np.random.default_rng(0)
    y, groups = np.arange(120) % 2, np.repeat(np.arange(12), 10)
    X = random.normal(size=(120, 8)) + 0.5 * y[:, None] + random.normal(size=(12, 8))[groups]
    part = [(np.arange(60), np.arange(60, 120))]
    one, whole = (TopModelSearchCV(SVM, cv=part).fit(X, y, **each).best_candidate_ for each in ({"groups": groups}, {}))
    assert (one.interval, whole.interval) == ("korn-graubard", "wilson")
    assert np.ptp(one.ci95) > 1.2 * np.ptp(whole.ci95)


# --- budgets and interruptions -----------------------------------------------------------------------------


def test_a_time_limit_always_gives_a_result(data):
    X, y, _, _ = data
    search = TopModelSearchCV(cv=3, time_limit=1e-3).fit(X, y)
    assert search.timed_out_
    assert search.best_model_ == "centroid"
    assert "the time limit ended the search early; what was finished is shown" in search.warnings_


def test_enough_time_goes_from_the_cheap_to_the_promising(data):
    X, y, _, _ = data
    search = TopModelSearchCV(cv=3, time_limit=600, refine=0).fit(X, y)
    models = list(dict.fromkeys(candidate.model for candidate in search.candidates_))
    assert models[:3] == ["centroid", "ridge", "lda"]
    assert not search.timed_out_
    assert set(models) == set(CLASSIFIERS)  # those that halving dropped at last
    assert not [note for note in search.warnings_ if "time limit" in note]
    for candidate in search.candidates_:
        assert len(candidate.fold_scores) == 3


def test_control_c_returns_what_is_finished(data):
    X, y, _, _ = data
    seen = []

    def progress(done, total):
        seen.append(done)
        if done == 7:
            raise KeyboardInterrupt

    search = TopModelSearchCV({"logreg": {"C": [0.1, 1.0]}, "svm": {"C": [1.0]}}, cv=3, progress=progress).fit(X, y)
    assert search.interrupted_
    assert [candidate.model for candidate in search.candidates_] == ["logreg", "logreg"]
    assert seen == list(range(1, 8))


def test_control_c_before_anything_is_finished_goes_through(data):
    def progress(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TopModelSearchCV(SVM, cv=3, progress=progress).fit(*data[:2])


def test_a_gram_matrix_that_does_not_fit_is_solved_plainly_and_said(data):
    X, y, _, _ = data
    small = TopModelSearchCV(SVM, cv=3, memory=1000).fit(X, y)
    assert "svm on X: plain SVC for 1 cell: kernels need" in small.warnings_[0]
    assert small.best_candidate_.fold_scores == TopModelSearchCV(SVM, cv=3).fit(X, y).best_candidate_.fold_scores


# --- out of fold -------------------------------------------------------------------------------------------


def test_out_of_fold_predictions_are_those_of_scikit_learn(data):
    X, y, _, _ = data
    search = TopModelSearchCV({"svm": {"C": [1.0]}}, cv=4).fit(X, y)
    found = search.oof_
    order = np.argsort(found.row)
    pipeline = make_pipeline(StandardScaler(), SVC())
    np.testing.assert_array_equal(found.predicted[order], cross_val_predict(pipeline, X, y, cv=search.folds_))
    expected = cross_val_predict(pipeline, X, y, cv=search.folds_, method="decision_function")
    np.testing.assert_allclose(found.scores[order], expected, atol=1e-6)
    assert (found.true[order] == y).all()


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_the_balanced_accuracy_is_that_of_all_folds_together(data, weighted):
    X, y, _, weight = data
    uneven = np.flatnonzero((y != "cat") | (np.arange(len(y)) % 4 == 0))
    folds = [np.flatnonzero(y[uneven] != "cat")[:20], np.arange(40, 70)]  # the first tests no cat
    folds = [(np.setdiff1d(np.arange(len(uneven)), test), test) for test in folds]
    search = TopModelSearchCV({"svm": {"C": [1.0]}}, cv=folds, refine=0)
    found = search.fit(X[uneven], y[uneven], sample_weight=weight[uneven] if weighted else None).oof_
    expected = balanced_accuracy_score(found.true, found.predicted, sample_weight=found.weight)
    assert search.best_candidate_.extra["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)


def test_results_make_a_frame_best_first(search):
    frame = search.to_frame()
    assert frame["mean"].is_monotonic_decreasing
    assert frame.loc[0, "params"] == search.best_params_
    assert {"features", "normalize", "select", "model", "ci95", "balanced_accuracy", "seconds"} <= set(frame)


# --- scorers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["f1", "precision", "recall", "jaccard", "average_precision", "neg_brier_score"])
def test_scorers_of_one_class_take_classes_of_any_name(scoring):
    random = np.random.default_rng(0)
    y = np.where(random.random(90) < 0.3, "defect", "fine")
    X = random.normal(size=(90, 6)) + (y == "defect")[:, None]
    model = {"logreg": {"C": [1.0]}}
    named, numbers, other = (
        TopModelSearchCV(model, scoring=scoring, refine=0, cv=StratifiedKFold(3), **options).fit(X, target)
        for target, options in ((y, {}), ((y == "defect").astype(int), {}), (y, {"positive": "fine"}))
    )
    assert named.best_candidate_.fold_scores == pytest.approx(numbers.best_candidate_.fold_scores)
    assert f"{scoring} is of the class 'defect', the rarer one; --positive names another" in named.warnings_
    assert not any("rarer" in warning for warning in numbers.warnings_ + other.warnings_)
    is_brier = scoring == "neg_brier_score"  # which is the same for both classes
    assert (other.best_score_ == pytest.approx(named.best_score_)) == is_brier


def test_a_model_that_the_scorer_does_not_fit_is_left_out():
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = random.normal(size=(60, 6)) + np.eye(6)[y]
    both = TopModelSearchCV({"svm": {"C": [1.0]}, "logreg": {"C": [1.0]}}, scoring="neg_log_loss", refine=0).fit(X, y)
    assert [each.model for each in both.candidates_] == ["logreg"]
    assert any(note.startswith("left out, on X: scoring 'neg_log_loss' does not fit SVC") for note in both.warnings_)
    with pytest.raises(TopModelError, match="does not fit SVC"):
        TopModelSearchCV(SVM, scoring="neg_log_loss").fit(X, y)


def test_roc_auc_of_three_classes_names_the_scorers_that_do():
    with pytest.raises(TopModelError, match="roc_auc of 3 classes; expected two: take roc_auc_ovr or roc_auc_ovo"):
        TopModelSearchCV(SVM, scoring="roc_auc").fit(np.eye(30), np.arange(30) % 3)


def test_an_unknown_positive_class_is_said():
    with pytest.raises(TopModelError, match="no class 'cat' to be positive; expected 'a' or 'b'"):
        TopModelSearchCV(SVM, scoring="f1", positive="cat").fit(np.eye(20), np.array(["a", "b"] * 10))


def test_a_likelihood_ratio_is_of_the_positive_class():
    y = np.array(["bad"] * 8 + ["ok"] * 16)
    X = np.where(y == "bad", 1.0, -1.0)[:, None] * np.tile([1, 1, 1, -0.5], 6)[:, None]
    search = TopModelSearchCV({"lda": {}}, scoring="positive_likelihood_ratio", cv=2, refine=0).fit(X, y)
    found, ratios = search.oof_, []
    for fold in range(2):
        said, is_bad = (found.predicted == "bad")[found.fold == fold], (found.true == "bad")[found.fold == fold]
        ratios.append(said[is_bad].mean() / said[~is_bad].mean())
    assert search.best_candidate_.fold_scores == pytest.approx(ratios)
    assert ratios[0] > 1


@pytest.mark.parametrize(
    ("task", "scoring", "message"),
    [
        (
            "regression",
            "rand_score",
            "'rand_score' is of clusters, and the target has numbers; expected one of numbers",
        ),
        ("classification", "f1", "'f1' of 3 classes; expected two classes: take f1_macro"),
        ("classification", "r2", "'r2' does not fit SVC here: it is of numbers, and the target has classes"),
        ("classification", "f1_samples", "'f1_samples' of one label a row; expected several labels: take f1_macro"),
    ],
)
def test_a_scorer_of_another_kind_says_what_it_is_of(task, scoring, message):
    y = np.arange(30.0) if task == "regression" else np.array(["a", "b", "c"] * 10)
    with pytest.raises(TopModelError, match=message):
        TopModelSearchCV("ridge" if task == "regression" else SVM, task=task, scoring=scoring).fit(np.eye(30), y)


def test_a_model_that_breaks_down_is_left_out_whatever_it_raises():
    class Broken(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            raise IndexError("index 1 is out of bounds")

    search = TopModelSearchCV([Broken(), "ridge"], refine=0).fit(np.eye(20), np.arange(20) % 2)
    assert {each.model for each in search.candidates_} == {"ridge"}
    assert any("cannot be fitted: index 1 is out of bounds" in note for note in search.warnings_)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.arange(20) % 2, "every row of the class 0 has the sample weight 0; expected some above 0"),
        (np.full(20, 1e-35), "sample weights from 1e-35 to 1e-35; expected numbers from about 1e-30"),
        (np.where(np.arange(20) == 3, -1.0, 1.0), "a sample weight of -1; expected numbers from 0 up"),
        (np.arange(20) > 15, "a fold tests rows of the sample weight 0 only"),
    ],
)
def test_weights_that_nothing_can_be_learned_or_scored_with_are_refused(weight, message):
    with pytest.raises(TopModelError, match=message):
        TopModelSearchCV(SVM, cv=Folds("plain")).fit(np.eye(20), np.arange(20) % 2, sample_weight=weight.astype(float))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", None, "b", "b"] * 5, "5 of 20 rows have no group"),
        (np.array(["a", 1, "b", "b"] * 5, object), "groups of several types"),
        (["a", "b"], r"groups of shape \(2,\) for 20 rows"),
    ],
)
def test_groups_that_are_missing_or_mixed_are_refused(groups, message):
    with pytest.raises(TopModelError, match=message):
        TopModelSearchCV(SVM).fit(np.eye(20), np.arange(20) % 2, groups=groups)
