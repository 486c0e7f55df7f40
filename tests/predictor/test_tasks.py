import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from predictor_files import members_of, write_members

import featurebank
from featurebank import Bank, Predictor, extract, fit, load_backbone, scan
from featurebank.errors import BankError, ImageError, PredictorError
from featurebank.extraction import embedding

TASKS = ["label", "side", "bright"]


@pytest.fixture(scope="module")
def tasks_bank(two_classes, tmp_path_factory):
    """Cats and dogs, of whom half have a side, and all a brightness."""
    bank = extract(
        two_classes,
        tmp_path_factory.mktemp("tasks") / "a.bank",
        **{"backbone": "resnet18", "weights": "random:0", "size": 64, "layers": ["layer3", "penultimate"]},
    )
    paths = bank.samples["path"]
    side = [("left" if path[:3] == "cat" else "right") if number % 2 else None for number, path in enumerate(paths)]
    bright = [1.5 if path[:3] == "cat" else 2.25 for path in paths]
    bank.label(pd.DataFrame({"path": paths, "side": side, "bright": bright}))
    return bank


@pytest.fixture(scope="module")
def file(tasks_bank, tmp_path_factory):
    """The predictor file of all three tasks, each on a feature set of its own choice."""
    path = tmp_path_factory.mktemp("file") / "a.featurebank"
    fit(tasks_bank, target=TASKS, models={"ridge": {"alpha": [10.0]}, "mlp": {"alpha": [1.0]}}, folds=3).save(path)
    return path


@pytest.fixture
def resnet():
    return load_backbone("resnet18", "random:0", 64)


@pytest.fixture
def new_csv(two_classes, tmp_path):
    """A manifest of the ten new images: two without a side, one called by a wrong one, all with a brightness."""
    rows = [f"{c}/{i:02}.png,{c},{'left' if c == 'cat' else 'right'},2" for c in ("cat", "dog") for i in range(5)]
    rows[0], rows[1], rows[9] = "cat/00.png,cat,,2", "cat/01.png,cat,right,2", "dog/04.png,dog,,2"
    (tmp_path / "new.csv").write_text("\n".join(["path,label,side,bright", *rows]))
    return tmp_path / "new.csv"


def new_images(two_classes):
    return sorted((two_classes.parent / "new").rglob("*.png"))


def test_every_task_of_new_images_is_predicted_by_one_pass_of_the_network(file, resnet, two_classes, monkeypatch):
    loaded = Predictor.load(file, backbone=resnet)
    images, opened, real = new_images(two_classes), [], embedding.read_image
    monkeypatch.setattr(embedding, "read_image", lambda item: opened.append(item) or real(item))
    frame = loaded.predict(images)
    assert sorted(opened) == images
    assert list(frame) == TASKS
    assert frame["label"].tolist() == [path.parent.name for path in images]
    assert frame["side"].tolist() == ["left" if path.parent.name == "cat" else "right" for path in images]
    assert np.abs(frame["bright"] - np.where(frame["label"] == "cat", 1.5, 2.25)).max() < 0.3
    chances = loaded.predict_proba(images)
    assert {name: each.shape for name, each in chances.items()} == {"label": (10, 2), "side": (10, 2)}
    np.testing.assert_allclose(chances["side"].sum(axis=1), 1)


def test_files_get_what_the_rows_of_the_bank_get(file, resnet, two_classes, tasks_bank):
    loaded = Predictor.load(file, backbone=resnet)
    table = loaded.predict_bank(tasks_bank)
    again = loaded.predict_table([two_classes / path for path in table["path"]])
    assert list(table)[1:] == list(again)
    for name in TASKS[:2]:
        assert table[f"label_{name}"].tolist() == again[f"label_{name}"].tolist()
        np.testing.assert_allclose(table[f"probability_{name}"], again[f"probability_{name}"], atol=1e-3)


def test_an_unreadable_image_keeps_its_row(file, resnet, two_classes, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    loaded = Predictor.load(file, backbone=resnet)
    table = loaded.predict_table([bad, new_images(two_classes)[0]])
    assert table["label_label"].isna().tolist() == [True, False]
    assert table["label_bright"].isna().tolist() == [True, False]
    assert table["error"][0].startswith("not a readable image")
    assert loaded.predict_table([bad])["label_side"].isna().tolist() == [True]
    with pytest.raises(ImageError, match=r"bad.png': not a readable image"):
        loaded.predict([bad])


def test_each_task_is_scored_on_the_images_that_have_its_label(file, resnet, two_classes, new_csv):
    loaded = Predictor.load(file, backbone=resnet)
    report = loaded.evaluate(scan(new_csv, root=two_classes.parent / "new"))
    assert (report["n_samples"], report["unlabelled"], report["seen_in_training"]) == (10, 0, 0)
    label, side, bright = report["tasks"].values()
    assert (label["n_samples"], label["accuracy"]) == (10, 1.0)
    assert (side["n_samples"], side["confusion"]) == (8, [[3, 0], [1, 4]])
    assert bright["n_samples"] == 10
    assert 0.2 < bright["mae"] < 0.6
    one = loaded.evaluate(scan(new_csv, root=two_classes.parent / "new"), target="side")
    assert one["tasks"] == {"side": side}
    assert (one["n_samples"], one["unlabelled"]) == (8, 2)
    lines = new_csv.read_text().splitlines()
    lines = [f"{line},{weight}" for line, weight in zip(lines, ["w", "", *"123456789"], strict=True)]
    new_csv.write_text("\n".join(lines))
    weighted = loaded.evaluate(scan(new_csv, root=two_classes.parent / "new"), sample_weight="w")["tasks"]
    assert weighted["label"]["n_samples"] == 9
    assert weighted["side"]["confusion"] == [[9, 0], [1, 26]]
    known = loaded.evaluate(scan(two_classes), target="label")
    assert known["seen_in_training"] == 40


def test_what_evaluation_does_not_know_is_an_error(file, resnet, two_classes, tmp_path):
    loaded = Predictor.load(file, backbone=resnet)
    with pytest.raises(PredictorError, match="the source has no column 'side'; it has 'label': give a manifest"):
        loaded.evaluate(scan(two_classes))
    with pytest.raises(PredictorError, match="no task 'colour'; this predictor knows label, side, bright"):
        loaded.evaluate(scan(two_classes), target="colour")
    (tmp_path / "a.csv").write_text("path,label,side,bright\ncat/00.png,cat,,1\ncat/01.png,cat,,1\n")
    with pytest.raises(PredictorError, match="no image of the source has a value of 'side'"):
        loaded.evaluate(scan(tmp_path / "a.csv", root=two_classes))
    with pytest.raises(PredictorError, match="no image of the source has a value of side"):
        loaded.evaluate(scan(tmp_path / "a.csv", root=two_classes), target="side")
    (tmp_path / "a.csv").write_text("path,label,side,bright\ncat/00.png,cat,above,1\n")
    with pytest.raises(PredictorError, match=r"column 'side' holds \['above'\]; this predictor knows left, right"):
        loaded.evaluate(scan(tmp_path / "a.csv", root=two_classes))


# --- the file ----------------------------------------------------------------------------------------------


def test_every_file_is_loaded_alike_and_says_what_it_predicts(file, two_class_predictor):
    several, one = Predictor.load(file), Predictor.load(two_class_predictor)
    assert (several.target, several.task, list(several.tasks)) == ("label+side+bright", "multitask", TASKS)
    assert (one.target, one.task, one.single.target) == ("label", "classification", "label")
    assert several.classes["side"].tolist() == ["left", "right"]
    with pytest.raises(PredictorError, match="predicts several tasks, label, side, bright; expected one"):
        _ = several.model
    with pytest.raises(PredictorError, match="no predictor at"):
        Predictor.load("nowhere.featurebank")


def test_old_names_work_with_a_notice(file):
    with pytest.warns(FutureWarning, match=r"^featurebank\.MultiTaskPredictor is now featurebank\.Predictor; the old"):
        loaded = featurebank.MultiTaskPredictor.load(file)
    with pytest.warns(FutureWarning, match=r"^Predictor\.fit is now Predictor\.report; the old spelling goes"):
        assert loaded.fit == loaded.report


def test_weights_of_a_backbone_lie_in_the_file_once(two_classes, tmp_path):
    from safetensors.torch import save_file

    save_file(load_backbone("shufflenet_v2_x0_5", "random:3").model.state_dict(), tmp_path / "w.safetensors")
    options = {"backbone": "shufflenet_v2_x0_5", "weights": str(tmp_path / "w.safetensors"), "size": 64}
    bank = extract(two_classes, tmp_path / "a.bank", **options)
    paths = bank.samples["path"]
    bank.label(pd.DataFrame({"path": paths, "half": ["a", None] * 10 + ["b", None] * 10}))
    result = fit(bank, target=["label", "half"], models={"ridge": {"alpha": [1.0]}}, folds=2)
    result.save(tmp_path / "a.featurebank")
    names = list(members_of(tmp_path / "a.featurebank"))
    assert [name.split("/")[0] for name in names] == ["predictor.json", "fit.json", "weights", "tasks", "tasks"]
    (tmp_path / "w.safetensors").unlink()
    loaded = Predictor.load(tmp_path / "a.featurebank")
    carried = load_backbone(str(tmp_path / "a.featurebank"))
    assert (carried.name, carried.weights) == ("shufflenet_v2_x0_5", loaded.features[0].spec.weights)
    image = two_classes / "cat" / "00.png"
    table = loaded.predict_bank(bank).set_index("path")
    assert loaded.predict([image])["label"][0] == table.loc["cat/00.png", "label_label"]
    without = {name: data for name, data in members_of(tmp_path / "a.featurebank").items() if "weights" not in name}
    with pytest.raises(PredictorError, match="the weights of shufflenet_v2_x0_5/penultimate are not in it"):
        Predictor.load(write_members(tmp_path / "b.featurebank", without))


def test_a_loaded_predictor_saves_again(file, tasks_bank, tmp_path):
    Predictor.load(file).save(tmp_path / "b.featurebank")
    one, two = (Predictor.load(path).predict_bank(tasks_bank) for path in (file, tmp_path / "b.featurebank"))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def inner(members, number=0):
    with zipfile.ZipFile(io.BytesIO(members[f"tasks/{number}.featurebank"])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.pop("tasks/1.featurebank"), "its tasks are"),
        (lambda members: members.update({"tasks/7.featurebank": b"x"}), "its tasks are"),
        (lambda members: members.update({"tasks/0.featurebank": b"x"}), "no predictor that this featurebank reads"),
        (lambda members: members.update({"tasks/x.featurebank": b"x"}), "'tasks/x.featurebank' is unknown"),
        (lambda members: members.update({"model.skops": b"x"}), "expected each of"),
    ],
)
def test_members_that_save_never_writes_are_refused(file, tmp_path, change, message):
    members = members_of(file)
    change(members)
    with pytest.raises(PredictorError, match=message):
        Predictor.load(write_members(tmp_path / "b.featurebank", members))


def test_the_file_of_a_task_is_checked_like_any_other(file, tmp_path):
    members = members_of(file)
    own = inner(members)
    own["model.skops"] = own["model.skops"][:-20]
    members["tasks/0.featurebank"] = write_members(tmp_path / "task", {**own, "predictor.json": b"{}"}).read_bytes()
    with pytest.raises(PredictorError):
        Predictor.load(write_members(tmp_path / "b.featurebank", members))
    facts = json.loads(inner(members_of(file))["predictor.json"])
    assert facts["target"] == "label"


@pytest.mark.parametrize("kept", [0, 100, 5_000])
def test_a_truncated_file_is_refused(file, tmp_path, kept):
    (tmp_path / "b.featurebank").write_bytes(file.read_bytes()[:kept])
    with pytest.raises(PredictorError):
        Predictor.load(tmp_path / "b.featurebank")


# --- commands ----------------------------------------------------------------------------------------------


def test_the_commands_fit_predict_and_evaluate_all_tasks(run_cli, run_json, tasks_bank, two_classes, new_csv, tmp_path):
    output = tmp_path / "a.featurebank"
    targets = [word for name in TASKS for word in ("--target", name)]
    arguments = ["fit", tasks_bank.path, *targets, "--model", "mlp", "--features", "layer3", "--folds", 3, "-o", output]
    report = run_json(*arguments)
    assert set(report["tasks"]) == set(report["sharing"]) == set(TASKS)
    assert report["tasks"]["bright"]["scoring"] == "r2"
    shown = run_cli(*arguments).stdout
    assert "side: accuracy, 3-fold, 20 samples, 2 classes" in shown
    assert "One network whose hidden layer all tasks share" in shown
    assert shown.count(": sharing ") == 3
    oof = pd.read_csv(output.with_suffix(".oof.csv"))
    assert oof["true_side"].notna().sum() == 20

    table = pd.read_csv(io.StringIO(run_cli("predict", output, two_classes.parent / "new").stdout))
    assert list(table) == [
        *("path", "label_label", "probability_label", "label_side", "probability_side", "label_bright"),
        *("unlike", "is_unlike", "error"),
    ]
    predictions = run_json("predict", output, "--bank", tasks_bank.path, "--proba")["predictions"]
    assert len(predictions) == 40
    assert {"proba_side_left", "label_bright"} <= set(predictions[0])

    evaluated = ["evaluate", output, new_csv, "--root", two_classes.parent / "new"]
    assert run_json(*evaluated)["tasks"]["side"]["n_samples"] == 8
    shown = run_cli(*evaluated).stdout
    assert "label: 10 images" in shown
    assert "bright: 10 images" in shown
    assert run_json(*evaluated, "--target", "side")["tasks"].keys() == {"side"}


def test_a_file_of_several_tasks_is_no_backbone_and_no_head(run_cli, file, own_bank, two_classes, tmp_path):
    done = run_cli("finetune", own_bank, "--from", "head", "--predictor", file)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "predicts several tasks" in done.stderr
    done = run_cli("extract", two_classes, "--bank", tmp_path / "n.bank", "--backbone", file)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "holds no weights of a backbone" in done.stderr


def test_the_bank_must_have_every_feature_set(file, two_classes, tmp_path):
    bank = extract(two_classes, tmp_path / "b.bank", backbone="resnet18", weights="random:0", size=32)
    with pytest.raises(BankError, match="samples have no row in"):
        Predictor.load(file).predict_bank(Bank(bank.path))
