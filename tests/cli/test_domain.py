import sys

import numpy as np
import pandas as pd
import pytest
from domain_maker import domain_bank, two_domains

from featurebank import Predictor
from featurebank_cli.domain import ADAPTATIONS, SCORERS

WHERE = ("--domain", "site", "--source", "A", "--target-domain", "B", "--target", "label", "--model", "logreg")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    def move(X):
        return X + 5.0

    return domain_bank(tmp_path_factory.mktemp("cli") / "x.bank", *two_domains(120, 100, move=move)).path


def test_the_names_are_the_librarys():
    from featurebank.fitting.adaptation import adapters, trials

    assert (ADAPTATIONS, SCORERS) == (adapters.ADAPTATIONS, trials.SCORERS)


def test_json_has_the_promised_fields_and_the_files_are_there(run_json, bank, tmp_path):
    path = tmp_path / "x.featurebank"
    report = run_json("fit", bank, *WHERE, "--adapt", "coral", "--adapt", "ot", "--folds", 4, "--seed", 3, "-o", path)
    assert {"n_samples", "classes", "folds", "candidates", "best", "warnings", "shift", "adaptations"} <= set(report)
    assert (report["folds"], report["seed"], report["predictor"]) == (4, 3, str(path))
    assert [each["adapt"] for each in report["adaptations"]] == ["none", "coral", "ot"]
    assert report["chosen"]["adapt"] in ("coral", "ot")
    assert list(Predictor.load(path).classes) == ["cat", "dog"]
    frame = pd.read_csv(path.with_suffix(".oof.csv"))
    assert list(frame.columns[:4]) == ["source", "path", "domain", "fold"]
    assert len(frame) == 220


def test_the_shift_comes_first_then_the_table(run_cli, bank, tmp_path):
    result = run_cli("fit", bank, *WHERE, "-o", tmp_path / "x.featurebank")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("net/layer: shift: a classifier tells A from B with 100.0 %")
    assert "from A (120 samples) to B (100, 100 with a label)" in result.stdout
    first = [line.split()[0] for line in lines if line.split()]
    assert [name for name in first if name in ADAPTATIONS] == [*ADAPTATIONS]
    assert sum(line.rstrip().endswith("chosen") for line in lines) == 1
    assert "without labels of B: " in result.stdout
    assert max(len(line.rstrip()) for line in lines if line.startswith(" ")) <= 100


def test_no_figure_without_labels_is_said(run_cli, tmp_path):
    X, y, is_source = two_domains(40, 40)
    y[~is_source] = -1
    path = domain_bank(tmp_path / "x.bank", X, y, is_source).path
    result = run_cli("fit", path, *WHERE, "--adapt", "none", "--adapt", "coral")
    assert result.exit_code == 0, result.stderr
    assert "No adaptation" in result.stdout or "no adaptation" in result.stdout
    assert "No figure for B: none of its samples has a label." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source", "A"), "--source needs --domain"),
        (("--adapt", "coral"), "--adapt needs --domain"),
        (("--domain", "site", "--source", "A"), "--domain needs --target-domain"),
        ((*WHERE, "--nested"), "--nested does not go with --domain"),
        ((*WHERE, "--calibrate", "sigmoid"), "--calibrate does not go with --domain"),
        ((*WHERE, "--target", "site"), "--domain takes one --target"),
        ((*WHERE, "--adapt", "corral"), "corral"),
        ((*WHERE, "--target-labels", "-1"), "-1"),
    ],
)
def test_flags_that_do_not_go_together_are_usage_errors(run_cli, bank, arguments, message):
    result = run_cli("fit", bank, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_is_not_there_is_one_line(run_cli, bank):
    result = run_cli("fit", bank, "--domain", "site", "--source", "A", "--target-domain", "Q", "--target", "label")
    assert (result.exit_code, result.stderr) == (1, "Error: column 'site' has no value 'Q'; expected one of A, B\n")


def test_a_missing_library_is_one_line(run_cli, bank, monkeypatch):
    monkeypatch.setitem(sys.modules, "skada", None)
    result = run_cli("fit", bank, *WHERE)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "pip install 'featurebank[adapt]'" in result.stderr


def test_hostile_names_of_domains_are_shown_harmlessly(run_cli, tmp_path):
    X, y, is_source = two_domains(40, 40)
    evil = "[red]\x1b[31mB"
    path = domain_bank(tmp_path / "x.bank", X, y, is_source, lab=np.where(is_source, "A", evil)).path
    where = ("--domain", "lab", "--source", "A", "--target-domain", evil, "--target", "label", "--model", "logreg")
    result = run_cli("fit", path, *where, "--adapt", "coral")
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "[red]\\x1b[31mB" in result.stdout
