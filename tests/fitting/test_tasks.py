import json

import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank, make_views_bank
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from featurebank import Bank, Predictor, fit
from featurebank.errors import ColumnError, TopModelError
from featurebank.fitting.result import FitResult
from featurebank.fitting.shared_network import NetworkClassifier, NetworkRegressor, train
from featurebank.fitting.sharing import SHARED
from featurebank.fitting.targets import Target
from featurebank.fitting.task_data import Labels, folds_of, is_multitask
from featurebank.fitting.tasks import models_of
from featurebank.topmodels.models import CLASSIFIERS
from featurebank.topmodels.search import TopModelSearchCV

PLAIN = {"logreg": {"C": [0.1]}, "ridge": {"alpha": [10.0]}}
MLP = {"mlp": {"alpha": [3.0]}}


def make_tasks(random, n=90):
    """Rows of 8 columns; a class known of all, a class known of two thirds, and a number known of half."""
    X = random.normal(size=(n, 8))
    kind = np.where(X[:, 0] > 0, "mono", "poly").astype(object)
    grade = np.array(["low", "mid", "high"], object)[np.digitize(X[:, 1], [-0.5, 0.5])]
    age = X[:, 2] + 0.1 * random.normal(size=n)
    grade[::3], age[::2] = None, np.nan
    return X, {"kind": kind, "grade": grade, "age": age}


def tasks_bank(path, random, **options):
    X, columns = make_tasks(random, **options)
    return make_bank(path, X, np.arange(len(X)), **columns), X, columns


def labelled(column):
    return np.flatnonzero(pd.notna(column))


# --- folds, rows, labels -----------------------------------------------------------------------------------


def test_classes_and_numbers_with_missing_labels_are_fitted_together(tmp_path, random):
    bank, _, columns = tasks_bank(tmp_path / "a.bank", random)
    result = fit(bank, target=["kind", "grade", "age"], models=PLAIN)
    report = result.report
    assert isinstance(result, FitResult)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["target"], report["task"], report["n_samples"], report["folds"]) == (
        "kind+grade+age",
        "multitask",
        90,
        5,
    )
    found = report["tasks"]
    assert {name: each["task"] for name, each in found.items()} == {
        "kind": "classification",
        "grade": "classification",
        "age": "regression",
    }
    assert [each["n_samples"] for each in found.values()] == [len(labelled(each)) for each in columns.values()]
    assert {each["model"] for each in found["age"]["candidates"]} == {"ridge"}
    assert {each["model"] for each in found["kind"]["candidates"]} == {"ridge", "logreg"}
    assert found["age"]["best"]["mean"] > 0.8
    assert report["sharing"] == {}
    assert "grade: 30 samples have no grade and serve the other tasks alone" in report["warnings"]


def test_all_tasks_share_their_folds_and_images_of_one_content_stay_together(tmp_path, random):
    X, columns = make_tasks(random)
    contents = np.arange(90) // 2
    bank = make_bank(tmp_path / "a.bank", X[contents], contents, **columns)
    result = fit(bank, target=list(columns), models=PLAIN)
    folds = {}
    for each in result.tasks.values():
        for source, path, fold in each.predictor.report["samples"]:
            assert folds.setdefault((source, path), fold) == fold
    by_content = {}
    for (_, path), fold in folds.items():
        by_content.setdefault(contents[int(path[:3])], set()).add(fold)
    assert all(len(each) == 1 for each in by_content.values())
    assert result.report["grouped"]


def test_a_separate_model_is_that_of_the_labelled_rows_alone(tmp_path, random):
    bank, X, columns = tasks_bank(tmp_path / "a.bank", random)
    models = {"logreg": {"C": [0.1]}, "mlp": {"alpha": [3.0]}, "svr": {"C": [1.0]}}
    result = fit(bank, target=list(columns), models=models, folds=3)
    networks = {"classification": NetworkClassifier(), "regression": NetworkRegressor()}
    for name, each in result.tasks.items():
        rows, task = labelled(columns[name]), each.report["task"]
        own = {key: grid for key, grid in models.items() if key != ("logreg" if task == "regression" else "svr")}
        given = {**own, "mlp": (networks[task], models["mlp"])}
        y = columns[name][rows]
        y = y.astype(float) if task == "regression" else y.astype(str)
        alone = TopModelSearchCV(given, task=task, cv=each.search.folds_).fit(X[rows].astype(np.float32), y)
        tried = [one for one in each.search.candidates_ if one.model != SHARED]
        assert [one.model for one in tried] == [one.model for one in alone.candidates_]
        for one, two in zip(tried, alone.candidates_, strict=True):
            assert one.fold_scores == pytest.approx(two.fold_scores, abs=1e-9)


def test_rows_without_a_label_change_nothing_of_a_separate_model(tmp_path, random):
    X, columns = make_tasks(random)
    changed = X.copy()
    changed[pd.isna(columns["grade"])] *= 1000
    models = {"logreg": {"C": [0.1]}, "mlp": {"alpha": [3.0]}}
    columns = {name: columns[name] for name in ("kind", "grade")}
    for name, rows in (("a", X), ("b", changed)):
        make_bank(tmp_path / f"{name}.bank", rows, np.arange(90), **columns)
    one, two = (fit(tmp_path / f"{name}.bank", target=["kind", "grade"], models=models) for name in ("a", "b"))
    for first, second in zip(one.tasks["grade"].search.candidates_, two.tasks["grade"].search.candidates_, strict=True):
        if first.model != SHARED:
            assert first.fold_scores == second.fold_scores


def test_columns_of_0_and_1_stay_one_task_of_several_labels_until_one_is_missing(tmp_path, random):
    X = random.normal(size=(60, 6))
    first, second = (X[:, 0] > 0).astype(int), (X[:, 1] > 0).astype(int)
    bank = make_bank(tmp_path / "a.bank", X, np.arange(60), a=first, b=second)
    assert fit(bank, target=["a", "b"], models="ridge").report["task"] == "multilabel"
    bank = make_bank(tmp_path / "c.bank", X, np.arange(60), a=first > 0, b=second.astype(float))
    assert fit(bank, target=["a", "b"], models="ridge").report["task"] == "multilabel"
    missing = second.astype(object)
    missing[5] = None
    bank = make_bank(tmp_path / "b.bank", X, np.arange(60), a=first, b=missing)
    report = fit(bank, target=["a", "b"], models={"logreg": {"C": [0.1]}}).report
    assert report["task"] == "multitask"
    assert [each["n_samples"] for each in report["tasks"].values()] == [60, 59]


def test_rows_that_a_column_holds_out_are_held_out_of_every_task(tmp_path, random):
    X, columns = make_tasks(random)
    part = np.array(["train", "train", "val", "train", "test"])[np.arange(90) % 5]
    bank = make_bank(tmp_path / "a.bank", X, np.arange(90), part=part, **columns)
    result = fit(bank, target=list(columns), models={**PLAIN, **MLP}, cv="predefined:part")
    for name, each in result.tasks.items():
        rows = labelled(columns[name])
        assert each.report["n_samples"] == (part[rows] != "test").sum()
        assert each.report["held_out"]["n_samples"] == (part[rows] == "test").sum()
        assert each.report["folds"] == 1


# --- the shared network ------------------------------------------------------------------------------------


def test_the_shared_networks_scores_are_those_of_a_plain_loop(tmp_path, random):
    bank, X, columns = tasks_bank(tmp_path / "a.bank", random)
    result = fit(bank, target=list(columns), models=MLP, folds=3)
    fold_of = {path: fold for each in result.tasks.values() for _, path, fold in each.predictor.report["samples"]}
    fold = np.array([fold_of[f"{row:03}.png"] for row in range(90)])
    for number in range(3):
        learned, held = fold != number, fold == number
        scaler = StandardScaler().fit(X[learned].astype(np.float32))
        Z = scaler.transform(X[learned].astype(np.float32))
        heads, goals = [], []
        for name, column in columns.items():
            known = pd.notna(column)
            head = NetworkRegressor(3.0) if name == "age" else NetworkClassifier(3.0)
            y = column[learned & known]
            y = y.astype(float) if name == "age" else y.astype(str)
            goals.append(head.goal(np.flatnonzero(known[learned]), y, np.ones(len(y))))
            heads.append(head)
        first, outputs = train(Z, goals, **heads[0].options())
        for (name, column), head, output in zip(columns.items(), heads, outputs, strict=True):
            test = held & pd.notna(column)
            y = column[test].astype(float) if name == "age" else column[test].astype(str)
            score = head.take(first, output, 8).score(scaler.transform(X[test].astype(np.float32)), y)
            shared = [each for each in result.tasks[name].search.candidates_ if each.model == SHARED]
            assert shared[0].fold_scores[number] == pytest.approx(score, abs=1e-5)


def test_sharing_pays_where_tasks_share_their_structure_and_labels_are_few(tmp_path, random):
    """Eight classes of the same two hidden directions of thirty, each known of 90 rows of 600."""
    X = random.normal(size=(600, 30))
    hidden = np.abs(X @ np.linalg.qr(random.normal(size=(30, 2)))[0])
    columns = {}
    for number in range(8):
        weights = random.normal(size=2)
        score = hidden @ (weights / np.linalg.norm(weights))
        y = np.where(score > np.median(score), "high", "low").astype(object)
        y[random.permutation(600)[90:]] = None
        columns[f"task {number}"] = y
    bank = make_bank(tmp_path / "a.bank", X, np.arange(600), **columns)
    sharing = fit(bank, target=list(columns), models=MLP).report["sharing"]
    assert np.mean([each["difference"] for each in sharing.values()]) > 0.08
    assert any(each["sentence"].endswith("sharing paid.") for each in sharing.values())


def test_no_gain_is_claimed_for_tasks_that_share_nothing(tmp_path, random):
    X = random.normal(size=(300, 20))
    columns = {}
    for number in range(3):
        score = np.abs(X[:, 3 * number]) + X[:, 3 * number + 1] * X[:, 3 * number + 2]
        columns[f"t{number}"] = np.where(score > np.median(score), "high", "low")
    bank = make_bank(tmp_path / "a.bank", X, np.arange(300), **columns)
    report = fit(bank, target=list(columns), models=MLP).report
    for name, each in report["sharing"].items():
        assert not each["told_apart"] or each["difference"] < 0
        assert "pay" in each["sentence"]
        assert not each["sentence"].endswith("sharing paid.")
        assert {each["shared"]["model"], each["alone"]["model"]} == {"mlp", "shared-mlp"}
        assert report["tasks"][name]["best"]["mean"] == max(each["shared"]["mean"], each["alone"]["mean"])


def test_random_labels_score_chance_in_a_shared_network_too(tmp_path, random):
    X = random.normal(size=(300, 10))
    columns = {name: np.where(random.random(300) > 0.5, "x", "y") for name in ("a", "b")}
    bank = make_bank(tmp_path / "a.bank", X, np.arange(300), **columns)
    for each in fit(bank, target=["a", "b"], models=MLP).report["sharing"].values():
        low, high = each["shared"]["ci95"]
        assert low < 0.5 < high < 0.7


def test_a_shared_network_that_is_best_is_shipped_whole(tmp_path, random):
    bank, _, columns = tasks_bank(tmp_path / "a.bank", random)
    result = fit(bank, target=list(columns), models=MLP)
    shipped = {name: each.predictor.model[-1] for name, each in result.tasks.items()}
    shared = [name for name, each in result.tasks.items() if each.search.best_model_ == SHARED]
    assert shared  # the rows are such that it is for one task at least
    for name in shared:
        np.testing.assert_array_equal(shipped[name].coefs_[0], shipped[shared[0]].coefs_[0])
    said = result.predictor.predict_bank(bank)
    rows = labelled(columns["kind"])
    assert (said["label_kind"].to_numpy()[rows] == columns["kind"][rows]).mean() > 0.9


def test_weights_and_classes_reach_the_shared_network(tmp_path, random):
    X, columns = make_tasks(random)
    weight = random.uniform(0.1, 3, 90)
    bank = make_bank(tmp_path / "a.bank", X, np.arange(90), w=weight, **columns)
    options = {"target": ["kind", "age"], "models": MLP, "folds": 3}
    plain, weighted, balanced = (
        fit(bank, **options, **more).report["sharing"]["kind"]["shared"]["fold_scores"]
        for more in ({}, {"sample_weight": "w"}, {"class_weight": {"mono": 9, "poly": 1}})
    )
    assert plain != weighted
    assert plain != balanced


def test_what_fits_one_task_again_goes_without_sharing(tmp_path, random):
    bank, _, _ = tasks_bank(tmp_path / "a.bank", random)
    for more in ({"nested": True}, {"learning_curve": True}):
        report = fit(bank, target=["kind", "age"], models=MLP, folds=2, **more).report
        assert report["sharing"] == {}
        assert any("no network is shared" in each for each in report["warnings"])
        assert next(iter(more)) in report["tasks"]["age"]


def test_the_shared_network_takes_the_mean_of_views_and_no_selection(tmp_path, random):
    bank, name, _, _ = make_views_bank(tmp_path / "a.bank", random)
    frame = bank.samples.assign(size_=np.arange(60.0) % 7 / 2)[["path", "size_"]]
    bank.label(frame)
    options = {"target": ["label", "size_"], "models": MLP, "features": name, "folds": 2}
    report = fit(bank, **options, views=["mean", "all"]).report
    views = {(each["model"], each["views"]) for each in report["tasks"]["label"]["candidates"]}
    assert views == {("mlp", "mean"), ("mlp", "all"), ("shared-mlp", "mean")}
    assert any("neither selected dimensions nor all views" in each for each in report["warnings"])
    result = fit(bank, **options, select=0.5)
    assert {each.model for each in result.tasks["label"].search.candidates_} == {"mlp"}


def test_an_interruption_ends_one_task_and_keeps_what_is_finished(tmp_path, random):
    bank, _, _ = tasks_bank(tmp_path / "a.bank", random)
    seen = []

    def interrupt_once(done, total):
        seen.append((done, total))
        if len(seen) == 4:
            raise KeyboardInterrupt

    models = {"ridge": {"alpha": [10.0]}, "knn": {"n_neighbors": [1, 3, 5]}}
    result = fit(bank, target=["kind", "age"], models=models, folds=3, progress=interrupt_once)
    assert result.report["interrupted"]
    assert [each.report["interrupted"] for each in result.tasks.values()] == [True, False]
    assert len(result.tasks["age"].search.candidates_) == 4
    assert seen == sorted(seen)
    assert seen[-1] == (24, 24)


def test_every_run_is_the_same(tmp_path, random):
    bank, _, columns = tasks_bank(tmp_path / "a.bank", random)
    one, two = (fit(bank, target=list(columns), models={**PLAIN, **MLP}, folds=3, random_state=4) for _ in range(2))
    pd.testing.assert_frame_equal(one.oof, two.oof, check_exact=True)
    pd.testing.assert_frame_equal(one.predictor.predict_bank(bank), two.predictor.predict_bank(bank), check_exact=True)


# --- what is said of it ------------------------------------------------------------------------------------


def test_out_of_fold_predictions_of_all_tasks_lie_side_by_side(tmp_path, random):
    bank, _, columns = tasks_bank(tmp_path / "a.bank", random)
    oof = fit(bank, target=list(columns), models=PLAIN).oof.sort_values("path")
    assert list(oof)[:3] == ["source", "path", "fold"]
    assert {"true_kind", "predicted_grade", "proba_grade_mid", "true_age", "predicted_age"} <= set(oof)
    assert len(oof) == 90
    for name, column in columns.items():
        assert oof[f"true_{name}"].notna().tolist() == pd.notna(column).tolist()


HOSTILE = ["a,b", 'say "x"', "=cmd()", "two\nlines", "ünï", "a"]


def test_names_of_tasks_that_are_hostile_to_csv_survive_it(tmp_path, random, run_cli):
    X = random.normal(size=(40, 5))
    columns = {name: np.where(X[:, i % 5] > 0, "=x", "y,z") for i, name in enumerate(HOSTILE)}
    bank = make_bank(tmp_path / "a.bank", X, np.arange(40), **columns)
    targets = [word for name in HOSTILE for word in ("--target", name)]
    done = run_cli("fit", bank.path, *targets, "--model", "ridge", "--folds", 2)
    assert done.exit_code == 0, done.stderr
    done = run_cli("predict", tmp_path / "a.featurebank", "--bank", bank.path, "-o", tmp_path / "a.csv", "--proba")
    assert done.exit_code == 0, done.stderr
    table = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert len(table) == 40
    assert [f"label_{name}" for name in HOSTILE] == [name for name in table if name.startswith("label_")]
    assert set(table["label_a,b"]) == {"'=x", "y,z"}


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (["kind", "one"], {}, "column 'one' has one value, 'same'; expected at least two to learn"),
        (["kind", "none"], {}, "column 'none' has no value; label some rows"),
        (["kind", "kind"], {}, "column 'kind' is named twice"),
        (["kind", "nothing"], {}, "the bank has no column 'nothing'"),
        (["kind", "age"], {"scoring": "r2"}, "scoring 'r2' for tasks of classes and of numbers"),
        (["kind", "age"], {"task": "classification"}, "column 'age' holds fractions; expected classes"),
        (["kind", "age"], {"task": "regression"}, "column 'kind' holds text; regression needs numbers"),
        (["kind", "age"], {"models": "svm"}, r"no top model asked for is one for 'age' \(regression\)"),
        (["kind", "age"], {"models": ["forest"]}, "no top model 'forest'"),
        (["kind", "rare"], {"models": "ridge"}, "fold [0-4] trains 'rare' on one class; expected two"),
        (["kind", "few"], {"models": "ridge"}, "fold [0-4] has 2 rows to train 'few' on and 0 to test it"),
        (["kind", "grade"], {"class_weight": {"mono": 2}}, "a weight for the class 'mono'"),
        (["kind", "kind_a"], {"models": "ridge"}, "two columns of predictions would be called 'proba_kind_a_x'"),
    ],
)
def test_what_cannot_be_learned_is_an_error_that_names_the_task(tmp_path, random, target, options, message):
    X, columns = make_tasks(random)
    rare, few, kind = np.full(90, "often", object), np.full(90, None, object), columns["kind"].copy()
    rare[3], few[3], few[4] = "once", "a", "b"
    kind[:45] = "a_x"
    columns |= {"one": np.full(90, "same"), "none": np.full(90, None, object), "rare": rare, "few": few}
    columns |= {"kind": kind, "kind_a": np.where(np.arange(90) % 2, "x", "y")} if "kind_a" in target else {}
    bank = make_bank(tmp_path / "a.bank", X, np.arange(90), **columns)
    with pytest.raises((ColumnError, TopModelError), match=message):
        fit(bank, target=target, **options)


def test_the_default_models_are_those_of_each_kind_with_a_network_shared():
    tasks = [Labels("a", np.arange(4), np.arange(4) % 2, kind) for kind in ("classification", "regression")]
    first, second = models_of(None, tasks, False, False)
    assert [each.name for each in first] == ["logreg", "svm", "mlp"]
    assert [each.name for each in second] == ["ridge", "svr", "mlp"]
    assert "knn" not in [each.name for each in models_of(None, tasks, True, True)[0]]
    assert len(models_of("all", tasks, False, False)[0]) == len(CLASSIFIERS)


def test_an_estimator_of_your_own_stays_what_it_is(tmp_path, random):
    bank, _, _ = tasks_bank(tmp_path / "a.bank", random)
    own = {"mlp": (MLPClassifier((4,), max_iter=20), {"alpha": [1.0]}), "ridge": {"alpha": [1.0]}}
    result = fit(bank, target=["kind", "age"], models=own, folds=2)
    assert result.report["sharing"] == {}
    assert [each.model for each in result.tasks["kind"].search.candidates_] == ["mlp", "ridge"]
    assert [each.model for each in result.tasks["age"].search.candidates_] == ["ridge"]


def test_shared_folds_are_cut_to_the_rows_of_a_task():
    labels = Labels("a", np.array([1, 2, 5]), np.array([0, 1, 0]), "classification")
    everyone = np.arange(6)
    ((train_rows, test_rows),) = folds_of(labels, [(everyone[:3], everyone[3:])])
    assert (train_rows.tolist(), test_rows.tolist()) == ([0, 1], [2])
    kept = labels.among(np.array([0, 2, 5]))
    assert (kept.where.tolist(), kept.y.tolist()) == ([1, 2], [1, 0])


# --- one file ----------------------------------------------------------------------------------------------


def test_one_file_predicts_all_tasks(tmp_path, random):
    bank, _, columns = tasks_bank(tmp_path / "a.bank", random)
    result = fit(bank, target=list(columns), models={**PLAIN, **MLP}, folds=3)
    result.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    expected = result.predictor.predict_bank(Bank(tmp_path / "a.bank"))
    pd.testing.assert_frame_equal(loaded.predict_bank(bank), expected, check_exact=True)
    assert list(expected) == [
        *("source", "path", "label_kind", "probability_kind", "label_grade", "probability_grade", "label_age"),
        *("unlike", "is_unlike", "error"),
        *("proba_kind_mono", "proba_kind_poly", "proba_grade_high", "proba_grade_low", "proba_grade_mid"),
    ]
    assert list(loaded.tasks) == list(columns)
    assert loaded.target == "kind+grade+age"
    assert loaded.classes["grade"].tolist() == ["high", "low", "mid"]
    for name, each in result.tasks.items():
        alone = each.predictor.predict_bank(bank)
        assert alone["label"].tolist() == expected[f"label_{name}"].tolist()


def test_columns_of_which_an_image_has_all_or_none_are_labels_of_one_task(tmp_path, random):
    X = random.normal(size=(60, 5))
    two = {name: (X[:, i] > 0).astype(float) for i, name in enumerate("ab")}
    some = {name: np.where(np.arange(60) < 40, column, np.nan) for name, column in two.items()}
    torn = {**some, "b": np.where(np.arange(60) < 30, two["b"], np.nan)}
    kinds = {}
    for name, columns in {"all": two, "some": some, "torn": torn}.items():
        bank = make_bank(tmp_path / f"{name}.bank", X, range(60), **columns)
        kinds[name] = is_multitask(bank, Target(["a", "b"]))
    assert kinds == {"all": False, "some": False, "torn": True}
