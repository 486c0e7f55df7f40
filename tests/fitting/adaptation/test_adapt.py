import json

import numpy as np
import pandas as pd
import pytest
from domain_maker import MODEL, domain_bank, make_bank, moved, two_domains

from featurebank import Bank, Predictor
from featurebank.errors import BankError, ColumnError, FeatureSetError, PredictorError, TopModelError
from featurebank.fitting.adaptation.adapt import adapt, fit_domain
from featurebank.fitting.adaptation.adapters import ADAPTATIONS

ASKED = {"domain": "site", "source": "A", "target_domain": "B", "models": MODEL, "target": "label"}


@pytest.fixture(scope="module")
def moved_bank(tmp_path_factory):
    """150 rows of a source, 120 of a target that lies elsewhere: unadapted it is at chance."""
    return domain_bank(tmp_path_factory.mktemp("moved") / "x.bank", *two_domains(150, 120, move=moved))


@pytest.fixture(scope="module")
def moved_result(moved_bank):
    return adapt(moved_bank, **ASKED)


def by_name(report):
    return {each["adapt"]: each for each in report["adaptations"]}


def test_the_report_says_what_was_tried_and_chosen(moved_result):
    report = moved_result.report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert {"n_samples", "classes", "folds", "candidates", "best", "warnings"} <= set(report)
    assert (report["n_samples"], report["classes"], report["folds"]) == (270, ["cat", "dog"], 5)
    assert report["domain"] == {
        "column": "site",
        "source": "A",
        "target": "B",
        "n_source": 150,
        "n_target": 120,
        "n_target_labelled": 120,
    }
    assert [each["adapt"] for each in report["adaptations"]] == list(ADAPTATIONS)
    for each in report["adaptations"]:
        low, high = each["target"]["ci95"]
        assert low <= each["target"]["accuracy"] <= high
        assert each["target"]["n_samples"] == 120
        assert {"macro_f1", "intervals", "confusion"} <= set(each["target"])
    assert report["chosen"]["adapt"] in ("coral", "subspace", "ot")
    assert report["shift"][0]["is_shift"]


def test_the_gain_is_that_of_the_rows(moved_result):
    found, frame = by_name(moved_result.report), moved_result.oof
    target = frame[frame["domain"] == "B"]
    assert found["none"]["target"]["accuracy"] < 0.65
    assert found["none"]["difference"] is None
    for name in ("coral", "ot"):
        right = target[f"predicted_{name}"] == target["true"]
        gain = right.astype(float) - (target["predicted_none"] == target["true"])
        assert found[name]["target"]["accuracy"] == pytest.approx(right.mean())
        assert found[name]["target"]["accuracy"] > 0.95
        assert found[name]["difference"]["accuracy"] == pytest.approx(gain.mean())
        assert found[name]["difference"]["told_apart"]


def test_the_table_of_predictions_has_each_row_once(moved_result, moved_bank):
    frame, chosen = moved_result.oof, moved_result.report["chosen"]["adapt"]
    assert list(frame.columns[:6]) == ["source", "path", "domain", "fold", "true", "predicted"]
    assert list(frame.columns[6:]) == [f"predicted_{name}" for name in ADAPTATIONS]
    assert frame["path"].is_unique
    assert set(frame["fold"]) == set(range(5))
    assert (frame["predicted"] == frame[f"predicted_{chosen}"]).all()
    assert (frame["true"].to_numpy() == moved_bank.samples["label"].to_numpy()).all()


@pytest.mark.parametrize("name", ADAPTATIONS)
@pytest.mark.parametrize("model", ["logreg", "svm"])
def test_the_saved_predictor_is_plain_and_says_the_same(moved_bank, tmp_path, name, model):
    models = {"logreg": MODEL, "svm": {"svm": {"C": [1.0]}}}[model]
    result = adapt(moved_bank, **{**ASKED, "models": models}, methods=name)
    assert result.report["chosen"]["adapt"] == name
    result.save(tmp_path / "x.featurebank")
    loaded = Predictor.load(tmp_path / "x.featurebank")
    modules = {type(step).__module__.split(".")[0] for _, step in loaded.model.steps}
    assert modules == {"sklearn"}
    X = moved_bank.load("net/layer")
    np.testing.assert_allclose(loaded.probabilities(X), result.predictor.probabilities(X), atol=1e-6)
    table = loaded.predict_bank(moved_bank)
    right = (table["label"].to_numpy() == moved_bank.samples["label"].to_numpy())[150:].mean()
    assert (right > 0.95) == (name in ("coral", "subspace", "ot"))


@pytest.mark.parametrize("model", ["centroid", "ridge", "lda", "linear-svm", "knn", "mlp"])
def test_every_top_model_can_be_adapted_and_saved(moved_bank, tmp_path, model):
    result = adapt(moved_bank, **{**ASKED, "models": model}, methods="coral", folds=2)
    assert result.report["chosen"]["target"]["accuracy"] > (
        0.75 if model == "mlp" else 0.95
    )  # so few rows are few steps
    result.save(tmp_path / "x.featurebank")
    proba = Predictor.load(tmp_path / "x.featurebank").probabilities(moved_bank.load("net/layer"))
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_a_model_that_cannot_be_saved_is_refused_before_any_work(moved_bank):
    told = []
    with pytest.raises(PredictorError, match="which a predictor may not"):
        adapt(
            moved_bank,
            **{**ASKED, "models": "sklearn.ensemble.RandomForestClassifier"},
            on_shift=lambda *line: told.append(line),
        )
    assert told == []


def test_it_repeats_exactly_and_the_seed_matters(moved_bank, moved_result):
    def facts(report):
        return [(each["unsupervised"], each["target"]) for each in report["adaptations"]]

    again = adapt(moved_bank, **ASKED)
    assert facts(again.report) == facts(moved_result.report)
    assert again.oof.equals(moved_result.oof)
    assert facts(adapt(moved_bank, **ASKED, random_state=1).report) != facts(moved_result.report)


def test_labels_of_the_target_change_figures_only(moved_bank, moved_result, tmp_path):
    X, y, is_source = two_domains(150, 120, move=moved)
    wrong = np.where(is_source, y, 1 - y)
    without = np.where(is_source, y, -1)
    for number, labels in enumerate((wrong, without)):
        bank = domain_bank(tmp_path / f"{number}.bank", X, labels, is_source)
        result = adapt(bank, **ASKED)
        assert result.report["chosen"]["adapt"] == moved_result.report["chosen"]["adapt"]
        assert result.oof["predicted"].tolist() == moved_result.oof["predicted"].tolist()
        np.testing.assert_array_equal(
            result.predictor.probabilities(X.astype(np.float32)),
            moved_result.predictor.probabilities(X.astype(np.float32)),
        )
        for one, two in zip(result.report["adaptations"], moved_result.report["adaptations"], strict=True):
            assert (one["unsupervised"], one["source"]) == (two["unsupervised"], two["source"])
    assert result.report["chosen"]["target"] is None
    assert result.report["chosen"]["difference"] is None
    assert result.report["domain"]["n_target_labelled"] == 0
    assert result.oof["true"][150:].isna().all()


def test_without_a_shift_nothing_is_adapted_or_gained(tmp_path):
    for seed in range(3):
        bank = domain_bank(tmp_path / f"{seed}.bank", *two_domains(200, 160, seed=seed, apart=2.5))
        report = adapt(bank, **ASKED).report
        assert not report["shift"][0]["is_shift"]
        assert report["chosen"]["adapt"] == "none"
        plain = report["adaptations"][0]["target"]
        for each in report["adaptations"][1:]:
            assert plain["ci95"][0] <= each["target"]["accuracy"] <= plain["ci95"][1], (seed, each["adapt"])


def test_random_labels_stay_at_chance(tmp_path):
    X, y, is_source = two_domains(200, 200, move=moved)
    y = np.random.default_rng(1).permutation(y)
    report = adapt(domain_bank(tmp_path / "x.bank", X, y, is_source), **ASKED).report
    assert report["shift"][0]["is_shift"]
    for each in report["adaptations"]:
        low, high = each["target"]["ci95"]
        assert low <= 0.5 <= high, each["adapt"]


def test_identical_content_is_never_on_both_sides(tmp_path):
    X, y, is_source = two_domains(100, 100)
    contents = np.arange(200)
    contents[100:150] = np.arange(50)  # half of the target are images of the source
    X[100:150], y[100:150] = X[:50], y[:50]
    columns = {"label": np.where(y, "dog", "cat"), "site": np.where(is_source, "A", "B")}
    bank = make_bank(tmp_path / "x.bank", X, contents, **columns)
    result = adapt(bank, **ASKED)
    assert result.report["grouped"]
    fold = result.oof["fold"].to_numpy()
    np.testing.assert_array_equal(fold[:50], fold[100:150])


def test_groups_stay_together(tmp_path):
    X, y, is_source = two_domains(100, 100, move=moved)
    bank = domain_bank(tmp_path / "x.bank", X, y, is_source, module=np.arange(200) // 4)
    result = adapt(bank, **ASKED, groups="module", methods="coral")
    fold = result.oof["fold"].to_numpy().reshape(50, 4)
    assert (fold == fold[:, :1]).all()


def test_a_few_labels_of_the_target_help_where_the_source_does_not(tmp_path):
    X, y, is_source = two_domains(100, 200)
    X[~is_source] = X[~is_source][:, [1, 0, 2, 3]]  # what tells the classes apart is another axis in the target
    bank = domain_bank(tmp_path / "x.bank", X, y, is_source)
    before = adapt(bank, **ASKED, methods="none").report
    after = adapt(bank, **ASKED, methods="none", target_labels=15).report
    assert after["target_labels"] == 15
    assert before["chosen"]["target"]["accuracy"] < 0.65
    assert after["chosen"]["target"]["accuracy"] > 0.75


def test_one_named_adaptation_is_taken_and_compared_with_none(moved_bank):
    report = adapt(moved_bank, **ASKED, methods="reweight").report
    assert [each["adapt"] for each in report["adaptations"]] == ["none", "reweight"]
    assert report["chosen"]["adapt"] == "reweight"
    assert report["chosen"]["effective_samples"] < 120
    assert adapt(moved_bank, **ASKED, methods="none").report["chosen"]["adapt"] == "none"


@pytest.mark.parametrize("scorer", ["circular", "entropy", "density"])
def test_skadas_scorers_can_choose(moved_bank, scorer):
    report = adapt(moved_bank, **ASKED, methods=["none", "coral"], scorer=scorer).report
    assert report["scorer"] == scorer
    assert all(np.isfinite(each["unsupervised"]) for each in report["adaptations"])


def test_the_shift_is_told_first(moved_bank):
    told = []
    adapt(
        moved_bank,
        **ASKED,
        methods="coral",
        on_shift=lambda names, line: told.append((names, line)),
        progress=lambda done, total: told.append("search"),
        on_compared=lambda done, total: told.append((done, total)),
    )
    assert told[0][0] == ["net/layer"]
    assert told[0][1].startswith("shift: a classifier tells A from B with ")
    assert told[1] == "search"
    assert told[-10:] == [(number, 10) for number in range(1, 11)]


def test_domains_may_be_numbers_and_others_are_left_out(tmp_path):
    X, y, is_source = two_domains(60, 60, move=moved)
    year = np.where(is_source, 2020.0, 2021.0)
    year[:5], year[-5:] = 2019, np.nan
    bank = domain_bank(tmp_path / "x.bank", X, y, is_source, year=year)
    asked = {**ASKED, "domain": "year", "source": "2020", "target_domain": "2021"}
    report = adapt(bank, **asked, methods="coral").report
    assert (report["domain"]["n_source"], report["domain"]["n_target"]) == (55, 55)
    assert report["warnings"][:2] == [
        "5 samples have no year and are left out",
        "5 samples are of other domains and are left out",
    ]


def test_unlabelled_rows_of_the_source_are_left_out_and_strange_classes_told(tmp_path):
    X, y, is_source = two_domains(60, 60)
    label = np.where(y, "dog", "cat").astype(object)
    label[:4] = None
    label[-3:] = "owl"
    bank = make_bank(tmp_path / "x.bank", X, label=label, site=np.where(is_source, "A", "B"))
    result = adapt(bank, **ASKED, methods="none")
    assert result.report["n_samples"] == 116
    assert result.report["warnings"][:2] == [
        "4 samples of A have no label and are left out",
        "3 samples of B are of classes that A lacks, and so count as mistakes",
    ]
    assert result.report["classes"] == ["cat", "dog"]
    assert "owl" not in result.oof["predicted"].tolist()
    assert result.report["chosen"]["target"]["n_samples"] == 60


def test_near_duplicates_in_other_folds_are_told_unless_tied(moved_bank):
    notes = adapt(moved_bank, **ASKED, methods="none").report["warnings"]
    assert [note.split("(")[0].split(" ", 1)[1] for note in notes] == ["samples have a near-duplicate "]
    report = adapt(moved_bank, **ASKED, methods="none", groups="@near-duplicates", folds=2).report
    assert (report["warnings"], report["grouped"]) == ([], True)


def test_a_target_of_one_class_has_a_figure(tmp_path):
    X, y, is_source = two_domains(60, 80)
    kept = is_source | (y == 1)
    report = adapt(domain_bank(tmp_path / "x.bank", X[kept], y[kept], is_source[kept]), **ASKED).report
    assert report["adaptations"][0]["target"]["accuracy"] > 0.95
    assert report["adaptations"][0]["target"]["n_samples"] == 40


def refused(bank, error, match, **changed):
    with pytest.raises(error, match=match) as caught:
        adapt(bank, **{**ASKED, **changed})
    assert "\n" not in str(caught.value)


def test_wrong_names_are_errors(moved_bank):
    refused(moved_bank, ColumnError, "no column 'size'", domain="size")
    refused(moved_bank, ColumnError, "column 'site' has no value 'C'; expected one of A, B", target_domain="C")
    refused(moved_bank, ColumnError, "source and target domain are both 'A'; expected two values", target_domain="A")
    refused(moved_bank, ColumnError, "column 'site' is both domain and target", target="site")
    refused(moved_bank, TopModelError, "no adaptation 'corral'; did you mean coral", methods="corral")
    refused(moved_bank, TopModelError, "no unsupervised scorer 'x'; expected one of outputs", scorer="x")
    refused(moved_bank, TopModelError, "needs probabilities, which SVC has not", scorer="entropy", models="svm")
    refused(moved_bank, TopModelError, "knn takes no sample weights", methods="reweight", models="knn")
    refused(moved_bank, FeatureSetError, "no feature set 'other'", features="other")
    refused(moved_bank.path / "nowhere", BankError, "nowhere")


def test_domains_that_are_too_small_or_plain_are_errors(tmp_path):
    X, y, is_source = two_domains(60, 60)
    one = np.arange(120) < 61
    bank = domain_bank(tmp_path / "one.bank", X[one], y[one], is_source[one])
    refused(bank, TopModelError, "domain 'B' has 1 row that can be used; expected at least 10, two a fold")
    bank = domain_bank(tmp_path / "flat.bank", X, np.where(is_source, 1, y), is_source)
    refused(bank, TopModelError, "the labelled rows of 'A' are of 1 class; expected at least two classes")
    bank = domain_bank(tmp_path / "blind.bank", X, np.where(is_source, y, -1), is_source)
    refused(bank, TopModelError, "no sample of 'B' has a label; label some", target_labels=3)
    bank = make_bank(tmp_path / "numbers.bank", X, label=X[:, 0] + 0.5, site=np.where(is_source, "A", "B"))
    refused(bank, ColumnError, "column 'label' holds numbers; domains are adapted for classes")


def test_constant_columns_and_a_class_of_one_sample(tmp_path):
    X, y, is_source = two_domains(60, 60, move=moved)
    X = np.column_stack([X, np.zeros(120), np.full(120, 3.0)])
    label = np.where(y, "dog", "cat").astype(object)
    label[0] = "owl"
    bank = make_bank(tmp_path / "x.bank", X, label=label, site=np.where(is_source, "A", "B"))
    report = adapt(bank, **ASKED).report
    assert report["classes"] == ["cat", "dog", "owl"]
    assert by_name(report)["coral"]["target"]["accuracy"] > 0.9


def test_the_bank_is_only_read(moved_bank):
    before = sorted(path.name for path in moved_bank.path.rglob("*"))
    adapt(moved_bank, **ASKED, methods="coral")
    assert sorted(path.name for path in moved_bank.path.rglob("*")) == before
    assert isinstance(Bank(moved_bank.path).samples, pd.DataFrame)


def test_the_old_name_says_the_new_one(moved_bank):
    with pytest.warns(FutureWarning, match=r"fit_domain\(adapt=\) is now adapt\(methods=\)"):
        old = fit_domain(moved_bank, **ASKED, adapt="none", seed=1, jobs=1)
    assert old.oof.equals(adapt(moved_bank, **ASKED, methods="none", random_state=1).oof)
