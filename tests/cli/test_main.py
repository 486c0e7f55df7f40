import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest

import featurebank
from featurebank.errors import printable
from featurebank.topmodels.formatting import percent
from featurebank_cli import main
from featurebank_cli.output import csv_text
from featurebank_cli.state import State

COMMANDS = sorted(main.commands)
HEAVY = ("torch", "sklearn", "pandas", "h5py", "numpy", "scipy", "PIL", "timm", "torchvision")


def test_all_commands_of_the_design_are_there():
    wanted = {"extract", "fit", "predict", "evaluate", "label", "backbones", "layers", "info", "verify", "demo"}
    wanted |= {"similar", "duplicates", "label-issues", "map", "export", "import"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(run_cli, name):
    result = run_cli(name, "--help")
    assert result.exit_code == 0
    assert f"Example:\n      featurebank {name}" in result.stdout
    assert main.commands[name].get_short_help_str(200).endswith((".", "damaged"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    options = [each for each in main.commands[name].params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


def test_the_group_has_help_with_an_example_and_a_version(run_cli):
    assert "Example:\n      featurebank extract photos/ --bank photos.bank" in run_cli("--help").stdout
    assert run_cli("-h").stdout == run_cli("--help").stdout
    assert run_cli("--version").stdout.strip() == f"featurebank, version {featurebank.__version__}"
    assert version("featurebank") == featurebank.__version__


def test_help_is_light():
    """In one process, where what a command has loaded stays loaded; the first one is named."""
    code = (
        "import sys\nfrom featurebank_cli import main\n"
        f"for arguments in {[['--help'], ['--version'], *([name, '--help'] for name in COMMANDS)]!r}:\n"
        "    main(arguments, standalone_mode=False)\n"
        f"    assert not set({HEAVY!r}) & set(sys.modules), (arguments, set({HEAVY!r}) & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# --- errors ------------------------------------------------------------------------------------------------

MISTYPED = [
    ["fit", "BANK", "--target", "LABLE"],
    ["fit", "BANK", "--groups", "labl"],
    ["fit", "BANK", "--sample-weight", "labels"],
    ["fit", "BANK", "--split", "Label_"],
    ["fit", "BANK", "--cv", "predefined:lable"],
    ["adapt", "BANK", "--domain", "lable", "--source", "a", "--target-domain", "b"],
    ["advise", "BANK", "--target", "lable"],
    ["outliers", "BANK", "--target", "lable"],
    ["label-issues", "BANK", "--target", "lable"],
    ["cluster", "BANK", "--target", "lable"],
    ["report", "BANK", "--target", "lable", "-o", "report.html"],
    ["evaluate", "PREDICTOR", "PHOTOS", "--target", "lable"],
    ["evaluate", "PREDICTOR", "PHOTOS", "--groups", "lable"],
    ["evaluate", "PREDICTOR", "PHOTOS", "--sample-weight", "lable"],
    ["label", "BANK", "labels.csv", "--column", "lable"],
    ["label", "BANK", "labels.csv", "--path-column", "file_"],
    ["extract", "labels.csv", "--bank", "new.bank", "--path-column", "File_"],
]


@pytest.mark.parametrize("arguments", MISTYPED, ids=" ".join)
def test_a_mistyped_column_is_answered_by_the_one_that_was_meant(
    arguments, run_cli, two_class_bank, two_class_predictor, two_classes, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\ncat/00.png,cat\n")
    places = {"BANK": two_class_bank, "PREDICTOR": two_class_predictor, "PHOTOS": two_classes}
    result = run_cli(*(places.get(word, word) for word in arguments))
    meant = "file" if "--path-column" in arguments else "label"
    assert (result.exit_code, f"did you mean {meant}? " in result.stderr) == (1, True), result.stderr


ERRORS = [
    ["extract", "nowhere", "--bank", "new.bank"],
    ["extract", "PHOTOS", "--bank", "new.bank", "--backbone", "resnet19"],
    ["extract", "PHOTOS", "--bank", "new.bank", "--backbone", "resnet18", "--weights", "random:x"],
    ["extract", "PHOTOS", "--bank", "new.bank", "--backbone", "resnet18", "--weights", "none.pth"],
    ["extract", "PHOTOS", "--bank", "new.bank", "--weights", "random:0", "--layer", "layer9"],
    ["extract", "PHOTOS", "--bank", "new.bank", "--weights", "random:0", "--device", "abacus"],
    ["extract", "PHOTOS", "--bank", "PHOTOS"],
    ["fit", "nowhere.bank"],
    ["fit", "PHOTOS"],
    ["fit", "BANK", "--model", "forest"],
    ["fit", "BANK", "--target", "species"],
    ["fit", "BANK", "--features", "resnet18/layer9"],
    ["fit", "BANK", "--features", "layer9"],
    ["prune", "BANK", "--source", "nowhere"],
    ["label", "BANK", "PHOTOS"],
    ["fit", "BANK", "--folds", "50"],
    ["fit", "BANK", "--groups", "species"],
    ["fit", "BANK", "--sample-weight", "label"],
    ["fit", "BANK", "--scoring", "acuracy"],
    ["fit", "BANK", "--scoring", "r2"],
    ["fit", "BANK", "--jobs", "0"],
    ["fit", "BANK", "--model", "logreg", "-o", "no/such/folder/a.featurebank"],
    ["predict", "nowhere.featurebank", "a.png"],
    ["predict", "PHOTOS", "a.png"],
    ["predict", "PREDICTOR", "--bank", "nowhere.bank"],
    ["evaluate", "nowhere.featurebank", "PHOTOS"],
    ["evaluate", "PREDICTOR", "nowhere"],
    ["evaluate", "PREDICTOR", "PHOTOS", "--target", "species"],
    ["evaluate", "PREDICTOR", "PHOTOS", "--sample-weight", "label"],
    ["label", "BANK", "nowhere.csv"],
    ["label", "nowhere.bank", "nowhere.csv"],
    ["backbones", "nothing*"],
    ["layers", "resnet19"],
    ["layers", "vit_b_16", "--size", "100"],
    ["duplicates", "nowhere.bank"],
    ["duplicates", "BANK", "--features", "layer9"],
    ["label-issues", "BANK", "--target", "species"],
    ["label-issues", "BANK", "--oof", "nowhere.csv"],
    ["label-issues", "BANK", "--model", "forest"],
    ["similar", "BANK", "nowhere.png"],
    ["similar", "PHOTOS", "cat/00.png"],
    ["map", "BANK", "--color", "species"],
    ["map", "BANK", "-o", "map.gif"],
    ["map", "BANK", "-o", "no/such/folder/map.png"],
    ["info", "nowhere.bank"],
    ["verify", "PHOTOS"],
    ["cluster", "nowhere.bank"],
    ["cluster", "BANK", "--features", "layer9"],
    ["cluster", "BANK", "--target", "species"],
    ["outliers", "BANK", "--target", "species"],
    ["outliers", "PHOTOS"],
    ["next", "BANK", "--predictor", "PREDICTOR"],
    ["next", "BANK", "--predictor", "PHOTOS"],
    ["fit", "BANK", "--unlabelled", "whiten"],
]


@pytest.mark.parametrize("arguments", ERRORS, ids=" ".join)
def test_an_error_is_one_line_on_stderr_and_exit_code_1(
    run_cli, arguments, two_classes, two_class_bank, two_class_predictor, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"PHOTOS": two_classes, "BANK": two_class_bank, "PREDICTOR": two_class_predictor}
    result = run_cli(*(places.get(each, each) for each in arguments))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 500


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["extract", "photos"],
        ["extract", "photos", "--bank", "a.bank", "--batch-size", "0"],
        ["extract", "photos", "--bank", "a.bank", "--store", "int8"],
        ["fit"],
        ["fit", "a.bank", "--folds", "1"],
        ["fit", "a.bank", "--depth", "3"],
        ["predict", "a.featurebank"],
        ["predict", "a.featurebank", "a.png", "--bank", "a.bank"],
        ["layers", "resnet18", "--size", "-1"],
        ["label-issues", "a.bank", "--oof", "a.oof.csv", "--model", "svm"],
        ["similar", "a.bank", "a.png", "-k", "0"],
        ["map", "a.bank", "--method", "lle"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_exit_code_2(run_cli, arguments):
    result = run_cli(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def test_a_real_process_shows_no_traceback_either(tmp_path):
    done = subprocess.run(
        [Path(sys.executable).with_name("featurebank"), "info", tmp_path / "none.bank"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "featurebank", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("featurebank, version")


# --- output ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_json_is_the_only_thing_on_stdout_in_a_real_process(own_bank):
    command = [Path(sys.executable).with_name("featurebank"), "fit", own_bank, "--model", "svm", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"]["model"] == "svm"
    assert "Traceback" not in done.stderr


def test_quiet_says_nothing_beside_the_result(run_cli, two_class_predictor, two_classes, tmp_path):
    arguments = ["predict", two_class_predictor, two_classes / "cat", "-o", tmp_path / "a.csv"]
    assert run_cli(*arguments).stderr == f"20 predictions in {tmp_path / 'a.csv'}\n"
    quiet = run_cli("--quiet", *arguments)
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_there_is_no_progress_bar_without_a_terminal():
    assert State().progress("extract") is None


@pytest.mark.parametrize(
    ("text", "shown"), [("plain é", "plain é"), ("a\nb", "a\\nb"), ("a\x1b[2Jb", "a\\x1b[2Jb"), ("a\udce9", "a\\udce9")]
)
def test_text_is_made_safe_for_a_terminal(text, shown):
    assert printable(text) == shown


def test_cells_that_a_spreadsheet_takes_for_formulas_are_defused():
    import pandas as pd

    frame = pd.DataFrame({"path": ["=1+1", "+a", "-b", "@c", "\td", "\re", "f=g"], "n": [-1.5, 0, 1, 2, 3, 4, 5]})
    lines = csv_text(frame).replace('"', "").splitlines()
    assert csv_text(frame).startswith("path,n\n'=1+1,-1.5\n'+a,0.0\n'-b,1.0\n'@c,2.0\n'\td,3.0\n")
    assert lines[-1] == "f=g,5.0"
    assert csv_text(pd.DataFrame({"=bad": [1]})) == "'=bad\n1\n"


def test_percent_has_one_decimal():
    assert [percent(value) for value in (0, 0.8666, 1)] == ["0.0", "86.7", "100.0"]
