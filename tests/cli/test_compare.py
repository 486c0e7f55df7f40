import numpy as np

from featurebank import rank_features


def test_json_has_the_table_and_the_correlations_of_the_library(run_json, own_bank):
    report = run_json("compare", own_bank, "--folds", 4, "--seed", 1)
    assert (report["n_samples"], report["classes"], report["model"], report["folds"]) == (
        *(40, ["cat", "dog"], "logreg", 4),
    )
    library = rank_features(own_bank, folds=4, random_state=1)
    assert [each["features"] for each in report["features"]] == library.table["features"].tolist()
    for name in ("score", "difference_low", "logme", "h_score", "ridge"):
        assert [each[name] for each in report["features"]] == library.table[name].tolist()
    assert report["features"][0]["difference"] == 0
    assert report["features"][0]["missing"] == 0
    assert [each["measure"] for each in report["correlations"]] == ["logme", "h_score", "ridge"]
    assert report["correlations"][0]["spearman"] is None  # two sets


def test_the_tables_show_every_set_and_how_well_the_measures_rank(run_cli, planted_bank, planted_layers):
    signals = {"layer1": 0.4, "layer2": 1.0, "layer3": 2.0, "penultimate": 3.0}
    layers, y = planted_layers(90, 2, signals)
    result = run_cli("compare", planted_bank(layers, {"label": y}), "--model", "lda", "--folds", 3)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.startswith("lda: accuracy, 3-fold, 90 samples, 2 classes, resnet18 ")
    assert [line[0] for line in lines if line and line[0] in signals] == ["penultimate", "layer3", "layer2", "layer1"]
    assert "missing" not in result.stdout
    assert "Rank correlation with lda over 4 feature sets" in result.stdout
    assert ["ridge", "+1.00", "+1.00"] in lines
    assert max(map(len, result.stdout.splitlines())) <= 100
    (last,) = [line for line in lines if line[:1] == ["layer1"]]
    assert last[3].endswith("*")


def test_intervals_that_are_not_known_are_told_as_such(run_cli, run_json, planted_bank):
    """Two sets that hold the answer: without an error nothing tells how an error without a range varies."""
    age = np.repeat(np.arange(5.0), 12)
    bank = planted_bank(
        {"layer1": np.eye(5)[age.astype(int)], "penultimate": 2 * np.eye(5)[age.astype(int)]}, {"age": age}
    )
    options = [bank, "--task", "regression", "--model", "knn", "--scoring", "neg_mean_absolute_error"]
    (first, second) = run_json("compare", *options)["features"]
    assert (first["score"], first["ci_low"], second["ci_high"]) == (0, None, None)
    lines = [line.split() for line in run_cli("compare", *options).stdout.splitlines()]
    assert [line[1:4] for line in lines if line[:1] in (["layer1"], ["penultimate"])] == 2 * [["0.000", "not", "known"]]


def test_a_set_that_lacks_rows_has_its_line_and_a_warning(run_cli, planted_bank, planted_layers):
    layers, y = planted_layers(40, 2, {"layer1": 1.0, "penultimate": 2.0})
    layers["layer1"][:3] = np.nan
    result = run_cli("compare", planted_bank(layers, {"label": y}), "--folds", 3)
    assert ["layer1", "3"] in [line.split() for line in result.stdout.splitlines()]
    assert "3 of 40 samples have no row in 'resnet18/layer1': run `featurebank extract" in result.stderr


def test_options_reach_the_library(run_json, own_bank, tmp_path):
    rows = [f"{c}/{i:02}.png,{i // 4}" for c in ("cat", "dog") for i in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,site", *rows]))
    run_json("label", own_bank, tmp_path / "labels.csv")
    options = ["--features", "layer3+penultimate", "--model", "ridge", "--scoring", "balanced_accuracy", "--jobs", 1]
    report = run_json(
        "compare", own_bank, *options, "--groups", "site", "--task", "classification", "--target", "label"
    )
    assert [each["features"] for each in report["features"]] == ["resnet18/layer3+resnet18/penultimate"]
    assert report["features"][0]["score"] == report["features"][0]["ridge"]
    assert (report["model"], report["scoring"]) == ("ridge", "balanced_accuracy")


def test_what_cannot_be_had_is_one_line(run_cli, own_bank):
    for options, message in (
        (["--features", "layer9"], "no feature set 'layer9'"),
        (["--target", "species"], "no column 'species'"),
        (["--model", "forest"], "no top model 'forest'"),
    ):
        result = run_cli("compare", own_bank, *options)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
