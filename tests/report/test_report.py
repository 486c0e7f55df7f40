import base64
import io
import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featurebank import Bank, Predictor, extract, fit
from featurebank.errors import FeatureBankError, PredictorError
from featurebank.explore import ActivationMap, plot_abstention
from featurebank.explore.page import encode_column, encode_coordinates, encode_points, is_number, to_json
from featurebank.report import data_section, errors_section, make_report, results_section
from featurebank.report.inputs import OofPredictions, match_predictions, read_inputs
from featurebank.report.map_section import ACROSS, SIDE, encode_pictures, make_pictures
from featurebank.report.provenance import commands, settings
from featurebank.report.summary_section import summary
from featurebank.topmodels.scores import wilson_interval


@pytest.fixture(scope="module")
def labelled(two_class_bank, tmp_path_factory):
    """A bank with a column of numbers, one of parts and one of times; its fit with a curve; and its page."""
    folder = tmp_path_factory.mktemp("report")
    bank = Bank(shutil.copytree(two_class_bank, folder / "own.bank"))
    samples = bank.samples[["path"]]
    part = ["train", "test"] * (len(samples) // 2)
    bank.label(samples.assign(part=part, age=np.linspace(0.5, 3.5, len(samples))))
    result = fit(bank, target="label", models=["logreg", "centroid"], learning_curve=True, nested=True, folds=3)
    result.save(folder / "own.featurebank")
    return bank, folder / "own.featurebank", make_report(bank, folder / "own.featurebank", maps=["pca"])


def outcomes(true, predicted, confidence, classes=("a", "b")):
    """Return outcomes whose predicted class has the given probability, the others sharing the rest."""
    true, predicted = np.array(true), np.array(predicted)
    proba = np.repeat((1 - np.array(confidence))[:, None] / (len(classes) - 1), len(classes), axis=1)
    proba[np.arange(len(true)), predicted] = confidence
    return OofPredictions(np.arange(len(true)), np.zeros(len(true), int), true, predicted, proba, list(classes))


def decoded(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


# --- the page ------------------------------------------------------------------------------------------------------


def test_every_section_is_there_and_tells_what_the_fit_said(labelled):
    _, predictor, page = labelled
    ids = re.findall(r'<section id="(\w+)"', page.html)
    assert ids == [
        "summary", "data", "map", "candidates", "confusion", "mistakes", "classes",
        "calibration", "learning", "suspects", "why", "provenance",
    ]  # fmt: skip
    found = Predictor.load(predictor).report
    assert f"Best: {100 * found['best']['mean']:.1f} % accuracy" in page.html
    assert found["learning_curve"]["verdict"].replace("'", "&#39;") in page.html
    assert f"{100 * found['nested']['mean']:.1f} %" in page.html
    assert 'aria-label="accuracy over layer. layer3: ' in page.html
    assert page.html.count("<svg ") == 4  # layers, reliability, abstention, learning curve
    assert 'class="lacks"' not in page.html.split('id="why"')[0]


def test_the_page_begins_with_the_score_to_expect_and_says_why_the_chosen_one_is_higher(labelled):
    first = labelled[2].html.split('<section id="data"')[0].split('<section id="summary"')[1]
    assert re.search(r"<b>On new images like these expect \d", first)
    assert first.index("This is the nested score") < first.index("Best: ")
    scores = {"mean": 0.9, "ci95": [0.8, 0.95]}
    report = {"candidates": [scores] * 9, "best": scores, "scoring": "accuracy", "task": "classification"}
    guess = {"guess": {"mean": 0.5, "told_apart": False}, "selection": {"candidates": 9, "bias": 0.02}}
    plain = summary(report | guess)
    assert plain["lead"] == "Best: 90.0 % accuracy (95 % interval 80.0 % to 95.0 %)."
    assert plain["more"][0] == "The best was chosen by this score, so that new images fare a little worse."
    assert plain["more"][-1] == "A guess scores 50.0 %, from which this cannot be told."
    nested = summary(report | guess | {"nested": {"mean": 0.86, "ci95": [0.7, 0.93]}, "groups": "patient"})
    assert nested["lead"] == (
        "On new images, of a patient that is not among these, expect 86.0 % accuracy (95 % interval 70.0 % to 93.0 %): "
        "about 86 right answers of 100."
    )
    assert "It is higher, since the best of 9 candidates was picked by this very score" in nested["more"][1]
    perfect = summary(report | {"nested": {"mean": 1.0, "ci95": [0.97, 1.0]}})
    assert perfect["lead"] == "On new images like these expect 100.0 % accuracy (95 % interval 97.0 % to 100.0 %)."
    assert summary({}) == {"lead": "", "more": []}


def test_the_page_is_the_same_in_every_run(labelled):
    bank, predictor, page = labelled
    assert make_report(bank, predictor, maps=["pca"]).html == page.html


def test_the_page_asks_for_nothing_and_only_its_own_script_may_run(labelled):
    html = labelled[2].html
    assert not re.search(r'(?:src|href)="(?!#|data:)', html)
    assert "default-src &#39;none&#39;" not in html
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert re.search(r"script-src 'sha256-[\w+/]+=*'$", policy)


def test_a_bank_alone_has_data_and_map_and_names_the_commands_for_the_rest(two_class_bank):
    page = make_report(two_class_bank, maps=["pca"])
    assert page.facts["confusion"] is None
    lacking = re.findall(r'class="lacks">([^<]*) <code>([^<]*)</code>', page.html)
    assert len(lacking) == 8
    for text, command in lacking:
        assert text.endswith((".", ":"))
        assert command.startswith("featurebank fit ")
    assert page.counts() == {
        "images": 40, "pictures": 40, "maps": ["PCA"], "mistakes": None, "issues": None, "groups": 0,
    }  # fmt: skip


def test_numbers_get_an_error_list_and_a_scatter(labelled, tmp_path):
    bank = labelled[0]
    result = fit(bank, target="age", models=["ridge"], folds=3)
    result.save(tmp_path / "age.featurebank")
    page = make_report(bank, tmp_path / "age.featurebank", maps=["pca"])
    assert "Largest errors" in page.html
    errors = [float(each["surety"].removeprefix("off by ")) for each in page.facts["mistakes"]]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 40
    assert page.facts["points"]["columns"][0]["kind"] == "number"
    assert page.html.count("<svg ") == 2  # layers, and predicted against true
    assert "Predicted and true" in page.html
    for said in ("A predictor of numbers has no classes.", "Labels are judged by the probabilities of classes"):
        assert said in page.html
    assert "--calibrate" not in page.html


def test_intervals_that_are_not_known_are_told_as_such(labelled, tmp_path):
    """One image to compare on, and one held out, say nothing of how an error varies."""
    bank = Bank(shutil.copytree(labelled[0].path, tmp_path / "own.bank"))
    part = np.array(["val", "test", *["train"] * 38])
    bank.label(bank.samples[["path"]].assign(part=part))
    options = {"target": "age", "models": ["ridge"], "split": "part", "scoring": "neg_mean_absolute_error"}
    fit(bank, learning_curve=True, **options).save(tmp_path / "age.featurebank")
    page = make_report(bank, tmp_path / "age.featurebank", maps=["pca"])
    assert all(each["low"] is None and each["interval"] == "not known" for each in page.facts["candidates"])
    assert page.facts["held_out"]["text"] == "r2 0.000 (95 % not known)"
    assert page.html.count('<span class="mean" style="left:') == len(page.facts["candidates"])
    assert 'class="reach"' not in page.html
    assert "nan" not in re.findall(r"\w+", re.sub(r"<script.*?</script>", "", page.html, flags=re.DOTALL).lower())
    json.loads(json.dumps(page.facts["points"]), parse_constant=pytest.fail)


def test_several_labels_have_scores_by_label(labelled, tmp_path):
    bank = Bank(shutil.copytree(labelled[0].path, tmp_path / "own.bank"))
    samples = bank.samples[["path"]]
    bank.label(samples.assign(is_cat=samples["path"].str.startswith("cat").astype(int), even=[0, 1] * 20))
    fit(bank, target=["is_cat", "even"], models=["logreg"], folds=2).save(tmp_path / "a.featurebank")
    page = make_report(bank, tmp_path / "a.featurebank", maps=["pca"])
    assert [each["label"] for each in page.facts["per_label"]] == ["is_cat", "even"]
    assert "Scores by label" in page.html
    lacking = re.findall(r'class="lacks">([^<]*)(<code>)?', page.html)
    assert [text for text, command in lacking if not command] == [
        "Several labels have no one confusion matrix; they are scored one by one below.",
        "Mistakes are listed for one class, or one number, an image.",
        "Calibration and abstention are judged where each image has one class.",
        "Labels are judged by the probabilities of classes, which this predictor does not give.",
    ]
    assert "--target is_cat --target even --folds 2" in page.html


def test_another_column_may_be_shown_beside_the_predictor(labelled):
    bank, predictor, _ = labelled
    page = make_report(bank, predictor, target="part", features="layer3", maps=["pca"])
    assert [each["name"] for each in page.facts["data"]["classes"]] == ["train", "test"]
    assert page.facts["points"]["columns"][0]["name"] == "part"
    assert page.facts["confusion"]["classes"] == ["cat", "dog"]
    assert page.facts["issues"] is not None
    assert page.facts["features"] == "resnet18/layer3"


def test_labels_that_were_renamed_since_the_fit_leave_a_line(labelled, tmp_path):
    bank = Bank(shutil.copytree(labelled[0].path, tmp_path / "own.bank"))
    bank.label(pd.DataFrame({"path": bank.samples["path"][:3], "label": "bird"}))
    facts = make_report(bank, labelled[1], maps=["pca"]).facts
    assert facts["issues"] is None
    assert "no column 'proba_bird'" in facts["issues_note"]
    assert (facts["relabelled"], labelled[2].facts["relabelled"]) == (3, 0)


def test_one_image_makes_a_page(noise, tmp_path):
    noise(50, 40).save(tmp_path / "a.png")
    bank = extract([tmp_path / "a.png"], tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64)
    page = make_report(bank)
    assert (page.counts()["images"], page.counts()["pictures"]) == (1, 1)
    assert "featurebank label" in page.html


def test_names_that_are_html_are_text(noise, tmp_path):
    folder = tmp_path / "<b>bold"
    for label in ("<i>one", "=two"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            noise(40, 40, number).save(folder / label / f"<img src=x onerror=alert({number})>\n.png")
    bank = extract(folder, tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64)
    html = make_report(bank, maps=["pca"]).html
    for evil in ("<b>bold", "<i>one", "<img src=x"):
        assert evil not in html
    assert "&lt;i&gt;one" in html
    assert json.loads(re.search(r'id="points">(.*?)</script>', html)[1])["columns"][0]["names"] == ["<i>one", "=two"]


# --- what is refused -----------------------------------------------------------------------------------------------


def test_what_is_named_and_not_there_is_an_error(labelled, tmp_path):
    bank = labelled[0]
    for options, said in (
        ({"target": "nothing"}, "no column 'nothing'"),
        ({"features": "resnet18/layer9"}, "resnet18/layer9"),
        ({"maps": ["tsen"]}, "did you mean tsne"),
        ({"predictor": tmp_path / "none.featurebank"}, "no predictor at"),
    ):
        with pytest.raises(FeatureBankError, match=said):
            make_report(bank, **options)
    empty = Bank.create(tmp_path / "empty.bank")
    with pytest.raises(FeatureBankError, match="no readable image"):
        make_report(empty)


def test_out_of_fold_predictions_of_another_predictor_are_refused(labelled, tmp_path):
    bank, predictor, _ = labelled
    own = Predictor.load(predictor).single.out_of_fold
    other = Predictor.load(predictor)
    for frame, said in (
        (own[["row"]], "are not of its model"),
        (own[:0], "is about no sample"),
        (own.assign(true="bird"), "are not of its model"),
        (own.assign(fold="a"), "are not of its model"),
    ):
        other.single.out_of_fold = frame
        other.save(tmp_path / "a.featurebank")
        with pytest.raises(PredictorError, match=said):
            make_report(bank, tmp_path / "a.featurebank", maps=["pca"])


def test_a_predictor_with_a_strange_report_is_refused_on_one_line(labelled, tmp_path):
    bank, predictor, _ = labelled
    for strange in (
        {"candidates": 3},
        {"candidates": [{}]},
        {"per_label": 1},
        {"calibration": [1]},
        {"abstention": 1},
        {"seconds": "long"},
    ):
        loaded = Predictor.load(predictor)
        loaded.report.update(strange)
        loaded.save(tmp_path / "a.featurebank")
        with pytest.raises(PredictorError, match="fit again"):
            make_report(bank, tmp_path / "a.featurebank", maps=["pca"])


# --- outcomes ------------------------------------------------------------------------------------------------------


def test_outcomes_are_read_back_as_the_fit_gave_them(labelled):
    bank, predictor, _ = labelled
    found = match_predictions(Predictor.load(predictor).single, bank.select())
    labels = bank.select().columns["label"].to_numpy()
    assert np.array_equal(np.array(found.classes)[found.true], labels[found.row])
    assert sorted(found.row) == list(range(40))
    np.testing.assert_allclose(found.proba.sum(axis=1), 1)


def test_a_repeated_fold_counts_an_image_once_and_unknown_paths_not_at_all(labelled):
    bank, predictor, _ = labelled
    task = Predictor.load(predictor).single
    source = task.report["samples"][0][0]
    task.report["samples"].append([source, "other/1.png", 0])
    frame = task.out_of_fold
    task.out_of_fold = pd.concat([frame, frame.assign(fold=7), frame.head(1).assign(row=40)], ignore_index=True)
    found = match_predictions(task, bank.select())
    assert len(found.row) == 40
    assert found.fold.max() < 7


def test_formulas_and_undecodable_names_match_the_bank_again(noise, tmp_path):
    names = [b"=1.png", b"'=2.png", b"\xff.png", "café.png".encode()]
    root = tmp_path / "a"
    root.mkdir()
    for number, name in enumerate(names):
        with open(bytes(root) + b"/" + name, "wb") as file:
            noise(40 + number, 40).save(file, "PNG")
    bank = extract(root, tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64)
    table = bank.select()
    bank.label(table.names()[["source", "path"]].assign(label=["+a", "=b"] * 2))
    fit(bank, models={"logreg": {"C": [1.0]}}, folds=2).save(tmp_path / "a.featurebank")
    found = match_predictions(Predictor.load(tmp_path / "a.featurebank").single, table)
    assert {table.rows["path"][row] for row in found.row} == set(names)
    assert found.classes == ["+a", "=b"]


# --- results -------------------------------------------------------------------------------------------------------


def test_confusion_counts_rows_true_and_columns_predicted():
    found = errors_section.confusion(outcomes([0, 0, 0, 1], [0, 1, 1, 1], [0.9] * 4))
    assert found["counts"] == [[1, 2], [0, 1]]
    assert found["shares"][1] == [0, 1]
    assert found["pairs"] == [(0, 1, 2)]
    assert (found["mistakes"], found["whole"]) == (2, True)


def test_many_classes_are_told_by_their_worst_pairs():
    k = errors_section.MOST_CLASSES + 1
    found = errors_section.confusion(outcomes([0, 0, 5], [3, 3, 2], [0.9] * 3, [str(i) for i in range(k)]))
    assert not found["whole"]
    assert found["pairs"] == [(0, 3, 2), (5, 2, 1)]


def test_mistakes_come_by_confidence_and_right_answers_not_at_all():
    found = errors_section.mistakes(outcomes([0, 0, 1, 1], [1, 1, 1, 0], [0.6, 0.9, 1.0, 0.7]))
    assert [(each["row"], each["true"], each["said"]) for each in found] == [
        (1, "a", "b"),
        (3, "b", "a"),
        (0, "a", "b"),
    ]
    assert found[0]["surety"] == "90 % sure"


def test_a_class_that_is_never_answered_has_scores_of_zero():
    first, second = errors_section.per_class(outcomes([0, 0, 1], [0, 0, 0], [0.9] * 3))
    assert (first["precision"], first["recall"], first["n"]) == (pytest.approx(2 / 3), 1.0, 2)
    assert (second["precision"], second["recall"], second["f1"]) == (0, 0, 0)
    assert second["ci95"][0] == 0


def test_the_recall_of_a_class_has_the_interval_of_its_groups():
    found = outcomes([0] * 12, [0] * 9 + [1] * 3, [0.9] * 12)
    (alone, _), (grouped, _) = (errors_section.per_class(found, each) for each in (None, np.arange(12) // 3))
    assert alone["ci95"] == pytest.approx(wilson_interval(9, 12))
    assert grouped["ci95"][0] < alone["ci95"][0]
    assert grouped["ci95"][1] > alone["ci95"][1]


def test_reliability_is_the_share_that_is_right():
    found = results_section.reliability(outcomes([0] * 100, [0] * 80 + [1] * 20, [0.8] * 100))
    np.testing.assert_allclose((found["confidence"], found["accuracy"]), [[0.8], [0.8]])


def test_candidates_are_the_best_of_each_kind_on_one_scale():
    each = {"features": ["n/a"], "model": "svm", "normalize": "standardize", "select": None}
    low, best = (
        {**each, "mean": mean, "ci95": [mean - 0.1, mean + 0.1], "params": {"C": c}}
        for mean, c in ((0.6, 1), (0.8, 2.0))
    )
    other = {**low, "model": "knn", "select": 0.1}
    first, second = results_section.candidates({"scoring": "accuracy", "candidates": [low, best, other]})
    assert (first["model"], first["params"], first["score"], first["interval"]) == (
        "svm",
        "C=2",
        "80.0 %",
        "70.0 % to 90.0 %",
    )
    assert (first["high"], second["low"]) == (pytest.approx(100), pytest.approx(0))
    assert second["notes"] == "0.1 of the dimensions"


# --- the data ------------------------------------------------------------------------------------------------------


def test_the_data_are_counted(labelled):
    bank, _, page = labelled
    found = page.facts["data"]
    assert found["counts"] == {"ok": 40, "failed": 0, "gone": 0}
    assert [(each["name"], each["n"]) for each in found["classes"]] == [("cat", 20), ("dog", 20)]
    assert [each["name"] for each in found["balance"]] == ["part", "folds of the fit"]
    assert {each["name"]: each["summary"] for each in found["columns"]}["age"] == "0.5 to 3.5, median 2"
    assert list(data_section.sides(bank.select(), None)) == ["part"]


def test_failures_and_copies_are_told(two_classes, tmp_path):
    source = (two_classes / "cat" / "00.png").read_bytes()
    for name, content in (("a/1.png", source), ("b/1.png", source), ("b/2.png", b"no image")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="could not be read"):
        bank = extract(tmp_path / "photos", tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64)
    page = make_report(bank, maps=["pca"])
    assert page.facts["data"]["copies"] == {"repeats": 1, "torn": 1}
    assert page.facts["data"]["failures"]["listed"][0]["path"] == "b/2.png"
    assert "1 image has copies with other values of label" in page.html
    assert [[one["text"] for one in group] for group in page.facts["groups"]] == [["exact", "exact"]]


def test_near_duplicates_on_two_sides_of_a_split_are_a_leak(two_classes, tmp_path):
    photos = shutil.copytree(two_classes / "dog", tmp_path / "photos")
    with Image.open(photos / "00.png") as image:
        image.resize((80, 80)).save(photos / "copy.png")
    bank = extract(photos, tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64)
    paths = bank.samples["path"]
    bank.label(pd.DataFrame({"path": paths, "split": ["test" if "copy" in path else "train" for path in paths]}))
    facts = make_report(bank, maps=["pca"]).facts
    assert facts["leaks"] == ["2 images in 1 group of near-duplicates lie on two sides of split"]
    assert {facts["paths"][one["row"]] for one in facts["groups"][0]} == {"00.png", "copy.png"}


def test_columns_of_many_values_that_repeat_are_groups():
    patient = np.repeat(np.arange(30), 2)
    classes = pd.Series(["a"] * 60)
    classes[0] = "b"  # one patient has both
    split = pd.Series(["train"] * 60)
    split[[2, 4]] = "test"  # two patients are on both sides
    columns = pd.DataFrame({"patient": patient, "age": patient + 0.5, "number": range(60), "few": patient % 20})
    (found,) = data_section.groups(columns, "label", classes, {"split": split})
    assert found == {
        "name": "patient", "n": 30, "smallest": 2, "median": 2, "largest": 2, "pure": 29, "torn": {"split": 2},
    }  # fmt: skip
    assert data_section.groups(columns, "patient", classes, {}) == []
    assert data_section.groups(columns, None, None, {})[0]["pure"] is None


# --- points --------------------------------------------------------------------------------------------------------


def test_columns_are_coded_for_the_browser():
    text = encode_column("a", pd.Series(["y", None, "x", "y"], dtype=object))
    assert (text["names"], decoded(text["codes"], "<u4").tolist()) == (["x", "y"], [2, 0, 1, 2])
    number = encode_column("b", pd.Series([0.5, None], dtype="Float64"))
    np.testing.assert_array_equal(decoded(number["values"], "<f8"), [0.5, np.nan])
    empty = encode_column("d", pd.Series([None, None], dtype="Float64"))
    assert (empty["kind"], empty["names"], decoded(empty["codes"], "<u4").tolist()) == ("class", [], [0, 0])
    flags = encode_column("c", pd.Series([True, None], dtype="boolean"))
    assert (flags["names"], decoded(flags["codes"], "<u4").tolist()) == (["True"], [1, 0])


def test_few_whole_numbers_are_classes():
    assert not is_number(pd.Series(range(12), dtype="Int64"))
    assert is_number(pd.Series(range(13), dtype="Int64"))
    assert is_number(pd.Series([0.0, 1.0]))


@pytest.mark.parametrize("coordinates", [np.zeros((3, 2)), np.array([[1.0, 5.0]])])
def test_points_in_one_place_are_in_the_middle(coordinates):
    assert set(decoded(encode_coordinates(coordinates), "<u2")) == {32768}


def test_points_are_json_whatever_the_names_are(labelled):
    table = labelled[0].select()
    pictures = make_pictures(table, [])
    points = encode_points(["s"] * 40, ["\udcff<"] * 40, {"PCA": np.zeros((40, 2))}, {}) | encode_pictures(pictures)
    text = to_json(points)
    assert "<" not in text
    assert json.loads(text)["paths"][0] == "\udcff<"


# --- pictures ------------------------------------------------------------------------------------------------------


def test_tiles_are_the_pictures_in_the_order_that_was_asked(labelled):
    table = labelled[0].select()
    found = make_pictures(table, [30, 2])
    assert found.tile[[30, 2, 0]].tolist() == [0, 1, -1]
    assert found.sizes[:2].tolist() == [[64, 64], [64, 64]]
    with Image.open(io.BytesIO(found.sheets[0])) as sheet:
        assert sheet.size == (ACROSS * SIDE, SIDE)
        tile = np.asarray(sheet.convert("RGB"), float)[:64, :64]
    with Image.open(f"{table.rows['root'][30]}/{table.rows['path'][30].decode()}") as image:
        expected = np.asarray(image.convert("RGB"), float)
    assert np.corrcoef(tile.ravel(), expected.ravel())[0, 1] > 0.8


def test_pictures_end_with_the_budget_and_keep_the_first(labelled):
    table = labelled[0].select()
    order = list(range(40)) * 8
    assert len(make_pictures(table, order, budget=1).sheets) == 1
    assert len(make_pictures(table, order).sheets) == 3
    assert make_pictures(table, order, budget=0).sheets == []


def test_a_file_that_changed_or_went_shows_nothing(two_classes, tmp_path):
    photos = shutil.copytree(two_classes / "dog", tmp_path / "photos")
    bank = extract(photos, tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64)
    shutil.copy(photos / "01.png", photos / "00.png")
    (photos / "02.png").unlink()
    found = make_pictures(bank.select(), range(20))
    assert np.flatnonzero(found.tile < 0).tolist() == [0, 2]
    assert found.unread == 2
    page = make_report(bank, maps=["pca"])
    assert "18 of 20 images have a picture here; 2 files are gone, changed or were never files." in page.html
    assert page.facts["groups"] is None
    assert "not every image could be read" in page.html


# --- why -----------------------------------------------------------------------------------------------------------


def test_right_and_wrong_answers_are_explained(labelled):
    bank, predictor, page = labelled
    found = read_inputs(bank, predictor).oof
    rows = [each["row"] for each in page.facts["why"]]
    right, wrong = (found.row[found.wrong == is_wrong] for is_wrong in (False, True))
    assert set(rows) <= set(right) | set(wrong)
    assert len(set(rows) & set(right)) == 4
    assert len(set(rows) & set(wrong)) == min(4, len(wrong))
    assert page.facts["why_note"].startswith("Class activation maps, exact")
    with Image.open(io.BytesIO(base64.b64decode(page.facts["why"][0]["image"].split(",")[1]))) as image:
        assert image.size == (64, 64)


def test_an_overlay_is_red_for_and_blue_against():
    values = np.zeros((40, 60), np.float32)
    values[:, :20], values[:, 40:] = 2, -1
    drawn = np.asarray(ActivationMap(values, Image.new("RGB", (60, 40), "grey"), "a", 1.0, "cam").overlay()).astype(int)
    assert drawn[20, 5, 0] - drawn[20, 5, 2] > 80
    assert drawn[20, 55, 2] - drawn[20, 55, 0] > 30
    assert np.ptp(drawn[20, 30]) == 0


def test_a_network_that_is_not_here_leaves_a_line(labelled):
    bank, predictor, _ = labelled
    inputs = read_inputs(bank, predictor)
    inputs.predictor.features[0] = replace(inputs.predictor.features[0], weights="")
    made = errors_section.explanations(inputs)
    assert made["why"] == []
    assert made["why_note"].startswith("Not made: ")


# --- charts and commands -------------------------------------------------------------------------------------------


def test_charts_take_the_colours_of_the_page_and_share_no_id():
    report = {"abstention": [{"coverage": 1.0, "accuracy": 0.8}, {"coverage": 0.5, "accuracy": 0.9}]}
    first, second = (results_section.to_svg(partial(plot_abstention, report), name) for name in ("one", "two"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    assert "var(--accent)" in first
    assert "#0102" not in first
    assert 'surest first. 1: 0.800, 0.5: 0.900"' in first


def test_a_chart_is_told_and_its_text_is_text():
    def draw(ax):
        ax.plot([0, 1], [0.5, 0.25])
        ax.set(ylabel='<"b">', xlabel="rows")

    svg = results_section.to_svg(draw, "one")
    assert 'aria-label="&lt;&#34;b&#34;&gt; over rows. 0: 0.500, 1: 0.250"' in svg
    assert "<b" not in svg.split(">", 1)[1]


def test_the_commands_fit_the_same_candidates_again(labelled):
    bank, predictor, _ = labelled
    found = commands(read_inputs(bank, predictor))
    assert found["again"][-1] == f"featurebank report {bank.path} --predictor {predictor} -o report.html"
    assert found["fit"] == (
        f"featurebank fit {bank.path} --features resnet18/layer3 --features resnet18/penultimate --model logreg "
        "--model centroid --target label --folds 3 --seed 0 --scoring accuracy --nested --learning-curve "
        f"-o {predictor}"
    )

    extract_both, *others = found["again"]
    assert extract_both.startswith("featurebank extract ")
    assert extract_both.endswith(" --layer layer3 --layer penultimate")
    assert len(others) == 2


def test_the_settings_of_a_fit_are_told(labelled):
    told = dict(labelled[2].facts["settings"])
    assert (told["seed"], told["folds"], told["target"], told["n samples"]) == ("0", "3", "label", "40")
    assert "interrupted" not in told


def test_a_path_is_one_word_of_a_command(labelled, tmp_path):
    bank = Bank(shutil.copytree(labelled[0].path, tmp_path / "my own.bank"))
    found = commands(read_inputs(bank))
    for name in ("fit", "label", "layer", "duplicates", "issues", "report"):
        assert f"'{bank.path}'" in found[name]


def test_the_groups_of_a_fit_are_in_its_settings_and_command(labelled, tmp_path):
    bank, _, _ = labelled
    file = tmp_path / "a.featurebank"
    fit(bank, target="label", features="penultimate", models=["centroid"], groups="age", folds=2).save(file)
    found = read_inputs(bank, file)
    assert ("groups", "age") in settings(found.fit)
    assert " --groups age --folds 2 " in commands(found)["fit"]
    assert found.groups.tolist() == pd.factorize(found.table.columns["age"])[0].tolist()
