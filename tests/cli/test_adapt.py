import json
import sys

import numpy as np
import pandas as pd
import pytest
from domain_maker import domain_bank, two_domains

from featurebank import Predictor
from featurebank_cli.adapt import METHODS, SCORERS

WHERE = ("--domain", "site", "--source", "A", "--target-domain", "B", "--target", "label", "--model", "logreg")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    def move(X):
        return X + 5.0

    return domain_bank(tmp_path_factory.mktemp("cli") / "x.bank", *two_domains(120, 100, move=move)).path


def test_the_names_are_the_librarys():
    from featurebank.fitting.adaptation import adapters, trials

    assert (METHODS, SCORERS) == (adapters.ADAPTATIONS, trials.SCORERS)


def test_json_has_the_promised_fields_and_the_files_are_there(run_json, bank, tmp_path):
    path = tmp_path / "x.featurebank"
    report = run_json(
        "adapt", bank, *WHERE, "--method", "coral", "--method", "ot", "--folds", 4, "--seed", 3, "-o", path
    )
    assert {"n_samples", "classes", "folds", "candidates", "best", "warnings", "shift", "adaptations"} <= set(report)
    assert (report["folds"], report["seed"], report["predictor"]) == (4, 3, str(path))
    assert [each["adapt"] for each in report["adaptations"]] == ["none", "coral", "ot"]
    assert report["chosen"]["adapt"] in ("coral", "ot")
    assert list(Predictor.load(path).classes) == ["cat", "dog"]
    frame = pd.read_csv(path.with_suffix(".oof.csv"))
    assert list(frame.columns[:4]) == ["source", "path", "domain", "fold"]
    assert len(frame) == 220


def test_the_shift_comes_first_then_the_table(run_cli, bank, tmp_path):
    result = run_cli("adapt", bank, *WHERE, "-o", tmp_path / "x.featurebank")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("net/layer: shift: a classifier tells A from B with 100.0 %")
    assert "from A (120 samples) to B (100, 100 with a label)" in result.stdout
    first = [line.split()[0] for line in lines if line.split()]
    assert [name for name in first if name in METHODS] == [*METHODS]
    assert sum(line.rstrip().endswith("chosen") for line in lines) == 1
    assert "without labels of B: " in result.stdout
    assert max(len(line.rstrip()) for line in lines if line.startswith(" ")) <= 100


def test_no_figure_without_labels_is_said(run_cli, tmp_path):
    X, y, is_source = two_domains(40, 40)
    y[~is_source] = -1
    path = domain_bank(tmp_path / "x.bank", X, y, is_source).path
    result = run_cli("adapt", path, *WHERE, "--method", "none", "--method", "coral")
    assert result.exit_code == 0, result.stderr
    assert "No adaptation" in result.stdout or "no adaptation" in result.stdout
    assert "No figure for B: none of its samples has a label." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source", "A"), "Missing option '--domain'"),
        (("--domain", "site", "--source", "A"), "Missing option '--target-domain'"),
        ((*WHERE, "--nested"), "No such option '--nested'"),
        ((*WHERE, "--calibrate", "sigmoid"), "No such option '--calibrate'"),
        ((*WHERE, "--method", "corral"), "corral"),
        ((*WHERE, "--target-labels", "-1"), "-1"),
    ],
)
def test_flags_that_do_not_go_together_are_usage_errors(run_cli, bank, arguments, message):
    result = run_cli("adapt", bank, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_old_spelling_hands_over_and_says_so(run_cli, bank, tmp_path):
    old = run_cli("fit", bank, *WHERE, "--adapt", "coral", "--folds", 2, "--json", "-o", tmp_path / "x.featurebank")
    new = run_cli("adapt", bank, *WHERE, "--method", "coral", "--folds", 2, "--json", "-o", tmp_path / "x.featurebank")
    assert (old.exit_code, new.exit_code) == (0, 0)
    facts = [{**json.loads(each.stdout), "seconds": 0, "candidates": 0, "best": 0} for each in (old, new)]
    assert facts[0] == facts[1]
    assert "fit --domain is now adapt --domain (--adapt is --method)" in old.stderr
    assert "is now" not in new.stderr
    assert run_cli("fit", bank, "--adapt", "coral").exit_code == 2  # without --domain it never meant anything


def test_what_is_not_there_is_one_line(run_cli, bank):
    result = run_cli("adapt", bank, "--domain", "site", "--source", "A", "--target-domain", "Q", "--target", "label")
    assert (result.exit_code, result.stderr) == (1, "Error: column 'site' has no value 'Q'; expected one of A, B\n")


def test_a_missing_library_is_one_line(run_cli, bank, monkeypatch):
    monkeypatch.setitem(sys.modules, "skada", None)
    result = run_cli("adapt", bank, *WHERE)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "pip install 'featurebank[adapt]'" in result.stderr


def test_hostile_names_of_domains_are_shown_harmlessly(run_cli, tmp_path):
    X, y, is_source = two_domains(40, 40)
    evil = "[red]\x1b[31mB"
    path = domain_bank(tmp_path / "x.bank", X, y, is_source, lab=np.where(is_source, "A", evil)).path
    where = ("--domain", "lab", "--source", "A", "--target-domain", evil, "--target", "label", "--model", "logreg")
    result = run_cli("adapt", path, *where, "--method", "coral")
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "[red]\\x1b[31mB" in result.stdout
