import shlex

import pytest

from featurebank import advise

FALLING = {"layer1": 0.6, "layer2": 1.8, "layer3": 1.2, "layer4": 0.8, "penultimate": 0.4}


def test_json_is_the_report_of_the_library(run_json, own_bank):
    report = run_json("advise", own_bank, "--folds", 4)
    library = advise(own_bank, folds=4).report
    assert {"verdict", "evidence", "layers", "lines", "steps", "learning_curve", "warnings"} <= set(report)
    assert report["verdict"] == library["verdict"]
    assert report["lines"] == library["lines"]
    assert [step["commands"] for step in report["steps"]] == [list(step["commands"]) for step in library["steps"]]


def test_the_text_shows_the_curve_the_evidence_the_trade_and_the_commands(run_cli, planted_bank, planted_layers):
    layers, y = planted_layers(300, 2, FALLING)
    path = planted_bank(layers, {"label": y})
    result = run_cli("advise", path, "--jobs", 1)
    lines = result.stdout.splitlines()
    first = [line.split()[0] for line in lines if line.strip()]
    assert lines[0] == "resnet18, ridge probe of label: accuracy, 5-fold"
    assert [word for word in first if word in FALLING][:5] == list(FALLING)
    assert "lower ones together" in result.stdout
    assert "small and different: " in result.stdout
    assert "The trade: " in result.stdout
    commands = [line.strip() for line in lines if line.startswith("  featurebank ")]
    assert {shlex.split(command)[1] for command in commands} == {"fit", "finetune"}
    assert all(str(path) in command for command in commands)


@pytest.mark.parametrize("layers", [["layer3", "penultimate"], ["penultimate"]])
def test_what_is_printed_runs(run_cli, two_classes, tmp_path, monkeypatch, layers):
    """A real bank under a name that a shell must be told: every recommended command runs as it is printed."""
    from featurebank import extract

    monkeypatch.chdir(tmp_path)
    extract(two_classes, "my photos.bank", backbone="resnet18", weights="random:0", size=32, layers=layers)
    result = run_cli("advise", "my photos.bank", "--folds", 3)
    commands = [line.strip() for line in result.stdout.splitlines() if line.startswith("  featurebank ")]
    assert commands
    for command in commands:
        done = run_cli(*shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.stderr)


@pytest.mark.slow
def test_the_fine_tuning_that_is_printed_runs(run_cli, two_classes, tmp_path, monkeypatch):
    """The commands of every fine-tuning, on pictures: they run as they are printed, one epoch in place of ten."""
    from featurebank import Bank, extract
    from featurebank.explore.advice.commands import Planner
    from featurebank.explore.advice.evidence import Question, measure

    monkeypatch.chdir(tmp_path)
    layers = ["layer2", "layer3", "penultimate"]
    extract(two_classes, "photos.bank", backbone="resnet18", weights="random:0", size=32, layers=layers)
    bank, question = Bank("photos.bank"), Question("label", folds=3)
    planner = Planner(bank, question, measure(bank, question))
    for action in ("top-blocks", "all", "retrain"):
        step = planner.recommend(action)
        assert step.is_estimate
        assert step.seconds > 0
        (command,) = step.commands
        done = run_cli(*shlex.split(command)[1:], "--epochs", 1)
        assert done.exit_code == 0, (command, done.stderr)


def test_options_reach_the_library(run_json, own_bank, tmp_path):
    rows = [f"{c}/{i:02}.png,{'ab'[i % 2]},{i // 4},1.5" for c in ("cat", "dog") for i in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,side,site,w", *rows]))
    run_json("label", own_bank, tmp_path / "labels.csv")
    options = ["--target", "side", "--groups", "site", "--sample-weight", "w", "--scoring", "roc_auc", "--folds", 3]
    report = run_json("advise", own_bank, *options, "--seed", 4, "--jobs", 1)
    assert (report["target"], report["scoring"], report["folds"], report["seed"]) == ("side", "roc_auc", 3, 4)
    assert report["verdict"]["action"] == "labels"  # which side a picture is on cannot be seen


def test_what_cannot_be_had_is_one_line(run_cli, own_bank):
    for options, message in (
        (["--target", "species"], "no column 'species'"),
        (["--groups", "species"], "no column 'species'"),
        (["--folds", "30"], "cannot be split"),
        (["--scoring", "acuracy"], "no scoring 'acuracy'"),
    ):
        result = run_cli("advise", own_bank, *options)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
