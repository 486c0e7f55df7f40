import json

import pandas as pd
import pytest

from featurebank import Bank, Predictor, fit, load_backbone

QUICK = ["--augment", "cached:2", "--epochs", 2, "--batch-size", 8, "--validation", 0.25]


@pytest.fixture(scope="module")
def tuned(two_class_bank, tmp_path_factory):
    """A bank with a fine-tuned predictor beside it, and the report of the command that made it."""
    import shutil

    from click.testing import CliRunner

    from featurebank_cli import main

    bank = shutil.copytree(two_class_bank, tmp_path_factory.mktemp("tuned") / "own.bank")
    arguments = ["finetune", bank, "--from", "layer4", *QUICK, "--folds", 3, "--seed", 1, "--json"]
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == 0, result.stderr
    return bank, json.loads(result.stdout), result.stderr


def test_json_has_the_history_the_blocks_and_the_comparison(tuned):
    _, report, _ = tuned
    assert (report["backbone"], report["cut"], report["n_samples"]) == ("resnet18", "layer4", 40)
    assert report["n_train"] + report["n_validation"] == 40
    assert [each["name"] for each in report["blocks"]] == ["layer4", "fc"]
    assert report["blocks"][0]["lr"] == pytest.approx(report["blocks"][1]["lr"] / 4)
    assert [each["number"] for each in report["history"]] == [0, 1, 2]
    assert report["best"] in report["history"]
    comparison = report["comparison"]
    assert len(comparison["frozen"]["fold_scores"]) == len(comparison["tuned"]["fold_scores"]) == 3
    assert comparison["difference"] == pytest.approx(comparison["tuned"]["mean"] - comparison["frozen"]["mean"])
    assert {"ci95", "told_apart", "sentence", "seconds"} <= set(comparison)
    assert report["seconds"] >= comparison["seconds"]


def test_what_it_will_take_and_each_epoch_are_told(tuned):
    _, _, said = tuned
    lines = said.splitlines()
    assert lines[0].startswith("estimate: 1 MB of activations for 40 images x 2 views, about ")
    assert "s an epoch, about " in lines[0]
    assert lines[0].endswith(" s for 2 epochs, here and in 3 folds")
    assert lines[1].startswith("epoch 0/2  the new head on frozen features  validation ")
    assert lines[3].startswith("epoch 2/2  loss ")
    assert "images/s" in lines[3]


def test_predict_and_evaluate_use_it(run_cli, run_json, tuned, two_classes):
    bank, report, _ = tuned
    assert report["predictor"] == str(bank.with_suffix(".tuned.featurebank"))
    new = two_classes.parent / "new"
    found = run_cli("predict", report["predictor"], new / "dog" / "00.png")
    assert found.stdout.splitlines()[1].split(",")[1] == "dog"
    assert run_json("evaluate", report["predictor"], new)["accuracy"] == 1.0
    seen = run_cli("evaluate", report["predictor"], two_classes)
    assert "40 of these images were among those the predictor learned from" in seen.stderr


def test_extract_and_fit_use_it_as_a_backbone(run_json, tuned, two_classes, tmp_path):
    bank, report, _ = tuned
    found = run_json(
        "extract", two_classes, "--bank", bank, "--backbone", report["predictor"], "--layer", "penultimate"
    )
    (each,) = found["feature_sets"]
    assert each["name"] == "resnet18/penultimate"
    name = f"resnet18/penultimate@{each['fingerprint'][:8]}"
    assert Bank(bank).feature_set(name).spec.weights == report["weights"]
    again = run_json("extract", two_classes, "--bank", bank, "--backbone", report["predictor"])
    assert again["reused"] == 40
    fit(bank, features=name, models=["logreg"]).save(tmp_path / "fit.featurebank")
    loaded = Predictor.load(tmp_path / "fit.featurebank")  # it carries the tuned weights itself
    assert loaded.features[0].spec.weights == report["weights"]
    assert set(loaded.tensors) == {report["weights"]}
    assert loaded.predict([two_classes / "cat" / "00.png"]).tolist() == ["cat"]
    assert load_backbone(report["predictor"]).weights == report["weights"]


def test_its_embeddings_in_the_bank_predict_like_its_images(run_json, tuned, two_classes):
    bank, report, _ = tuned
    run_json("extract", two_classes, "--bank", bank, "--backbone", report["predictor"])
    predictor = Predictor.load(report["predictor"])
    table = predictor.predict_bank(Bank(bank))
    proba = predictor.predict_proba([two_classes / path for path in table["path"]])
    assert abs(table["proba_cat"] - proba[:, 0]).max() < 1e-3


@pytest.mark.slow
def test_a_tuned_backbone_can_be_tuned_again(run_json, tuned, tmp_path):
    bank, report, _ = tuned
    options = ["--augment", "cached:none", "--epochs", 1, "-o", tmp_path / "again.featurebank"]
    again = run_json("finetune", bank, "--from", "layer4", "--backbone", report["predictor"], *options)
    assert again["weights"] != report["weights"]


@pytest.mark.slow
def test_a_predictor_gives_backbone_head_target_and_folds(run_json, run_cli, own_bank, tmp_path):
    path = tmp_path / "logreg.featurebank"
    fit(own_bank, features="resnet18/penultimate", models={"logreg": {"C": 0.01}}, folds=3).save(path)
    options = ["--predictor", path, *QUICK, "--folds", 3, "-o", tmp_path / "t.featurebank"]
    report = run_json("finetune", own_bank, "--from", "layer4", *options)
    assert report["warnings"] == []
    assert report["comparison"]["frozen"]["name"] == "resnet18/penultimate + LogisticRegression"
    expected = Predictor.load(path).fit["best"]["fold_scores"]
    assert report["comparison"]["frozen"]["fold_scores"] == pytest.approx(expected)


def test_another_kind_of_predictor_is_compared_with_and_the_head_is_its_own(run_cli, own_bank, tmp_path):
    path = tmp_path / "svm.featurebank"
    fit(own_bank, models={"svm": {"C": 1.0}}).save(path)
    options = ["--predictor", path, *QUICK, "--folds", 2, "-o", tmp_path / "t.featurebank"]
    result = run_cli("finetune", own_bank, "--from", "head", *options)
    assert result.exit_code == 0
    assert "Warning: the predictor is no logistic regression on the penultimate layer alone" in result.stderr
    assert "Frozen 1" in result.stdout
    assert "predictor: " in result.stdout


def test_columns_of_targets_groups_and_weights_are_used(run_json, run_cli, own_bank, tmp_path):
    rows = [f"{c}/{i:02}.png,{'ab'[i % 2]},{i // 4},{1 + i % 3}" for c in ("cat", "dog") for i in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,side,site,w", *rows]))
    run_json("label", own_bank, tmp_path / "labels.csv")
    names = ["--target", "side", "--groups", "site", "--sample-weight", "w", "--class-weight", "a=2,b=1"]
    report = run_json("finetune", own_bank, "--from", "head", *QUICK, *names, "-o", tmp_path / "a.featurebank")
    assert (report["classes"], report["target"]) == (["a", "b"], "side")
    frame = pd.DataFrame({"path": [f"cat/{i:02}.png" for i in range(20)], "part": [0.5 + i for i in range(20)]})
    frame.to_csv(tmp_path / "more.csv", index=False)
    run_json("label", own_bank, tmp_path / "more.csv")
    result = run_cli("finetune", own_bank, "--from", "head", "--target", "part")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: column 'part' holds fractions; fine-tuning learns classes: name a column of those\n",
    )


def test_a_backbone_that_is_named_alone_has_the_weights_and_the_size_that_the_bank_has(run_json, own_bank, tmp_path):
    command = ["finetune", own_bank, "--from", "head", *QUICK, "-o", tmp_path / "a.featurebank"]
    assert run_json(*command, "--backbone", "resnet18")["weights"] == run_json(*command)["weights"]


def test_the_learning_curve_is_drawn(run_json, own_bank, tmp_path):
    options = ["--plot", tmp_path / "a.png", "-o", tmp_path / "a.featurebank"]
    run_json("finetune", own_bank, "--from", "head", *QUICK, *options)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_ctrl_c_keeps_the_best_so_far_and_resume_goes_on(run_cli, run_json, own_bank, tmp_path, monkeypatch):
    from featurebank.finetuning.training import Trainer

    path, judge = tmp_path / "a.featurebank", Trainer._judge
    calls = []

    def stop_at_the_third(training):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judge(training)

    monkeypatch.setattr(Trainer, "_judge", stop_at_the_third)
    command = ["finetune", own_bank, "--from", "head", *QUICK, "-o", path]
    result = run_cli(*command)
    assert result.exit_code == 0
    assert "Interrupted: the best epoch so far is kept; --resume goes on." in result.stdout
    assert path.is_file()
    assert (tmp_path / "a.checkpoint").is_file()
    report = run_json(*command, "--resume")
    assert [each["number"] for each in report["history"]] == [0, 1, 2]
    assert not (tmp_path / "a.checkpoint").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--from", "layer9"], 1, "no module 'layer9' to cut before; did you mean layer"),
        (["--from", "layer3.0.relu"], 1, "cut before layer3.0 or layer3"),
        (["--from", "layer4", "--head", "mpl:3"], 1, "no head 'mpl:3'; expected linear, or mlp:H"),
        (["--from", "layer4", "--lr", "fast"], 2, "expected auto, or a number such as 1e-3"),
        (["--from", "layer4", "--resume"], 1, "no checkpoint at"),
        (["--from", "layer4", "--device", "cuda:99"], 1, "device 'cuda:99'"),
        (["--from", "layer4", "--augment", "cached:hflp"], 1, "no views 'hflp'; did you mean hflip?"),
        (["--from", "layer4", "--augment", "live:hflp"], 1, "no augmentation 'hflp'; did you mean hflip?"),
        (["--from", "layer4", "--plot", "a.gif"], 1, "a plot in '.gif'; expected one of .png, .svg, .pdf"),
        (["--from", "layer4", "-o", "nowhere/a.featurebank"], 1, "no folder 'nowhere'"),
        (["--from", "layer4", "--class-weight", "cta=2"], 1, "a weight for the class 'cta'; did you mean cat?"),
        (["--from", "layer4", "--backbone", "own.featurebank"], 1, "no predictor at 'own.featurebank'"),
        ([], 2, "Missing option '--from'"),
    ],
)
def test_what_cannot_be_had_is_an_error(run_cli, own_bank, options, code, message):
    result = run_cli("finetune", own_bank, *options)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_a_bank_of_two_backbones_asks_which(run_cli, run_json, own_bank, two_classes):
    run_json(
        "extract", two_classes, "--bank", own_bank, "--backbone", "resnet18", "--weights", "random:1", "--size", 32
    )
    result = run_cli("finetune", own_bank, "--from", "head")
    names = "resnet18 (random:0, 64 px), resnet18 (random:1, 32 px)"
    assert result.stderr.startswith(f"Error: the bank has features of these backbones: {names}; name one")
